"""Each verdict by its rule: built runs for which the answer is known, and the same runs with one thing changed."""

import pytest

from equiscope.report.claims import claims
from equiscope.report.evidence import gather
from equiscope.report.verdicts import AGREES, DIFFERS, UNDECIDED, Row, combined
from tests.report import synthetic
from tests.report.test_evidence import renamed, symmetric_run
from tests.report.test_page import write


def curve_run(percents, r2s, steps=(0, 100, 1000, 12000), width=0.05, name="a", **changes):
    """A force-field run of which percent and R² at a few steps are given; the last is also the final figure."""
    records = [synthetic.run_record(name=name, **changes), synthetic.data_record()]
    for step, percent, r2 in zip(steps, percents, r2s, strict=True):
        records.append(synthetic.measure(step, percent=percent, r2=r2, width=width))
        records.append({"kind": "train", "step": step + 1, "seconds": 0.1 * (step + 1), "loss": 1.0})
    records.append(synthetic.measure(steps[-1], part="final", percent=percents[-1], r2=r2s[-1], width=width))
    return [*records, {"kind": "end", "step": steps[-1]}]


def judged(place, *runs):
    """key -> claim, of these runs."""
    folders = [write(place / str(number), run) for number, run in enumerate(runs)]
    return {claim.key: claim for claim in claims(gather(folders))}


def test_the_claims_in_the_order_of_the_abstract(tmp_path):
    found = judged(tmp_path, synthetic.force_field_run(), synthetic.flow_run())
    assert list(found) == ["measure", "quick", "robust", "easier", "penalty", "efficiency", "relations"]
    assert all(claim.says and claim.rule for claim in found.values())
    assert found["easier"].verdict == found["relations"].verdict == UNDECIDED
    assert any("voxels" in line for line in found["quick"].missing)


@pytest.mark.parametrize(
    ("percents", "r2s", "steps", "verdict"),
    [
        ((60, 5, 0.5, 0.4), (-1, 0.1, 0.8, 0.9), (0, 100, 1000, 12000), AGREES),
        ((60, 0.1, 0.1, 0.1), (-1, 0.0, 0.0, 0.1), (0, 100, 1000, 12000), UNDECIDED),  # collapsed, never skilled
        ((60, 5, 4, 6), (-1, 0.1, 0.8, 0.9), (0, 100, 1000, 12000), DIFFERS),
        ((60, 5, 4, 6), (-1, 0.1, 0.8, 0.9), (0, 100, 1000, 3000), UNDECIDED),  # too short to contradict
        ((60, 5, 4, 0.5), (-1, 0.1, 0.8, 0.9), (0, 100, 1000, 12000), UNDECIDED),  # crossed, but after the window
    ],
)
def test_quick(tmp_path, percents, r2s, steps, verdict):
    assert judged(tmp_path, curve_run(percents, r2s, steps))["quick"].verdict == verdict


def test_an_interval_over_the_threshold_decides_nothing(tmp_path):
    wide = curve_run((60, 5, 2.1, 2.2), (-1, 0.1, 0.8, 0.9), width=0.3)
    assert judged(tmp_path, wide)["quick"].verdict == UNDECIDED


@pytest.mark.parametrize(
    ("top", "r2", "verdict"), [(0.5, 0.8, AGREES), (5.0, 0.8, DIFFERS), (2.0, 0.8, UNDECIDED), (5.0, 0.3, UNDECIDED)]
)
def test_penalty_looks_at_every_skilled_measurement(tmp_path, top, r2, verdict):
    run = curve_run((60, 5, top, 0.4), (-1, 0.1, r2, 0.9 if r2 > 0.5 else 0.4))
    found = judged(tmp_path, run)["penalty"]
    assert found.verdict == verdict
    assert "0.4" in found.rows[0].interval


def test_penalty_names_the_worst_probe(tmp_path):
    rows = judged(tmp_path, synthetic.flow_run())["penalty"].rows
    assert rows[1].what == "the same at its worst probe, t=0.4"
    assert rows[1].verdict == DIFFERS


def test_robust_needs_two_sizes(tmp_path):
    good, bad = ((60, 5, 0.5, 0.4), (-1, 0.1, 0.8, 0.9)), ((60, 5, 4, 6), (-1, 0.1, 0.8, 0.9))
    small, large = (curve_run(*good, name=str(n), parameters=n) for n in (1000, 9000))
    assert judged(tmp_path / "one", small)["robust"].verdict == UNDECIDED
    both = judged(tmp_path / "two", small, large)["robust"]
    assert both.verdict == AGREES
    assert "1,000: 1,000; 9,000: 1,000" in both.rows[0].ours
    broken = curve_run(*bad, name="9000", parameters=9000)
    assert judged(tmp_path / "three", small, broken)["robust"].verdict == DIFFERS


def test_measure_sees_parts_that_do_not_add_up_and_negative_errors(tmp_path):
    assert judged(tmp_path / "good", synthetic.force_field_run())["measure"].verdict == AGREES
    broken = synthetic.force_field_run()
    next(r for r in broken if r["kind"] == "measure")["result"]["twirled"] *= 1.01
    assert judged(tmp_path / "broken", broken)["measure"].verdict == DIFFERS
    negative = synthetic.force_field_run()
    record = next(r for r in negative if r["kind"] == "measure")
    record["result"]["percent_interval"] = [-2.0, -1.0]
    assert judged(tmp_path / "negative", negative)["measure"].verdict == DIFFERS


def test_symmetric_models_are_not_asked_whether_they_learn(tmp_path):
    found = judged(tmp_path, synthetic.force_field_run(), symmetric_run())
    assert [row.run for row in found["quick"].rows] == ["forcefield/demo"]
    assert [row.run for row in found["measure"].rows] == ["2 runs"]


def test_verdicts_combine():
    rows = [Row("", "", "", "", "", "", verdict) for verdict in (AGREES, UNDECIDED, DIFFERS)]
    assert combined(rows) == DIFFERS
    assert combined(rows[:2]) == AGREES
    assert combined(rows[1:2]) == combined([]) == UNDECIDED
    assert renamed([{"kind": "run"}], name="x") == [{"kind": "run", "name": "x"}]
