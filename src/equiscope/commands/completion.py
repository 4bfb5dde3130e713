"""The command ``equiscope completion``: a script that lets the shell complete commands, options and settings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from equiscope.commands.common import add_command

SHELLS = ("bash", "zsh", "tcsh", "fish")
_EXAMPLES = (
    'eval "$(equiscope completion bash)"',
    "equiscope completion bash > ~/.local/share/bash-completion/completions/equiscope",
    "equiscope completion zsh > ~/.zfunc/_equiscope",
    "equiscope completion fish > ~/.config/fish/completions/equiscope.fish",
)


def add_parser(commands: Any, parser: Callable[[], argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command; ``parser`` gives the whole command line that the script is made of."""
    summary = "print a script that completes this command in bash, zsh, tcsh or fish"
    made = add_command(commands, "completion", lambda options: run(options, parser()), summary, _EXAMPLES)
    made.add_argument("shell", choices=SHELLS, help="the shell you use")
    return made


def run(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Print the script."""
    import shtab

    # shtab takes a preamble for each shell; its annotation says a string.
    script = shtab.complete(parser, shell=options.shell, preamble=_preamble())  # type: ignore[arg-type]
    sys.stdout.write(script + "\n")
    return 0


def _preamble() -> dict[str, str]:
    """Shell functions that offer the names of all settings, each with the sign that its value follows."""
    keys = " ".join(f"{key}=" for key in setting_names())
    return {
        "bash": f'_equiscope_settings() {{ compopt -o nospace; compgen -W "{keys}" -- "$1"; }}\n',
        "fish": f"function _equiscope_settings; printf '%s\\n' {keys}; end\n",
        "zsh": f"_equiscope_settings() {{ compadd -S '' -- {keys}; }}\n",
    }


def setting_names() -> list[str]:
    """Every ``key`` that ``equiscope train key=value`` knows, of all tasks; none without the training packages."""
    try:
        from equiscope.runs.config import known_settings
    except ImportError:
        return []
    return known_settings()
