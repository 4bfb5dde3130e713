"""Two processes sharing each batch give the run of one process, to rounding."""

import subprocess
import sys
from pathlib import Path

import pytest

from equiscope import records
from equiscope.runs import train as runs
from tests.runs import toy

SCRIPT = """
import sys
sys.path.insert(0, {repository!r})
from equiscope.runs.train import train
from tests.runs import toy

if __name__ == "__main__":
    several = dict(trainer__devices=2, trainer__strategy="ddp", trainer__max_steps=6)
    train(toy.config({root!r}, run="two", data={{"dropout": 0.0}}, **several), show_progress=False)
"""


def test_two_processes_equal_one(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(SCRIPT.format(repository=str(Path(__file__).parents[2]), root=str(tmp_path)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    runs.train(toy.config(tmp_path, run="one", trainer__max_steps=6, data={"dropout": 0.0}), show_progress=False)
    one, two = (records.read(tmp_path / "toy" / name / "records.jsonl") for name in ("one", "two"))
    assert [r["kind"] for r in one] == [r["kind"] for r in two]
    assert (one[0]["processes"], two[0]["processes"]) == (1, 2)
    for a, b in zip(one, two, strict=True):
        if a["kind"] == "train":
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        if a["kind"] == "measure":
            assert b["result"]["percent"] == pytest.approx(a["result"]["percent"], rel=1e-4)
