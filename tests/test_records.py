"""Records: checksums, torn lines, damage of any byte, full disk, and values that JSON cannot hold."""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from equiscope import records
from equiscope.errors import InputError, IntegrityError, RunError


def _write(path: Path, count: int = 6) -> list[dict]:
    with records.Records(path) as book:
        for step in range(count):
            book.append("train", step=step, loss=1e-5 / (step + 1), parts={"forces": 0.1 * step})
        return list(book.entries)


def test_round_trip(tmp_path):
    path = tmp_path / "records.jsonl"
    written = _write(path)
    assert records.read(path) == written
    assert [r["n"] for r in written] == list(range(6))
    assert all(list(r)[:2] == ["n", "kind"] and list(r)[-1] == "sha" for r in written)


def test_reopening_continues(tmp_path):
    path = tmp_path / "records.jsonl"
    _write(path, 2)
    with records.Records(path) as book:
        assert book.torn == b""
        assert book.append("end", step=9)["n"] == 2
    assert [r["kind"] for r in records.read(path)] == ["train", "train", "end"]


def test_append_once_keeps_the_first(tmp_path):
    with records.Records(tmp_path / "r.jsonl") as book:
        first = book.append_once("measure", {"step": 3, "probe": "forces"}, percent=1.0)
        assert book.append_once("measure", {"step": 3, "probe": "forces"}, percent=2.0) == first
        assert book.append_once("measure", {"step": 4, "probe": "forces"}, percent=2.0)["n"] == 1


def test_plain_values():
    value = {"a": np.float32(0.5), "b": torch.tensor([1, 2]), "c": float("nan"), "d": (True, Path("x"))}
    assert records.plain(value) == {"a": 0.5, "b": [1, 2], "c": None, "d": [True, "x"]}
    json.dumps(records.plain(value), allow_nan=False)
    with pytest.raises(InputError, match=r"train\.parts\.f is a function"):
        records.plain({"parts": {"f": records.plain}}, "train")


def test_every_byte_flip_is_noticed(tmp_path):
    path = tmp_path / "records.jsonl"
    _write(path, 3)
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=r"damaged at line [1-4]"):
            records.read(path)


def test_every_truncation_is_noticed(tmp_path):
    path = tmp_path / "records.jsonl"
    _write(path, 3)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(IntegrityError, match="3 records were written"):
            records.read(path)


def test_swapped_and_doubled_lines(tmp_path):
    path = tmp_path / "records.jsonl"
    _write(path, 3)
    a, b, c = path.read_bytes().splitlines(keepends=True)
    for order in (b + a + c, a + a + b + c, a + c + b):
        path.write_bytes(order)
        with pytest.raises(IntegrityError, match="lines are missing or doubled"):
            records.read(path)


@pytest.mark.parametrize("bytes_left", [1, 20, -1])
def test_torn_last_line_is_set_aside(tmp_path, bytes_left):
    """A write that a crash cut off: the record was never counted, so the rest is whole."""
    path = tmp_path / "records.jsonl"
    _write(path, 3)
    whole = path.read_bytes()
    with records.Records(path) as book:
        book.append("train", step=3)
    line = path.read_bytes()[len(whole) :]
    (tmp_path / "records.jsonl.count").write_bytes(records._count_line(3))
    path.write_bytes(whole + line[:bytes_left])
    with pytest.warns(UserWarning, match="last line is torn"):
        assert len(records.read(path)) == 3
    with records.Records(path) as book:
        assert book.torn == line[:bytes_left]
        book.append("resume", step=2)
    assert [r["kind"] for r in records.read(path)] == ["train"] * 3 + ["resume"]
    assert (tmp_path / "records.jsonl.torn").read_bytes() == line[:bytes_left] + b"\n"


def test_line_written_but_not_yet_counted_is_kept(tmp_path):
    path = tmp_path / "records.jsonl"
    _write(path, 3)
    (tmp_path / "records.jsonl.count").write_bytes(records._count_line(2))
    assert len(records.read(path)) == 3


def test_damaged_count_file(tmp_path):
    path = tmp_path / "records.jsonl"
    _write(path, 3)
    beside = tmp_path / "records.jsonl.count"
    whole = beside.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.Random(place).randrange(8)
        beside.write_bytes(damaged)
        with pytest.raises(IntegrityError, match="count is damaged"):
            records.read(path)
    beside.write_bytes(b"9" * 5000 + b" 0\n")
    with pytest.raises(IntegrityError, match="count is damaged"):
        records.read(path)


def test_no_file(tmp_path):
    with pytest.raises(IntegrityError, match="no records at"):
        records.read(tmp_path / "records.jsonl")


@pytest.mark.parametrize("cut", [0, 7])
def test_full_disk_leaves_whole_records(tmp_path, cut):
    path = tmp_path / "records.jsonl"
    book = records.Records(path)
    book.append("train", step=0)
    real = book._file

    class CutThenFull:
        calls = 0

        def fileno(self):
            return real.fileno()

        def write(self, data):
            self.calls += 1
            if self.calls == 1 and cut:
                return real.write(data[:cut])
            raise OSError(28, "No space left on device")

    book._file = CutThenFull()
    with pytest.raises(RunError, match="No space left on device"):
        book.append("train", step=1)
    book._file = real
    assert len(records.read(path)) == 1
    book.append("train", step=1)
    assert [r["step"] for r in records.read(path)] == [0, 1]


def test_atomic_write_replaces_or_leaves(tmp_path, monkeypatch):
    path = tmp_path / "file"
    records.write_atomically(path, b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(5, "broken")))
    with pytest.raises(OSError, match="broken"):
        records.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_records_that_grow_while_they_are_read_are_no_damage(tmp_path, monkeypatch):
    path = tmp_path / "records.jsonl"
    with records.Records(path) as book:
        book.append("train", step=0)
        right = records._content

        def meanwhile(path):
            content = right(path)
            book.append("train", step=1)
            return content

        monkeypatch.setattr(records, "_content", meanwhile)
        assert len(records.read(path)) == 1


def test_nothing_is_written_to_records_that_another_changed(tmp_path):
    path = tmp_path / "records.jsonl"
    with records.Records(path) as book:
        book.append("train", step=0)
        with open(path, "ab") as file:
            file.write(b"theirs\n")
        whole = path.read_bytes()
        with pytest.raises(RunError, match="another process writes there"):
            book.append("train", step=1)
    assert path.read_bytes() == whole


def test_records_are_written_by_one_at_a_time_and_a_forked_child_does_not_hold_them(tmp_path):
    path = tmp_path / "records.jsonl"
    book = records.Records(path)
    with pytest.raises(RunError, match="in use"):
        records.Records(path)
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        # Else it would wait for itself where the test fails.
        os.close(go[1])
        os.write(ready[1], b"!")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    book.close()
    records.Records(path).close()
    os.write(go[1], b"!")
    os.waitpid(child, 0)


def test_records_that_can_no_longer_be_looked_at_are_not_written(tmp_path, monkeypatch):
    path = tmp_path / "records.jsonl"
    with records.Records(path) as book:
        book.append("train", step=0)
        whole = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "lstat", lambda *_: (_ for _ in ()).throw(OSError(116, "Stale file handle")))
            with pytest.raises(RunError, match="moved, deleted or replaced"):
                book.append("train", step=1)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"n":0,"kind":7,"sha":"x"}', b"[1]", b"{}"])
def test_lines_that_are_no_records(tmp_path, line):
    (tmp_path / "records.jsonl").write_bytes(line + b"\n")
    with pytest.raises(IntegrityError, match="line 1"):
        records.read(tmp_path / "records.jsonl")


def test_records_of_a_newer_version(tmp_path):
    with records.Records(tmp_path / "records.jsonl") as book:
        book.append("run", format=records.FORMAT + 1)
    with pytest.raises(IntegrityError, match="upgrade equiscope"):
        records.read(tmp_path / "records.jsonl")
