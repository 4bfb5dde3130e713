"""The quick part of `make faults`: a few of each fault, and the harness can see a loss."""

import json

import pytest

from equiscope.runs import checkpoint
from tests.faults import faults, run


def test_kills(tmp_path):
    tally = faults.kills(tmp_path, 6, seed=3)
    assert tally.done == 6
    assert tally.lost == []


def test_full_disk(tmp_path):
    tally = faults.full_disk(tmp_path, every=97)
    assert tally.done >= 3
    assert tally.lost == []


def test_damaged_files(tmp_path):
    tallies = faults.damage(tmp_path, 200, seed=4)
    assert sum(tally.done for tally in tallies) == 200
    assert [loss for tally in tallies for loss in tally.lost] == []


def test_hostile_pickles(tmp_path):
    assert faults.hostile_pickles(tmp_path).lost == []


def test_second_process(tmp_path):
    assert faults.two_processes(tmp_path).lost == []


def test_the_harness_sees_a_flip_that_is_not_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "sha256", lambda file: file.read() and "0" * 64)
    tallies = faults.damage(tmp_path, 100, seed=5)
    assert any("checkpoint" in loss for tally in tallies for loss in tally.lost)


@pytest.mark.parametrize("first", [1, 5])
def test_the_disk_is_full_from_its_write_on(tmp_path, first):
    with faults.FullDisk(first) as disk, open(tmp_path / "a", "wb") as file:
        for _ in range(first - 1):
            file.write(b"x")
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                file.write(b"x")
    assert disk.count == first + 1


def test_the_page_is_what_its_record_says_and_nothing_was_lost():
    record = json.loads(run.RECORD.read_text())
    assert run.page(record) == run.RECORD.with_suffix(".md").read_text()
    assert all(tally["lost"] == [] for tally in (*record["faults"], *record["attacks"]))
    assert all(tally["outcomes"] == {"held": tally["done"]} for tally in record["attacks"])
