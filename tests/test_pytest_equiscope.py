"""The fixture in a test suite of somebody's own: what passes, what fails, what the report shows."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SUITE = """
import torch

def batches():
    generator = torch.Generator().manual_seed(0)
    return [{"pos": torch.randn(6, 4, 3, generator=generator, dtype=torch.float64)}]

def test_scaled(equivariance):
    found = equivariance(lambda b: 2 * b["pos"], batches(), inputs={"pos": "1o"}, outputs={"forces": "1o"})
    assert found.passed

def test_broken(equivariance):
    equivariance(lambda b: b["pos"] * torch.tensor([1.0, 1.0, 2.0]), batches(), inputs={"pos": "1o"},
                 outputs={"forces": "1o"})

def test_tolerated(equivariance):
    equivariance(lambda b: b["pos"] * torch.tensor([1.0, 1.0, 1.01]), batches(), inputs={"pos": "1o"},
                 outputs={"forces": "1o"}, tolerance=0.1)

def test_forgiven(equivariance):
    try:
        test_broken(equivariance)
    except AssertionError:
        pass

def test_percent_for_a_fraction(equivariance):
    equivariance(lambda b: b["pos"] * torch.tensor([1.0, 1.0, -9.0]), batches(), inputs={"pos": "1o"},
                 outputs={"forces": "1o"}, tolerance=5)
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    # In another process, as pytest-xdist has it: what was found must come back to the one that reports.
    folder = tmp_path_factory.mktemp("suite")
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_mine.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_equiscope", "-p", "no:cacheprovider"]
    # The plugin by its own name, once: an installed one would be registered too.
    run = [*command, "-p", "xdist", "-n", "1", "--equivariance-report", "test_mine.py"]
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(run, capture_output=True, text=True, cwd=folder, env={**os.environ, **environment})
    assert done.stdout, done.stderr
    return done.stdout


def test_a_broken_model_fails_and_the_others_pass(shown):
    assert "2 failed, 3 passed" in shown
    assert "FAILED test_mine.py::test_broken" in shown
    assert "FAILED test_mine.py::test_percent_for_a_fraction" in shown
    assert "5 % is 0.05" in shown


def test_the_report_names_every_model(shown):
    # pytest ends with each failure's message, whole under CI and on wide terminals, cut to 80 columns elsewhere.
    report = shown.split("equivariance ==")[1].split("short test summary info")[0]
    assert report.count("rotations x 6 samples") == 4
    assert "test_mine.py::test_scaled: the model is SO3 equivariant" in report
    assert "test_mine.py::test_broken: the model is not SO3 equivariant in ['forces']" in report
    assert "relative deviation 0.1" in report
    # A test that catches the assertion passes; what it hid stands in the report.
    assert "test_mine.py::test_forgiven: the model is not SO3 equivariant" in report


def test_nothing_is_imported_before_it_is_asked_for():
    code = "import sys, pytest_equiscope; print('torch' in sys.modules, 'equiscope' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_package_announces_it():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"equiscope": "pytest_equiscope"}
