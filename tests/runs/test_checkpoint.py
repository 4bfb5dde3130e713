"""Checkpoints: a crash at any write, damage of any byte, and code that must not be unpickled."""

import os
import random
import signal

import pytest
import torch

from equiscope.errors import IntegrityError, RunError
from equiscope.runs import checkpoint
from equiscope.runs.checkpoint import VerifiedCheckpointIO, load

OLD = {"weights": torch.arange(5.0), "step": 1}
NEW = {"weights": torch.arange(5.0) + 1, "step": 2}


def _save(path, content):
    VerifiedCheckpointIO().save_checkpoint(content, path)


def test_round_trip_and_replacement(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    for content in (OLD, NEW):
        _save(path, content)
        assert load(path)["step"] == content["step"]
        assert torch.equal(load(path)["weights"], content["weights"])
    assert len((tmp_path / "checkpoints" / "last.ckpt.sha256").read_text().splitlines()) == 1


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("event", range(7))
def test_a_crash_at_any_write_leaves_a_checkpoint_that_verifies(tmp_path, monkeypatch, call, event):
    path = tmp_path / "last.ckpt"
    _save(path, OLD)
    left, real = [event], getattr(os, call)

    def dies(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise _Killed
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, dies)
        finished = False
        try:
            _save(path, NEW)
            finished = True
        except _Killed:
            pass
    assert load(path)["step"] in ((2,) if finished else (1, 2))
    _save(path, NEW)
    assert load(path)["step"] == 2


def test_sigkill_between_list_and_rename(tmp_path):
    path = tmp_path / "last.ckpt"
    _save(path, OLD)
    child = os.fork()
    if child == 0:
        real = os.replace
        os.replace = lambda a, b: os.kill(os.getpid(), signal.SIGKILL) if str(b).endswith(".ckpt") else real(a, b)
        _save(path, NEW)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert load(path)["step"] == 1


def test_every_flip_and_truncation_is_noticed(tmp_path):
    path = tmp_path / "last.ckpt"
    _save(path, OLD)
    whole, rng = path.read_bytes(), random.Random(0)
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged if rng.random() < 0.7 else whole[: rng.randrange(len(whole))])
        with pytest.raises(IntegrityError, match="damaged"):
            load(path)


def test_a_checkpoint_that_a_run_saves_while_it_is_read_is_no_damage(tmp_path, monkeypatch):
    path, right = tmp_path / "last.ckpt", checkpoint.sha256
    _save(path, OLD)

    def meanwhile(file):
        monkeypatch.setattr(checkpoint, "sha256", right)
        found = right(file)
        _save(path, NEW)
        return found

    monkeypatch.setattr(checkpoint, "sha256", meanwhile)
    assert load(path)["step"] == NEW["step"]


def test_damaged_or_missing_checksum(tmp_path):
    path = tmp_path / "last.ckpt"
    _save(path, OLD)
    beside = tmp_path / "last.ckpt.sha256"
    whole = beside.read_bytes()
    for place in range(64):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        beside.write_bytes(damaged)
        with pytest.raises(IntegrityError):
            load(path)
    beside.unlink()
    with pytest.raises(IntegrityError, match="missing"):
        load(path)
    with pytest.raises(IntegrityError, match="no checkpoint at"):
        load(tmp_path / "none.ckpt")


class _Evil:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_code_is_never_unpickled(tmp_path):
    path = tmp_path / "last.ckpt"
    _save(path, {"weights": _Evil(tmp_path / "code-was-run")})
    with pytest.raises(IntegrityError, match="not plain"):
        load(path)
    assert not (tmp_path / "code-was-run").exists()


def test_full_disk_keeps_the_former_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    _save(path, OLD)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(RunError, match="No space left"):
            _save(path, NEW)
    assert load(path)["step"] == 1
    assert not list(tmp_path.glob(".*.tmp"))
