"""The ladder of the paper's sizes, at toy sizes on the processor: plan, order, budget, leases, and going on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from equiscope import records
from equiscope.errors import InputError, UnsuitedModelError
from equiscope.runs import study_run, sweep
from equiscope.runs.config import study_definition
from equiscope.runs.folder import RunFolder
from equiscope.runs.study import State, described, members, planned, run_name
from equiscope.runs.train import train
from tests.runs.toy import config as toy_config

TASKS = ("forcefield", "proteinflow", "voxels")
LADDER = study_definition("paper_scale")


def test_every_rung_is_planned():
    """4 models × 2 settings × 3 sizes of data, 4 models × 3 seeds annealed to a time; chains and grids two each."""
    runs = {task: planned(LADDER, task) for task in TASKS}
    assert [len(runs[task]) for task in TASKS] == [4 * 2 * 3 + 4 * 3, 2, 2]
    equal = [point for point in described(LADDER, "forcefield") if point.seconds]
    assert {point.seconds for point in equal} == {600}
    assert [point.seeds for point in equal] == [(0, 1, 2)] * 4
    flow = [overrides for _, _, overrides in runs["proteinflow"]]
    assert all("trainer.max_steps=12000" in own and "model.neighbours=0" in own for own in flow)
    assert ["data.fraction=0.1" in own for own in flow] == [True, False]
    assert all("trainer.max_steps=7300" in own for _, _, own in runs["voxels"])


@pytest.mark.parametrize("task", TASKS)
def test_toy_runs_are_as_many_and_all_different(task):
    toy = {**LADDER, "toy": True}
    made = planned(toy, task)
    assert len({tuple(overrides) for _, _, overrides in made}) == len(made) == len(planned(LADDER, task))
    assert all(int(dict(o.split("=", 1) for o in own)["trainer.max_steps"]) <= 12 for _, _, own in made)


def test_points_annealed_to_a_time_get_the_steps_that_fit(tmp_path, monkeypatch):
    """Steps are seconds over the time of a step taken alone, taken once: a study that goes on finds them."""
    folder = tmp_path / "study"
    folder.mkdir()
    user = [f"root={tmp_path}"]
    study = {**LADDER, "points": {"forcefield": {
        "a @ 1": {"seconds": 60, "set": []}, "b @ 1": {"seconds": 60, "set": ["model=escaip"]}, "c": []}}}  # fmt: skip
    monkeypatch.setattr(study_run, "paces", lambda configs: {"a @ 1": 0.01, "b @ 1": 0.4})
    assert study_run._annealed(folder, study, "forcefield", user) == [6000, 150, 0]
    monkeypatch.setattr(study_run, "paces", None)
    assert study_run._annealed(folder, study, "forcefield", user) == [6000, 150, 0]
    steps = [m.config["trainer"]["max_steps"] for m in members({**study, "steps": [6000, 150, 0]}, "forcefield", user)]
    assert steps == [6000, 150, 20000]


def test_those_with_the_least_to_do_come_first(monkeypatch):
    """A run of its own pace, 100 steps in 10 s with 900 to go: 90 s; one that has not begun by the point's ms: 60 s."""
    study = {**LADDER, "points": {"proteinflow": {"a": {"ms": 60}, "b": {"ms": 60}}}}
    one, other = (type("Member", (), {"point": point})() for point in "ab")
    states = {"a": State("waiting", 100, 1000, 10.0), "b": State("waiting", 0, 1000, 0.0)}
    monkeypatch.setattr(study_run, "state", lambda member: states[member.point])
    assert study_run._left(one, study, "proteinflow") == pytest.approx(90)
    assert study_run._left(other, study, "proteinflow") == pytest.approx(60)


@pytest.mark.parametrize(("key", "value"), [("minutes", 0), ("minutes", -1), ("lease", "long"), ("lease", True)])
def test_times_are_refused(key, value):
    with pytest.raises(InputError, match=f"study.{key} must be a positive number of minutes, or null"):
        study_run.check_time({key: value})


def test_tasks_share_the_minutes_in_equal_parts(monkeypatch):
    monkeypatch.setattr(study_run.time, "time", iter([0.0, 0.0, 600.0, 3000.0]).__next__)
    given = [own[-2:] for own in study_run.by_task("paper_scale", ["study.minutes=60", "a=1"])]
    # 60 / 3; after ten minutes 50 / 2; after fifty what is left.
    assert given == [[f"task={task}", f"study.minutes={m:.3f}"] for task, m in zip(TASKS, (20, 25, 10), strict=True)]
    assert list(study_run.by_task("paper_scale", ["task=voxels"])) == [["task=voxels"]]


def test_settings_that_came_later_leave_the_names_of_runs_as_they_were():
    config = {"model": {"name": "m"}, "seed": 0, "trainer": {"max_steps": 5}, "track": {}, "final": {}}
    off = {**config, "trainer": {"max_steps": 5, "matmul": None, "compile": False}, "track": {"precision": None}}
    assert run_name(off) == run_name(config)
    assert run_name({**off, "trainer": {"max_steps": 5, "compile": True}}) != run_name(config)


_WORDS = (
    "data.source=shipped", "data.path=null", "data.track_chains=2", "data.final_chains=2", "batch_size=2",
    "model.size=nano", "trainer.max_steps=4", "trainer.keep=[4]", "track.points=2", "track.times=[0.5]",
)  # fmt: skip
_TINY = f"[{','.join(repr(word) for word in _WORDS)}]"


def _arguments(root, task="proteinflow"):
    return ["study", "paper_scale", f"task={task}", "study.toy=true", f"root={root}", "trainer.accelerator=cpu",
            "hydra/launcher=basic"]  # fmt: skip


class Member:
    """One run of the toy task as a study has it."""

    def __init__(self, root):
        self.config = {**toy_config(root), "trainer": {**toy_config(root)["trainer"], "keep": [0, 40]}}
        self.folder, self.name, self.point, self.seed = RunFolder(root, "toy", "a"), "a", "p", 0


def test_a_job_ends_with_its_time_and_goes_on(tmp_path):
    """Over before it began: nothing is made. Over within: a checkpoint and no end. Then the rest, and the analyses."""
    one = Member(tmp_path)
    assert sweep._failure(one, until=time.time() - 1) == ""
    assert not one.folder.path.exists()
    train(one.config, show_progress=False, until=time.time())
    assert one.folder.checkpoint.exists()
    assert sweep.analyses_due(one, {"heads": {}}) == []
    assert sweep._failure(one, until=time.time() + 600, analyses={"heads": {"samples": 4}}) == ""
    book = records.read(one.folder.records)
    assert [record["kind"] for record in book].count("end") == 1
    assert [(r["analysis"], r["step"]) for r in book if r["kind"] == "analysis" and r["analysis"] == "heads"] == [
        ("heads", 0), ("heads", 40)
    ]  # fmt: skip
    assert sweep.analyses_due(one, {"heads": {}, "layers": {}}) == [("layers", 0), ("layers", 40)]


def test_an_analysis_that_a_model_cannot_have_is_told_of_and_not_asked_for_again(tmp_path, monkeypatch):
    """It fails no study; a crash does. Another version asks anew, and what is made then is refused no more."""
    one, asked = Member(tmp_path), []
    train(one.config, show_progress=False)

    def without(path, kinds, at, **settings):
        asked.append((kinds[0], at[0]))
        if kinds == ["hessian"]:
            raise UnsuitedModelError("the answer\ndepends on nothing")
        return analyse(path, kinds, at, **settings)

    analyse = sweep.analyse
    monkeypatch.setattr(sweep, "analyse", without)
    both = {"hessian": {}, "heads": {"samples": 4}}
    expected = [(kind, step) for kind in both for step in (0, 40)]
    assert sweep.analyses_due(one, both) == expected
    for _ in range(2):
        assert sweep._failure(one, analyses=both) == ""
        assert asked == expected
    assert sweep.analyses_due(one, both) == []
    assert study_run.state(one).status == "finished"
    told = study_run.summary(study_run.Outcome(tmp_path, (one,), {}))
    assert told.splitlines()[-1] == "no hessian of p, seed 0: the answer depends on nothing"
    monkeypatch.setattr(sweep, "__version__", "another")
    assert sweep.analyses_due(one, both) == expected[:2]
    monkeypatch.setattr(sweep, "analyse", lambda *_, **__: 1 / 0)
    assert "ZeroDivisionError" in sweep._failure(one, analyses=both)
    with records.Records(one.folder.records) as book:
        book.append("analysis", analysis="hessian", step=0)
    assert "no hessian" not in study_run.summary(study_run.Outcome(tmp_path, (one,), {}))


def test_long_records_of_analyses_and_refusals_hide_no_end(tmp_path):
    one = Member(tmp_path)
    one.folder.path.mkdir(parents=True)
    with records.Records(one.folder.records) as book:
        book.append("end", step=40)
        for step in (0, 10, 20, 40):
            book.append("refusal", analysis="hessian", step=step, reason="x" * 2**15, version="0")
    assert study_run.state(one).status == "finished"


def test_a_run_whose_time_was_over_has_not_failed(tmp_path):
    one = Member(tmp_path)
    path = sweep.answer_path(one, "s")
    path.parent.mkdir(parents=True)
    for status, due in (("open", ""), ("finished", ""), ("failed", "so")):
        path.write_text(json.dumps({"status": status, "reason": "so" if status == "failed" else ""}))
        assert study_run._reason(one, "s", "") == due


@pytest.mark.slow
def test_a_budget_that_is_over_and_going_on(tmp_path):
    """Nothing is begun once the time is over, which is no failure; a run that was cut off goes on; then all is left."""
    own = ["study.profile=false", "~study.analyse.proteinflow.hessian", "study.toys.proteinflow=" + _TINY]
    given = [*_arguments(tmp_path)[2:], *own]
    outcome = study_run.run_study("paper_scale", [*given, "study.minutes=0.0001"], show=False)
    assert not outcome.failed
    assert len(outcome.unfinished) == 2
    assert "2 runs are not finished" in study_run.summary(outcome)
    book = tmp_path / "studies" / "proteinflow-paper_scale" / "records.jsonl"
    assert [run["status"] for run in records.read(book)[-1]["runs"]] == ["open", "open"]
    first, second = outcome.members
    train(first.config, show_progress=False, until=time.time())
    assert records.read(first.folder.records)[-1]["kind"] != "end"
    outcome = study_run.run_study("paper_scale", given, show=False)
    assert (outcome.failed, outcome.unfinished) == ({}, ())
    kinds = [record["kind"] for record in records.read(first.folder.records)]
    assert (kinds.count("resume"), kinds.count("end")) == (1, 1)
    for one in (first, second):
        made = [record for record in records.read(one.folder.records) if record["kind"] == "analysis"]
        assert [(record["analysis"], record["step"]) for record in made] == [("heads", 4)]
    before = [one.folder.records.read_bytes() for one in (first, second)]
    study_run.run_study("paper_scale", given, show=False)
    assert [one.folder.records.read_bytes() for one in (first, second)] == before


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_whole_ladder_killed_and_gone_on_with(tmp_path, task):
    """Leases of seconds, a kill of the whole study in the middle of a run, and a second start: as one undisturbed."""
    # A lease holds one step at least; on a busy machine 36 runs of a step a lease would start hundreds of times.
    lease = 0.1 if task == "forcefield" else 0.02
    command = [sys.executable, "-m", "equiscope.cli", *_arguments(tmp_path / "cut", task), f"study.lease={lease}"]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    deadline = time.time() + 900
    while not list((tmp_path / "cut" / task).glob("*/checkpoints/last.ckpt")):
        assert process.poll() is None, f"the study ended by itself, with status {process.returncode}"
        assert time.time() < deadline
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert subprocess.run(command, cwd=tmp_path).returncode == 0
    book = records.read(tmp_path / "cut" / "studies" / f"{task}-paper_scale" / "records.jsonl")
    runs = next(record for record in reversed(book) if record["kind"] == "study")["runs"]
    assert {run["status"] for run in runs} == {"finished"}
    # One of them once more, alone: the same losses.
    folder = next((tmp_path / "cut" / task).iterdir())
    config = {**RunFolder(tmp_path / "cut", task, folder.name).stored_config(), "root": str(tmp_path / "alone")}
    alone = train(config, show_progress=False)
    losses = [[(r["step"], r["loss"]) for r in records.read(place) if r["kind"] == "train"]
              for place in (folder / "records.jsonl", alone.records)]  # fmt: skip
    assert losses[0] == losses[1]
