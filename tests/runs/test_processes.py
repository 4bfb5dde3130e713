"""Two processes sharing each batch give the run of one process, to rounding."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from equiscope import records
from equiscope.runs import train as runs
from equiscope.runs.checkpoint import load
from equiscope.runs.folder import RunFolder
from tests.runs import toy

SCRIPT = """
import os, sys, time
sys.path.insert(0, {repository!r})
from equiscope.runs.train import train
from tests.runs import toy

if __name__ == "__main__":
    several = dict(trainer__devices=2, trainer__strategy="ddp", trainer__max_steps=6)
    {before}
    train(toy.config({root!r}, run="two", data={{"dropout": 0.0}}, **several), show_progress=False, until={until})
"""


def _two(folder, before="", until=None):
    """A run of two processes, in which something may be done before."""
    script, repository = folder / "two.py", str(Path(__file__).parents[2])
    script.write_text(SCRIPT.format(repository=repository, root=str(folder), before=before, until=until))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_processes_whose_clocks_differ_stop_at_the_same_step(tmp_path):
    """By the clock of the first: the other's is an hour behind."""
    late = "now = time.time; time.time = lambda: now() - 3600 * (os.environ.get('LOCAL_RANK') == '1')"
    _two(tmp_path, late, until=time.time())
    folder = RunFolder(tmp_path, "toy", "two")
    assert load(folder.checkpoint)["global_step"] == 1
    assert "end" not in [record["kind"] for record in records.read(folder.records)]


def test_two_processes_equal_one(tmp_path):
    _two(tmp_path)
    runs.train(toy.config(tmp_path, run="one", trainer__max_steps=6, data={"dropout": 0.0}), show_progress=False)
    one, two = (records.read(tmp_path / "toy" / name / "records.jsonl") for name in ("one", "two"))
    assert [r["kind"] for r in one] == [r["kind"] for r in two]
    assert (one[0]["processes"], two[0]["processes"]) == (1, 2)
    for a, b in zip(one, two, strict=True):
        if a["kind"] == "train":
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        if a["kind"] == "measure":
            assert b["result"]["percent"] == pytest.approx(a["result"]["percent"], rel=1e-4)
