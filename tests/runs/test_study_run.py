"""Launching a study: Hydra's own settings, launchers that break, answers; whole studies in commands/test_study."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from equiscope.errors import InputError, RunError
from equiscope.records import Records
from equiscope.runs import study, study_run, sweep
from equiscope.runs.study import member
from equiscope.writing import Lock


def test_local_processes_unless_a_launcher_is_named():
    plain = study_run._hydra(["task=x"], Path("f"), 3)
    assert "hydra/launcher=joblib" in plain
    assert "hydra.launcher.n_jobs=3" in plain
    named = study_run._hydra(["hydra/launcher=submitit_slurm", "+hydra.launcher.partition=gpu", "task=x"], Path("f"), 3)
    assert [text for text in named if "launcher" in text] == [
        "hydra/launcher=submitit_slurm",
        "+hydra.launcher.partition=gpu",
    ]


def test_a_ray_cluster_that_is_there_already_is_joined():
    joined = study_run._hydra(["hydra/launcher=ray", "hydra.launcher.ray.init.address=auto"], Path("f"), None)
    assert "+hydra.launcher.ray.init.object_store_memory=null" in joined
    own = study_run._hydra(["hydra/launcher=ray"], Path("f"), None)
    assert not any("object_store_memory" in text for text in own)


def test_a_launcher_that_breaks_is_told_in_one_line(monkeypatch):
    def broken():
        assert os.environ["HYDRA_FULL_ERROR"] == "1"
        raise ConnectionError("no cluster\nat this address")

    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sweep, "application", broken)
    assert study_run._launch([]) == "the launcher stopped: ConnectionError: no cluster at this address"
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_a_run_without_an_answer_was_killed(tmp_path):
    one = member("p", 0, ["task=forcefield", f"root={tmp_path}"])
    assert "was its process killed" in study_run._reason(one, "s", "")
    assert study_run._reason(one, "s", "the launcher stopped") == "the launcher stopped"
    path = sweep.answer_path(one, "s")
    path.parent.mkdir(parents=True)
    path.write_text('{"status": "failed", "reason": "because"}')
    assert study_run._reason(one, "s", "") == "because"
    for damaged in ('{"status": "fin', "[1]", "", "[" * 100_000, "\x00"):
        path.write_text(damaged)
        assert study_run.answer(one, "s") == {}
        assert "was its process killed" in study_run._reason(one, "s", "")


def test_a_job_that_fails_is_an_answer(tmp_path, monkeypatch):
    one = member("p", 0, ["task=forcefield", f"root={tmp_path}"])

    def fails(config, show_progress, until):
        raise error

    monkeypatch.setattr(sweep, "train", fails)
    error = InputError("of\nno use")
    assert sweep._failure(one) == "of no use"
    error = ZeroDivisionError("x")
    assert sweep._failure(one).startswith("ZeroDivisionError: x (test_study_run.py:")


def test_the_summary_reads_the_records_of_a_run_once(tmp_path, monkeypatch):
    """Whole, for what was refused; the last of them are among these."""
    one = member("p", 0, ["task=forcefield", f"root={tmp_path}"])
    one.folder.path.mkdir(parents=True)
    with Records(one.folder.records) as book:
        book.append("end", step=7)
        book.append("refusal", analysis="heads", reason="because")
    monkeypatch.setattr(study, "_last_records", None)
    told = study_run.summary(study_run.Outcome(tmp_path, (one,), {}))
    assert "1 of 1 runs finished\nno heads of p, seed 0: because" in told


def test_one_task_a_study():
    assert study_run._task(["a=1"]) == "forcefield"
    with pytest.raises(InputError, match="of one task, got a, b"):
        study_run._task(["task=a", "task=b"])


def test_a_local_worker_ends_with_the_process_of_its_study():
    """A killed parent tells its workers nothing; they see that they have another parent."""
    ready, say = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.environ[sweep.PARENT] = str(os.getpid())
        if os.fork() == 0:
            sweep._end_with_study()
            os.write(say, str(os.getpid()).encode())
        time.sleep(60)
        os._exit(0)
    worker = int(os.read(ready, 20))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    for _ in range(100):
        if not _lives(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("the worker goes on")


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_process_that_runs_the_study_itself_does_not_watch(monkeypatch):
    monkeypatch.setenv(sweep.PARENT, str(os.getpid()))
    before = threading.active_count()
    sweep._end_with_study()
    assert threading.active_count() == before


def test_a_study_is_run_by_one_process_at_a_time(tmp_path):
    folder = tmp_path / "studies" / "proteinflow-replicates"
    folder.mkdir(parents=True)
    lock = Lock(folder)
    lock.take()
    with pytest.raises(RunError, match="in use"):
        study_run.run_study("replicates", ["task=proteinflow", f"root={tmp_path}"], show=False)
    lock.close()
