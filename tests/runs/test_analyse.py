"""Analyses of a run's checkpoints: records once, restarts, settings, and clear words for what cannot be done."""

from dataclasses import replace

import pytest

from equiscope import records
from equiscope.errors import InputError, RunError
from equiscope.runs import analyse as module
from equiscope.runs.analyse import analyse
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
    known, made = module.analyses(), []
    kind = known["spectrum"]

    def dies(trained, *rest):
        if trained.step == 12:
            raise KeyboardInterrupt
        made.append(trained.step)
        return kind.make(trained, *rest)

    changes = {"rotations": "T", "degrees": 1, "seed": 5}
    with monkeypatch.context() as patch:
        patch.setattr(module, "analyses", lambda: {**known, "spectrum": replace(kind, make=dies)})
        with pytest.raises(KeyboardInterrupt):
            analyse(run.path, ["spectrum"], changes=changes)
        noting = replace(kind, make=lambda t, *rest: made.append(-t.step) or kind.make(t, *rest))
        patch.setattr(module, "analyses", lambda: {**known, "spectrum": noting})
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


@pytest.mark.parametrize(
    ("kinds", "settings", "words"),
    [
        (["colours"], {}, "unknown analysis 'colours'"),
        ([], {}, "no analysis given"),
        (["layers"], {"probes": ["energy"]}, "no probe 'energy'; it has y"),
        (["layers"], {"changes": {"samples": 1}}, "samples must be"),
        (["layers"], {"changes": {"layers": ("9",)}}, "no layer of Sequential is named '9'"),
        (["spectrum"], {"changes": {"head": "3"}}, "head='3' means nothing to spectrum"),
        (["heads"], {"changes": {"head": "0"}}, "none of its layers \\(0\\)"),
        (["heads"], {"changes": {"colour": 1}}, "unknown setting 'colour'.*heads take rotations, cosets"),
        (["heads"], {"changes": {"recorded": 1}}, "unknown setting 'recorded'"),
        (["layers"], {"changes": {"samples": "many"}}, "samples must be an integer >= 2, got 'many'"),
        (["dynamics"], {"changes": {"draws": 1}}, "draws must be an integer >= 2, got 1"),
        (["hessian"], {"changes": {"vectors": 0}}, "vectors must be an integer >= 1, got 0"),
        (["gradients"], {"changes": {"batch": None}}, "batch must be an integer >= 1, got None"),
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
    with pytest.raises(InputError, match=f"{kind}: .*'y' declares the octahedral group.*; brute, conditioning"):
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
