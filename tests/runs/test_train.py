"""Whole runs of a toy task: what is written, resuming after SIGKILL bit for bit, and faults."""

import os
import re
import shutil
import signal
import threading
import time

import pytest
import torch

from equiscope import records
from equiscope.errors import InputError, IntegrityError, RunError
from equiscope.runs import train as runs
from equiscope.runs.checkpoint import load
from equiscope.runs.folder import RunFolder
from tests.faults.attacks import stopped
from tests.runs import toy
from tests.runs.ends import assert_same_end


def _train(root, **changes):
    return runs.train(toy.config(root, **changes), show_progress=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbed."""
    return _train(tmp_path_factory.mktemp("whole"))


def _die_in_child(root, event=None, after=None):
    """Train in a child process that is killed at its n-th durable write, or after some seconds."""
    child = os.fork()
    if child == 0:
        if event is not None:
            toy.kill_at(event)
        else:
            threading.Timer(after, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        try:
            _train(root)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_records_of_a_run(whole):
    book = records.read(whole.records)
    kinds = [record["kind"] for record in book]
    assert kinds[:3] == ["run", "data", "measure"]
    assert kinds[-2:] == ["measure", "end"]
    steps = [r["step"] for r in book if r["kind"] == "measure" and r["part"] == "track"]
    assert steps == book[0]["measured_steps"] == [0, 3, 5, 8, 14, 24, 40]
    assert [r["step"] for r in book if r["kind"] == "train"] == list(range(4, 41, 4))
    end = book[-1]
    assert end["step"] == 40
    assert end["train_seconds"] + end["track_seconds"] <= end["wall_seconds"]
    assert book[0]["parameters"] == 3 * 32 + 32 + 32 * 3 + 3
    assert "% of the loss is equivariance error" in runs.headline(book)
    assert not list(whole.path.rglob("*.tmp"))


def test_a_final_set_of_one_molecule_has_a_headline_without_interval(whole):
    # Its interval is null in the records, which is read as none.
    (final,) = [r for r in records.read(whole.records) if r["kind"] == "measure" and r["part"] == "final"]
    alone = final["result"] | {
        "clusters": 1, "interval_kind": "none", "percent_interval": [None, None], "percent_error": None,
    }  # fmt: skip
    assert "one cluster: no interval" in runs.headline([final | {"result": alone}])


def test_training_learns(whole):
    results = [r["result"] for r in records.read(whole.records) if r["kind"] == "measure"]
    assert results[-1]["r2"] > 0.9 > 0.5 > results[0]["r2"]


def test_a_finished_run_is_left_alone(whole):
    before = whole.records.read_bytes()
    again = runs.train(whole.stored_config(), show_progress=False)
    assert again.records.read_bytes() == before


@pytest.mark.parametrize("event", [1, 6, 15, 26, 33, 41, 44, 47, 60, 70, 78, 82])
def test_killed_at_a_write_and_resumed(tmp_path, whole, event):
    assert _die_in_child(tmp_path, event) == -signal.SIGKILL
    assert_same_end(_train(tmp_path), whole)


def test_killed_again_and_again(tmp_path, whole):
    for event in (30, 30, 3, 12):
        assert _die_in_child(tmp_path, event) == -signal.SIGKILL
    folder = _train(tmp_path)
    assert_same_end(folder, whole)
    assert sum(r["kind"] == "resume" for r in records.read(folder.records)) >= 3


@pytest.mark.parametrize("after", [0.08, 0.17, 0.23])
def test_killed_at_any_time_and_resumed(tmp_path, whole, after):
    _die_in_child(tmp_path, after=after)
    assert_same_end(_train(tmp_path), whole)


def test_the_comparison_can_fail(tmp_path, whole):
    other = _train(tmp_path, seed=1)
    with pytest.raises(AssertionError):
        assert_same_end(other, whole)


def _interrupted(tmp_path):
    assert _die_in_child(tmp_path, 60) == -signal.SIGKILL
    folder = RunFolder(tmp_path, "toy", "a")
    assert folder.checkpoint.exists()
    return folder


def test_torn_record_is_reported_and_replayed(tmp_path, whole):
    folder = _interrupted(tmp_path)
    with open(folder.records, "ab") as file:
        file.write(b'{"n": 99, "kind": "tra')
    with pytest.warns(UserWarning, match="torn"):
        _train(tmp_path)
    assert_same_end(folder, whole)
    resumed = [r for r in records.read(folder.records) if r["kind"] == "resume"]
    assert [r["torn_bytes"] for r in resumed] == [22]


def test_damaged_checkpoint_stops(tmp_path):
    folder = _interrupted(tmp_path)
    content = bytearray(folder.checkpoint.read_bytes())
    content[len(content) // 2] ^= 4
    folder.checkpoint.write_bytes(content)
    with pytest.raises(IntegrityError, match="SHA-256"):
        _train(tmp_path)


def test_lost_records_stop(tmp_path):
    folder = _interrupted(tmp_path)
    lines = folder.records.read_bytes().splitlines(keepends=True)
    folder.records.write_bytes(b"".join(lines[:4]))
    (folder.path / "records.jsonl.count").unlink()
    with pytest.raises(IntegrityError, match="damaged at line 6: the checkpoint was saved after"):
        _train(tmp_path)


def test_other_settings_are_refused(tmp_path, whole):
    root = tmp_path / "copy"
    shutil.copytree(whole.path.parents[1], root)
    with pytest.raises(RunError, match=r"optimizer\.lr \(was 0\.01, now 0\.02\)"):
        _train(root, optimizer__lr=0.02)


def test_nan_loss_names_the_step(tmp_path):
    with pytest.raises(RunError, match="NaN or infinite at step 23: lower"):
        _train(tmp_path, data={"nan_at": 23})
    assert load(RunFolder(tmp_path, "toy", "a").checkpoint)["global_step"] == 20


def test_the_lock_is_given_back_after_a_fault(tmp_path):
    for _ in range(2):
        with pytest.raises(RunError, match="NaN"):
            _train(tmp_path, data={"nan_at": 0})


def test_missing_settings(tmp_path):
    with pytest.raises(InputError, match="no 'run'"):
        _train(tmp_path, run=None)


def test_trainer_settings_pass_through(tmp_path):
    with pytest.raises(InputError, match=r"the Trainer refuses trainer\.\*"):
        _train(tmp_path, trainer__strategy="abacus")


def test_a_final_set_of_one_sample_has_a_headline_without_interval(tmp_path):
    folder = _train(tmp_path, data={"final": 1}, trainer__max_steps=6)
    book = records.read(folder.records)
    assert book[-2]["result"]["percent_interval"] == [None, None]
    assert "one cluster: no interval" in runs.headline(book)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"samples": 7}}, "batch_size=8 is more than the 7 training samples of task 'toy'"),
        ({"final__cosets": 1}, "cosets=1 is too few: mse needs at least 2"),
        ({"track__cosets": 1}, "cosets=1 is too few: mse needs at least 2"),
        ({"trainer__strategy": "abacus"}, "the Trainer refuses"),
        ({"trainer__accelerator": "abacus"}, "there is no device 'abacus': the devices are cpu"),
        ({"optimizer__lr": -1}, "optimizer.lr must be a finite number >= 0, got -1"),
    ],
)
def test_a_refused_run_leaves_no_folder_and_can_be_started_again(tmp_path, changes, words):
    root = tmp_path / "runs"
    with pytest.raises(InputError, match=re.escape(words)):
        _train(root, **changes)
    assert not root.exists()
    assert records.read(_train(root, trainer__max_steps=6).records)[-1]["kind"] == "end"


def test_a_refused_run_leaves_what_was_there(tmp_path):
    mine = tmp_path / "toy" / "a" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(InputError, match="more than the 7"):
        _train(tmp_path, data={"samples": 7})
    assert mine.read_text() == "mine"


def test_a_fault_in_training_leaves_the_records(tmp_path):
    with pytest.raises(RunError, match="NaN"):
        _train(tmp_path, data={"nan_at": 3})
    assert records.read(RunFolder(tmp_path, "toy", "a").records)[0]["kind"] == "run"


def test_leases_add_up_to_the_run(tmp_path, whole):
    """Cut off again and again by the end of its time, a run ends bit for bit as one alone."""
    config, leases = toy.config(tmp_path), 0
    while True:
        folder = runs.train(config, show_progress=False, until=time.time() + 0.1)
        leases += 1
        if records.read(folder.records)[-1]["kind"] == "end":
            break
        assert folder.checkpoint.exists()
        assert leases < 41, "every lease is one step at least"
    assert leases > 1
    assert_same_end(folder, whole)


def test_nothing_is_printed_without_a_terminal(tmp_path, capfd):
    _train(tmp_path, trainer__max_steps=6)
    out = capfd.readouterr()
    assert out.out == ""
    assert out.err == ""


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "16-mixed"])
def test_a_restart_in_any_precision_is_bit_for_bit(tmp_path, precision, monkeypatch):
    if precision == "16-mixed" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    changes = {"trainer__precision": precision, "trainer__ema": 0.9}
    if precision == "bf16-true":
        changes["track__points"] = 2
    if precision == "64-true":
        changes |= {"track__gradients": True, "track__points": 3}
    undisturbed = _train(tmp_path / "whole", **changes)
    stopped(tmp_path / "half", **changes)
    assert_same_end(_train(tmp_path / "half", **changes), undisturbed)


def test_what_is_bound_to_a_run_is_in_its_first_record(whole):
    book = records.read(whole.records)
    assert book[0]["format"] == records.FORMAT
    assert load(whole.checkpoint)["equiscope_run"] == book[0]["sha"]


def test_a_worker_that_dies_is_told_in_a_sentence(tmp_path, monkeypatch):
    def dies(*_, **__):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error.")

    monkeypatch.setattr("pytorch_lightning.Trainer.fit", dies)
    with pytest.raises(RunError, match=r"trainer\.workers=0"):
        _train(tmp_path)
