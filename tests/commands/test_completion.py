"""The scripts complete in a real shell; without shtab the remedy is named."""

import re
import shutil
import subprocess
import sys

import pytest

from equiscope import cli
from equiscope.runs.config import known_settings


def _script(capsys, shell):
    assert cli.main(["completion", shell]) == 0
    return capsys.readouterr().out


def _completed(script, words):
    """What bash offers for the last of ``words``."""
    line = " ".join(words)
    program = f"""{script}
COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMP_LINE='{line}'; COMP_POINT={len(line)}
compopt() {{ :; }}
$(complete -p equiscope | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    return subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes_commands_options_and_settings(capsys):
    script = _script(capsys, "bash")
    assert {"train", "measure", "report", "completion"} <= set(_completed(script, ["equiscope", "''"]))
    assert _completed(script, ["equiscope", "tr"]) == ["train"]
    assert _completed(script, ["equiscope", "measure", "--csv", "x", "--cal"]) == ["--calculator"]
    assert _completed(script, ["equiscope", "train", "trainer.max"]) == ["trainer.max_steps="]
    assert "task=" in _completed(script, ["equiscope", "train", "run=a", "ta"])
    assert _completed(script, ["equiscope", "completion", "z"]) == ["zsh"]


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script(capsys, shell):
    script = _script(capsys, shell)
    assert "--calculator" in script or "calculator" in script
    assert "equiscope" in script


def test_fish_gets_every_command_option_and_setting(capsys):
    script = _script(capsys, "fish")
    lines = [line for line in script.splitlines() if line.startswith("complete -c equiscope")]
    assert any(re.search(r"-a measure -d '.*ASE calculator", line) for line in lines)
    assert any("_using measure'" in line and "-l calculator" in line for line in lines)
    assert any("_using data forcefield'" in line and "-l frames" in line for line in lines)
    assert any("_using train;" in line and "(_equiscope_settings)" in line for line in lines)
    assert re.search(r"function _equiscope_settings; printf .* trainer\.max_steps=.*; end", script)
    assert any("_using completion;" in line and "bash zsh tcsh fish" in line for line in lines)
    if shutil.which("fish"):
        subprocess.run(["fish", "--no-execute"], input=script, text=True, check=True)


def test_settings_are_those_of_the_configuration():
    names = known_settings()
    assert {"task", "logger", "trainer.max_steps", "data.frames", "data.shortest", "track.times"} <= set(names)
    assert "model.name" not in names


def test_without_shtab(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 2
    assert "pip install 'equiscope[completion]'" in capsys.readouterr().err
