"""Whatever is registered keeps the contract of its kind: tasks, readers, losses, analyses."""

from pathlib import Path

import pytest

import equiscope.report.kinds
import equiscope.runs.kinds
from equiscope.decomposition.losses import LOSSES
from equiscope.runs.kinds import analyses
from equiscope.runs.train import train
from equiscope.tasks import TASKS
from equiscope.tasks.datasets.catalogue import FORMATS
from tests.golden import runs_make
from tests.runs.toy import config
from tests.tasks.datasets.smallest import SMALLEST

from . import contracts

STEPS = (12, 40)
PAGES = "\n".join(page.read_text() for page in (Path(__file__).parents[2] / "docs").rglob("*.md"))


@pytest.mark.parametrize("name", TASKS)
def test_task(name, tmp_path):
    assert name in runs_make.OVERRIDES, f"give tests/golden/runs_make.py the settings of a small run of {name}"
    contracts.check_task(runs_make.config(name, tmp_path))


@pytest.mark.parametrize("name", FORMATS)
def test_reader(name, tmp_path):
    assert name in SMALLEST, f"give tests/tasks/datasets/smallest.py a maker of the smallest file of {name}"
    contracts.check_reader(name, *SMALLEST[name](tmp_path))


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name):
    contracts.check_loss(name, PAGES)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(config(tmp_path_factory.mktemp("runs"), trainer__keep=list(STEPS), data={"dropout": 0.0}))


@pytest.mark.parametrize("name", analyses())
def test_analysis(name, run):
    contracts.check_analysis(name, run, STEPS)


def test_every_analysis_is_made_and_shown():
    made, shown = (
        set(contracts.registered(package, several))
        for package, several in ((equiscope.runs.kinds, "ANALYSES"), (equiscope.report.kinds, "KINDS"))
    )
    assert made == shown == set(analyses())
