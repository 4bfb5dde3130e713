"""Runs are read, sorted by task, and told apart by whether their symmetry had to be learned."""

import numpy as np
import pytest

from equiscope.errors import InputError
from equiscope.report.evidence import gather
from tests.report import synthetic
from tests.report.test_page import write

JUDGED = "SO(3), cubic, noise averaged"


def renamed(records, **changes):
    """The records with another run record."""
    return [{**r, **changes} if r["kind"] == "run" else r for r in records]


def symmetric_run(**changes):
    """The force-field run with every percent at rounding."""
    records = renamed(synthetic.force_field_run(), name="tied", model="escaip_tied", **changes)
    for record in records:
        if record["kind"] == "measure":
            record["result"] |= {"percent": 3e-11, "percent_interval": [0.0, 6e-11], "equivariance": 1e-13}
            record["result"]["twirled"] = record["result"]["total"] - 1e-13
    return records


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    analysis = {"kind": "analysis", "analysis": "relations", "pair": "a ~ b", "values": {}, "step": 1}
    return gather([
        write(place / "demo", [*synthetic.force_field_run(), analysis]),
        write(place / "tied", [*symmetric_run(), analysis, {**analysis, "analysis": "brute"}]),
        write(place / "flow", synthetic.flow_run()),
        write(place / "empty", [synthetic.run_record(name="empty")]),
        place / "demo",
    ])  # fmt: skip


def test_runs_by_task_and_symmetry(evidence):
    assert [run.name for run in evidence.runs] == ["forcefield/demo", "forcefield/tied", "proteinflow/demo"]
    assert [run.model for run in evidence.of("forcefield")] == ["edge_transformer (nano)"]
    assert [run.model for run in evidence.of("forcefield", True)] == ["escaip_tied"]
    assert len(evidence.of("forcefield", None)) == 2
    assert evidence.of("voxels") == []
    assert evidence.tasks == ["proteinflow", "forcefield", "voxels"]
    assert evidence.left_out == ("forcefield/empty: no percent has been measured along its training",)


def test_a_run(evidence):
    run = evidence.runs[0]
    assert run.last_step == 2400
    np.testing.assert_allclose(run.told.seconds, 0.115 * run.curve.step, rtol=1e-12)
    assert run.result.samples == 480
    assert run.training_samples == 4000 or run.training_samples is None


def test_analyses_by_word(evidence):
    ((run, record),) = evidence.analyses("relations")
    assert (run.name, record["pair"]) == ("forcefield/demo", "a ~ b")
    assert evidence.analyses("hessian") == []
    # What a symmetric model's error correlates with is rounding; its parts by brute force are as good as any.
    assert [(run.name, record["analysis"]) for run, record in evidence.analyses("relations", "brute")] == [
        ("forcefield/demo", "relations"), ("forcefield/tied", "brute")]  # fmt: skip


def test_training_samples_are_what_the_data_record_says(tmp_path):
    for place, (data, expected) in enumerate([
        ({"used": {"train": 500}, "parts": {"train": {"frames": 3200}}}, 500),
        ({"parts": {"train": {"frames": 3200, "molecules": 320}}}, 3200),
        ({"parts": {"train": 394}}, 394),
        ({"molecules": 3}, None),
    ]):  # fmt: skip
        records = [r for r in synthetic.force_field_run() if r["kind"] != "data"]
        folder = write(tmp_path / str(place), [*records, {"kind": "data", **data}])
        assert gather([folder]).runs[0].training_samples == expected


def test_no_run_is_an_error(tmp_path):
    empty = write(tmp_path / "empty", [synthetic.run_record(name="empty")])
    with pytest.raises(InputError, match="no percent has been measured"):
        gather([empty])
    with pytest.raises(InputError, match="no run was given"):
        gather([])


def test_a_run_without_its_final_measurement_ends_with_the_last_of_the_judged_probe(tmp_path):
    measured = [synthetic.measure(step, probe, headline=probe == "octahedral", percent=percent, r2=0.9)
                for step in (0, 10) for probe, percent in (("octahedral", 1.0), (JUDGED, 40.0))]  # fmt: skip
    (run,) = gather([write(tmp_path / "a", [synthetic.run_record(task="voxels"), *measured])]).runs
    assert (run.curve.probe, run.judged.probe) == ("octahedral", JUDGED)
    assert (run.result.percent, run.told.result.percent) == (40.0, 1.0)


def test_runs_of_one_name_in_two_places_are_two(tmp_path):
    brute = {"kind": "analysis", "analysis": "brute", "probe": "forces", "step": 1, "values": {}}
    places = [write(tmp_path / root / "demo", [*synthetic.force_field_run(), brute]) for root in "ab"]
    found = gather(places)
    assert [run.name for run in found.runs] == ["forcefield/demo", "forcefield/demo (2)"]
    assert len(found.newest("brute")) == 2
