"""Analyses of a run's checkpoints: records once, restarts, settings, and clear words for what cannot be done."""

from dataclasses import replace

import pytest
import torch

from equiscope import records
from equiscope.errors import InputError, RunError
from equiscope.runs import analyse as module
from equiscope.runs.analyse import analyse
from equiscope.runs.curvature import thinned
from equiscope.runs.folder import RunFolder
from equiscope.runs.train import train

from .toy import config

KEEP = [0, 3, 6, 12, 20, 30, 40]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(config(tmp_path_factory.mktemp("runs"), trainer__keep=KEEP, data={"dropout": 0.0}))


def analyses(run):
    return [r for r in records.read(run.records) if r["kind"] == "analysis"]


def test_each_kind_at_each_step_is_recorded_once(run):
    made = analyse(run.path, ["layers", "heads", "spectrum"], changes={"rotations": "T", "degrees": None}, at=[0, 40])
    assert [(r["analysis"], r["step"]) for r in made] == [
        ("layers", 0), ("layers", 40), ("heads", 0), ("heads", 40), ("spectrum", 0), ("spectrum", 40)
    ]  # fmt: skip
    before = run.records.read_bytes()
    again = analyse(run.path, ["layers", "heads", "spectrum"], changes={"rotations": "T", "degrees": None}, at=[40, 0])
    assert run.records.read_bytes() == before
    assert [r["n"] for r in again] == [r["n"] for r in made]
    head = made[3]["values"]
    assert head["layer"] == "3"
    tracked = next(r for r in records.read(run.records) if r["kind"] == "measure" and r["step"] == 40)
    assert head["equivariance"] == pytest.approx(tracked["result"]["equivariance"], rel=1e-9)
    assert [layer["name"] for layer in made[1]["values"]["layers"]] == ["0", "1", "2", "3", "answer"]
    # What was recorded while training still reads as an ended run.
    from equiscope.report.curves import history

    assert history(records.read(run.records)).finished


def test_one_that_was_stopped_goes_on_where_it_was(run, monkeypatch):
    kind, made = module.KINDS["spectrum"], []

    def dies(trained, *rest):
        if trained.step == 12:
            raise KeyboardInterrupt
        made.append(trained.step)
        return kind.make(trained, *rest)

    changes = {"rotations": "T", "degrees": 1, "seed": 5}
    with monkeypatch.context() as patch:
        patch.setitem(module.KINDS, "spectrum", module.Kind(kind.settings, dies, kind.own))
        with pytest.raises(KeyboardInterrupt):
            analyse(run.path, ["spectrum"], changes=changes)
        patch.setitem(module.KINDS, "spectrum", module.Kind(kind.settings, lambda t, *rest: made.append(-t.step) or
                                                            kind.make(t, *rest), kind.own))  # fmt: skip
        analyse(run.path, ["spectrum"], changes=changes)
    assert made == [0, 3, 6, -12, -20, -30, -40]
    assert len([r for r in analyses(run) if r["settings"]["seed"] == 5 and r["analysis"] == "spectrum"]) == len(KEEP)


def test_relations_of_the_head_along_training(run):
    made = analyse(run.path, ["heads"], changes={"samples": 12})
    related = {r["pair"]: r for r in made if r["analysis"] == "relations"}
    assert {"equivariance error ~ weight variance", "percent ~ exact form"} <= set(related)
    found = related["equivariance error ~ weight variance"]
    assert found["steps"] == KEEP
    assert found["values"]["points"] + found["values"]["left_out"] == len(KEEP)
    assert analyse(run.path, ["heads"], changes={"samples": 12})[-1]["n"] == made[-1]["n"]


def test_condition_numbers_of_the_head(run):
    made = analyse(run.path, ["conditioning"], at=[40])[0]
    found = made["values"]
    assert made["settings"]["batch"] == 4
    assert (found["layer"], found["parameters"], found["samples"]) == ("3", 99, 16)
    for part in found["parts"].values():
        assert "matrix" not in part
        assert part["eigenvalues"] == sorted(part["eigenvalues"])
        assert part["condition"] == pytest.approx(part["eigenvalues"][-1] / part["eigenvalues"][-part["rank"]])
    low, high = found["ratio"]["interval"]
    assert low < found["ratio"]["value"] < high
    # More than single precision could tell.
    assert found["parts"]["equivariance"]["condition"] > 1e5
    assert analyse(run.path, ["conditioning"], at=[40])[0]["n"] == made["n"]


def test_samples_are_spread_evenly():
    batches = [{"x": torch.arange(4.0), "id": torch.arange(4)}, {"x": torch.arange(4.0, 10), "id": torch.arange(4, 10)}]
    chosen = thinned(batches, 5)
    assert torch.cat([b["id"] for b in chosen]).tolist() == [0, 2, 4, 6, 8]
    assert [len(b["x"]) for b in thinned(batches, None)] == [4, 6]
    assert len(thinned(batches, 99)) == 2


@pytest.mark.parametrize(
    ("kinds", "settings", "words"),
    [
        (["colours"], {}, "unknown analysis 'colours'"),
        ([], {}, "unknown analysis"),
        (["layers"], {"probes": ["energy"]}, "no probe 'energy'; it has y"),
        (["layers"], {"changes": {"samples": 1}}, "samples must be"),
        (["layers"], {"changes": {"layers": ("9",)}}, "no layer of Sequential is named '9'"),
        (["spectrum"], {"changes": {"head": "3"}}, "head='3' means nothing to spectrum"),
        (["heads"], {"changes": {"head": "0"}}, "none of its layers \\(0\\)"),
        (["heads"], {"changes": {"colour": 1}}, "unknown setting"),
        (["heads"], {"changes": {"part": "train"}}, "part must be one of track, final, got 'train'"),
        (["conditioning"], {"changes": {"head": "0"}}, "none of its layers \\(0\\)"),
    ],
)
def test_what_cannot_be_done_is_said(run, kinds, settings, words):
    with pytest.raises(InputError, match=words):
        analyse(run.path, kinds, at=[40], **settings)


def test_the_final_set_may_be_analysed(run):
    made = analyse(run.path, ["heads"], at=[40], changes={"part": "final", "samples": None})[0]
    final = next(r for r in records.read(run.records) if r["kind"] == "measure" and r["part"] == "final")
    assert made["settings"]["part"] == "final"
    assert made["values"]["samples"] == final["result"]["samples"]
    assert made["values"]["elsewhere"]["samples"] != made["values"]["samples"]
    assert "part" not in analyse(run.path, ["heads"], at=[40], changes={"part": "track"})[0]["settings"]


@pytest.mark.parametrize("kind", ["layers", "spectrum"])
def test_a_model_of_the_octahedral_group_has_no_degrees(run, monkeypatch, kind):
    found = module._probes

    def octahedral(trained, names):
        return [tuple(replace(p, declaration=replace(p.declaration, group="O")) for p in pair)
                for pair in found(trained, names)]  # fmt: skip

    monkeypatch.setattr(module, "_probes", octahedral)
    with pytest.raises(InputError, match=f"{kind}: .*'y' declares the octahedral group.*; gradients, hessian"):
        analyse(run.path, [kind], at=[40])


def test_missing_steps_and_busy_runs(run):
    with pytest.raises(RunError, match=r"no checkpoint of step 7; it has those of steps 0, 3, 6"):
        analyse(run.path, ["layers"], at=[7])
    busy = RunFolder(run.path.parent.parent, run.path.parent.name, run.name)
    busy.acquire()
    try:
        with pytest.raises(RunError, match="in use"):
            analyse(run.path, ["layers"], at=[40])
    finally:
        busy.release()


def test_curvature_of_the_matrices_and_vectors_asked_for(run):
    changes = {"matrices": ("gauss_newton",), "vectors": 3, "samples": 8}
    (made, *_) = analyse(run.path, ["hessian"], at=[40], changes=changes)
    assert made["settings"]["matrices"] == ["gauss_newton"]
    assert made["settings"]["vectors"] == made["values"]["probes"] == 3
    found = made["values"]["parts"]["equivariance"]
    assert set(found) == {"gauss_newton"}
    # Positive semidefinite, so a trace is above every eigenvalue.
    assert found["gauss_newton"]["trace"]["value"] > 0
    with pytest.raises(InputError, match="probes"):
        analyse(run.path, ["hessian"], at=[40], changes={"vectors": 1})
    with pytest.raises(InputError, match="vectors=3 means nothing to layers"):
        analyse(run.path, ["layers"], at=[40], changes={"vectors": 3})
