"""The measure, its analyses and training steps on a pretended card: the processor's figures, no tensor elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run():
    command = [sys.executable, "-m", "tests.gpu.on_pretended"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = {name: (here, there) for name, here, there in map(json.loads, done.stdout.splitlines())}
    return found, "" if done.returncode == 0 else done.stderr[-3000:]


@pytest.fixture
def checks(run):
    return run[0]


def test_all_of_it_runs(run):
    assert run[1] == ""


def test_every_figure_is_that_of_the_processor(checks):
    assert len(checks) == 21
    for name, (here, there) in checks.items():
        single = name.startswith("trained")
        for figure in here.keys() - {"calls", "count", "waits"}:
            expected = pytest.approx(here[figure], rel=1e-4 if single else 1e-11, abs=1e-25)
            assert there[figure] == expected, (name, figure)


def test_passes_share_calls_there(checks):
    here, there = checks["default"]
    assert there["calls"] < here["calls"] / 3
    assert checks["one by one"][0]["calls"] == checks["one by one"][1]["calls"]


def test_the_host_waits_no_more_often_for_more_passes(checks):
    few, many = (found["count"] for found in checks["waits"])
    assert 0 < few == many


@pytest.mark.parametrize("model", ["edge_transformer", "escaip", "proteina", "unet"])
def test_a_training_step_does_not_wait(checks, model):
    assert checks[f"trained {model}"][1]["waits"] == 0
