"""Runs and settings as they were when they were frozen, and a run folder of that day that is read and gone on with."""

import json
import math
import shutil

import pytest
import torch

from equiscope import cli, records
from equiscope.runs import train as runs
from equiscope.runs.folder import RunFolder
from tests.golden import runs_make as frozen

GOLDEN = json.loads(frozen.GOLDEN.read_text())
# Where processor and libraries are those of the frozen file, every bit is the same; elsewhere rounding grows.
SAME_ARITHMETIC = GOLDEN["arithmetic"] == frozen.arithmetic()
ROUNDING = 1e-2


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def today(tmp_path_factory):
    made = {}

    def run(task):
        if task not in made:
            made[task] = frozen.whole(task, tmp_path_factory.mktemp(task))
        return made[task]

    return run


def unlike(found, due, where=""):
    """The first place where two plain structures differ, or None."""
    if isinstance(due, dict) and isinstance(found, dict):
        if found.keys() != due.keys():
            return f"{where}: keys {sorted(found.keys() ^ due.keys())}"
        pairs = [(f"{where}.{key}", found[key], due[key]) for key in due]
    elif isinstance(due, list) and isinstance(found, list):
        if len(found) != len(due):
            return f"{where}: {len(found)} entries for {len(due)}"
        pairs = [(f"{where}[{i}]", *pair) for i, pair in enumerate(zip(found, due, strict=True))]
    else:
        return None if _agree(found, due) else f"{where}: {found!r} for {due!r}"
    return next((place for name, *pair in pairs if (place := unlike(*pair, name))), None)


def _agree(found, due):
    if found == due or SAME_ARITHMETIC or not (isinstance(found, str) and isinstance(due, str)):
        return found == due
    if len(due) == 64:  # a checksum says nothing where rounding differs
        return len(found) == 64
    try:
        return math.isclose(float.fromhex(found), float.fromhex(due), rel_tol=ROUNDING, abs_tol=1e-6)
    except ValueError:
        return False


@pytest.mark.parametrize("task", list(frozen.OVERRIDES))
def test_a_run_of_each_task_ends_as_it_did(task, today):
    assert unlike(today(task), GOLDEN["tasks"][task], task) is None


def test_every_choice_of_data_and_task_has_the_settings_it_had():
    for name, settings in frozen.choices().items():
        found, due = dict(settings), dict(GOLDEN["choices"][name])
        assert unlike({key: found.get(key, "missing") for key in due}, due, name) is None


@pytest.mark.parametrize("part", ["train", "measure"])
def test_a_changed_figure_is_noticed(part, today):
    found = json.loads(json.dumps(today("voxels")))
    value = float.fromhex(found[part][1][-1])
    found[part][1][-1] = (value * (1 + 3 * ROUNDING)).hex()
    assert f"{part}[1]" in unlike(found, GOLDEN["tasks"]["voxels"])


@pytest.fixture
def old_run(tmp_path):
    """A copy of the run that a version of that day left when it was stopped after 24 steps of 40."""
    folder = RunFolder(tmp_path, "proteinflow", "golden")
    shutil.copytree(frozen.OLD_RUN, folder.path)
    return folder


def test_an_old_run_is_read_and_reported(old_run, capsys):
    steps = [record["step"] for record in records.read(old_run.records) if record["kind"] == "train"]
    assert steps == [10, 20]
    assert cli.main(["report", str(old_run.path)]) == 0
    assert "golden" in old_run.report.read_text()


def test_an_old_run_is_gone_on_with_to_the_end_of_the_undisturbed_one(old_run):
    config = old_run.stored_config() | {"root": str(old_run.path.parent.parent)}
    before = old_run.records.read_bytes()
    runs.train(config, show_progress=False)
    assert old_run.records.read_bytes().startswith(before)
    assert [r["step"] for r in records.read(old_run.records) if r["kind"] == "resume"] == [20]
    whole = {key: GOLDEN["tasks"]["proteinflow"][key] for key in ("train", "measure", "weights", "measured_steps")}
    ending = frozen.ending(old_run)
    assert unlike({key: ending[key] for key in whole}, whole) is None
    assert cli.main(["report", str(old_run.path)]) == 0
