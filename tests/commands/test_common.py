"""Every command shows examples that its own parser reads; colours only where a terminal wants them."""

import argparse
import io
import shlex

import pytest

from equiscope import cli
from equiscope.commands import common
from equiscope.errors import InputError


def _leaves(parser, path=()):
    """(words, parser) of every command and subcommand."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield (*path, name), child
                yield from _leaves(child, (*path, name))


COMMANDS = dict(_leaves(cli.parser()))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_shows_examples_that_can_be_read(capsys, words):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*words, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    examples = [line.strip() for line in shown.split("\nexamples:\n")[1].splitlines() if line.strip()]
    assert examples
    for example in examples:
        command = example.split("$(")[-1].split(")")[0]
        program, *arguments = shlex.split(command.split(" > ")[0])
        assert program == "equiscope"
        assert tuple(arguments[: len(words)]) == words
        if "--help" not in arguments:
            cli.parser().parse_args(arguments)


def test_examples_of_settings_compose():
    from equiscope.runs.config import configuration

    for words in (("train",), ("demo",)):
        for line in COMMANDS[words].epilog.splitlines()[1:]:
            settings = [w for w in line.split() if "=" in w]
            named = ["run=any"] if "--settings" in line else []  # which need no run
            configuration([*settings, *named] if words == ("train",) else ["task=forcefield", "run=demo", *settings])


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (io.StringIO(), {}, False),
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
        (io.StringIO(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours(monkeypatch, stream, environment, expected):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert common.coloured(stream) is expected
    assert common.paint("word", common.RED, stream) == ("\033[1;31mword\033[0m" if expected else "word")


def test_errors_are_coloured_in_a_terminal_only(monkeypatch, capsys):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert cli.main(["report", "nowhere/none"]) == 2
    assert "\033" not in capsys.readouterr().err
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert cli.main(["report", "nowhere/none"]) == 2
    assert capsys.readouterr().err.startswith("\033[1;31mequiscope:\033[0m there is no run folder")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "is a folder"),
        ("none/a.csv", "no such folder as"),
        ("file/a.csv", "no such folder as"),
        ("/proc/a", "cannot be"),
    ],
)
def test_a_file_that_cannot_be_made_is_refused_before_the_work(tmp_path, path, words):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"--csv .*{words}"):
        common.writable("--csv", str(tmp_path / path))
    common.writable("--csv", str(tmp_path / "new.csv"))
    common.writable("--csv", None)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("path", "words"), [("file/out", "is a file, not a folder"), ("/proc/a/b", "cannot be written")]
)
def test_a_folder_that_cannot_be_made_is_refused_before_the_work(tmp_path, path, words):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"--out .*{words}"):
        common.writable_folder("--out", str(tmp_path / path))
    common.writable_folder("--out", str(tmp_path / "new" / "deep"))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cuda:99", "the device 'cuda:99' cannot be used here"),
        ("nonsense", "there is no device 'nonsense': the devices are cpu, cuda, cuda:0"),
        ("meta", "there is no device 'meta'"),
    ],
)
def test_a_device_that_is_not_there_is_refused(name, words):
    with pytest.raises(InputError, match=f"--device {name}: {words}"):
        common.device(name)
    assert common.device("cpu") == "cpu"
