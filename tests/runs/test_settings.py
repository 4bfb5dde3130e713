"""The list of settings: every one with its default and a meaning, whatever is chosen."""

import pytest

from equiscope import cli
from equiscope.errors import InputError
from equiscope.runs.config import choices, configuration, meanings, settings

CHOSEN = [
    *([f"task={task}"] for task in choices("task")),
    *([f"data={data}"] for data in choices("data")),
    *([f"model={model}"] for model in choices("model") if model not in ("proteina", "proteina_equivariant")),
    *([f"logger={logger}"] for logger in choices("logger")),
    ["loss=escaip", "optimizer=sgd"],
    ["optimizer=adam"],
]


@pytest.mark.parametrize("chosen", CHOSEN, ids=" ".join)
def test_every_setting_has_a_meaning(chosen):
    listed = settings(chosen)
    assert [s.name for s in listed if not s.meaning] == []
    assert len({s.name for s in listed}) == len(listed)
    assert listed[0].name == "task"


def test_defaults_are_those_of_the_configuration_as_they_are_typed():
    listed = {s.name: s.default for s in settings(["task=voxels"])}
    assert listed["trainer.ema"] == "0.99"
    assert listed["data.elements"] == "[H,C,N,O,F,S,Cl]"
    assert (listed["augment"], listed["threads"], listed["run"]) == ("true", "null", "first")
    typed = [f"{name}={value}" for name, value in listed.items() if value not in ("???", "") and "." in name]
    assert configuration(["task=voxels", "run=a", *typed]) == configuration(["task=voxels", "run=a"])


def test_comments_are_read_with_their_key():
    text = "# a file\na: 1  # first\nb:\n  c: 2   # second\n          # and more\n  d: 3\ne: [1, 2]  # third\n"
    assert meanings(text) == {"a": "first", "b.c": "second and more", "e": "third"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--settings"], "data.sampler"),
        (["task=voxels", "--settings"], "grid.sigma"),
        (["--settings", "task=voxels"], "grid.sigma"),
        (["--cfg", "job"], "trainer.max_steps  "),
    ],
)
def test_the_command_lists_and_trains_nothing(capsys, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *arguments]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["setting", "default", "meaning"]
    assert any(row.startswith(line) and len(row.split()) > 2 for row in out)
    assert not list(tmp_path.iterdir())


def test_an_unknown_choice_is_refused():
    with pytest.raises(InputError, match="there is no task 'nope'"):
        settings(["task=nope"])
