"""The page "add your own", followed word for word: files, lines in the registers, commands; then the contracts."""

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from equiscope import tasks
from equiscope.cli import main
from equiscope.decomposition.losses import LOSSES
from equiscope.runs.config import configuration
from equiscope.runs.folder import RunFolder
from tests.tasks.datasets import layouts

from . import contracts

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "extend.md").read_text()
BLOCK = re.compile(r"^```\{code-block\} (\w+)\n(?::caption: ([^\n]*)\n)?\n?(.*?)^```", re.S | re.M)
FILES = {caption: text for kind, caption, text in BLOCK.findall(PAGE) if kind == "python"}
COMMANDS = [line for kind, _, text in BLOCK.findall(PAGE) if kind == "console" for line in text.splitlines()]
LOSS, INTO_LOSSES = "decomposition/losses.py", "decomposition/losses.py, into LOSSES"
INTO_FORMATS = "tasks/datasets/catalogue.py, into FORMATS"
INTO_SMALLEST = "tests/tasks/datasets/smallest.py, into SMALLEST"
WHOLE = {caption for caption in FILES if caption.endswith(".py")} - {LOSS}


@pytest.fixture
def followed(tmp_path, monkeypatch):
    """The package with the files of the page: folders beside its own, in which its modules are found as well."""
    for place in WHOLE:
        file = tmp_path / "added" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(FILES[place])
        if file.parent != tmp_path / "added":
            package = importlib.import_module(".".join(["equiscope", *Path(place).parent.parts]))
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(file.parent)])
            monkeypatch.delattr(package, file.stem, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "added"))
    monkeypatch.chdir(tmp_path)
    # What was imported from a folder that is gone is of no use to another test.
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.rpartition(".")[2] in {Path(place).stem for place in WHOLE}:
            del sys.modules[name]


def into(register, caption, monkeypatch, names):
    """The lines of the page as entries of a register."""
    for name, value in eval(f"{{{FILES[caption]}}}", names).items():
        monkeypatch.setitem(register, name, value)
        yield name


def written(path):
    """Water, a frame a line."""
    numbers, x, e, f = layouts.MOLECULES["water"]
    frames = [{"numbers": numbers, "positions": x[k].tolist(), "energy": e[k], "forces": f[k].tolist()}
              for k in range(len(x))]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, frames)) + "\n")
    return path


def commanded(word):
    """The one command of the page with these words, as the arguments of ``equiscope``."""
    (command,) = (line for line in COMMANDS if word in line)
    program, *arguments = shlex.split(command.removeprefix("$ "))
    assert program == "equiscope"
    return arguments


def test_the_numbers_of_files_are_those_of_the_table():
    assert len([place for place in WHOLE if Path(place).name == "worst.py"]) == 3
    assert len([place for place in FILES if place.startswith("tasks/datasets/")]) == 2
    assert {place.partition(",")[0] for place in FILES if "losses" in place} == {LOSS}
    analysis = {"analysis/worst.py", "runs/kinds/worst.py", "report/kinds/worst.py"}
    assert {"springs.py", "tasks/datasets/jsonlines.py", *analysis} == WHOLE


def test_a_loss(monkeypatch):
    module = importlib.import_module("equiscope.decomposition.losses")
    names = dict(vars(module))
    exec(FILES[LOSS], names)
    (name,) = into(LOSSES, INTO_LOSSES, monkeypatch, names)
    contracts.check_loss(name, f'`"{name}"`')


def test_a_reader(followed, monkeypatch, capsys):
    catalogue = importlib.import_module("equiscope.tasks.datasets.catalogue")
    (name,) = into(catalogue.FORMATS, INTO_FORMATS, monkeypatch, {})
    smallest = {}
    (again,) = into(smallest, INTO_SMALLEST, monkeypatch, {"written": written})
    assert again == name
    contracts.check_reader(name, *smallest[name](followed))
    assert main(commanded("describe")) == 0
    printed = capsys.readouterr().out
    assert "5 frames of 1 groups, 3 to 3 atoms" in printed
    assert "known from: the user" in printed or "(the user (the file states none))" in printed
    made = configuration(commanded("data=_published")[1:])
    assert tasks.build(made).settings.data.format == name


def test_a_task_and_an_analysis(followed, capsys):
    training = commanded("task=springs")
    contracts.check_task(configuration(training[1:]))
    # Few steps and one process, which the page need not say.
    assert main([*training, "threads=1", "logger=none", "track.points=3", "trainer.accelerator=cpu"]) == 0
    run = RunFolder("runs", "springs", "mine")
    contracts.check_analysis("worst", run, (0, 60))
    capsys.readouterr()
    assert main(commanded("worst --tenths")) == 0
    assert "The worst 20 % of the samples carry" in capsys.readouterr().out
    page = run.report.read_text()
    assert 'id="analysis-worst-forces"' in page
    assert "How unequal the samples are" in page
    assert (run.path / "figures" / "worst-forces.png").exists()
