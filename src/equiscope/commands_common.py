"""What the commands share: help with examples, colour where a terminal wants it, a shell's completion of settings."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any, TextIO

BOLD, RED, YELLOW = "1", "1;31", "1;33"

#: The shell function that completes ``key=value`` settings, see ``commands_completion``.
SETTINGS = {"bash": "_equiscope_settings", "zsh": "_equiscope_settings"}
FILES = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}
FOLDERS = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d"}


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int] | None,
    summary: str,
    examples: Sequence[str],
    description: str | None = None,
) -> argparse.ArgumentParser:
    """Add a command to the subparsers; its options carry ``run(options) -> status``.

    Args:
        summary: one line for the list of commands.
        examples: whole command lines, shown under the options. A test reads each with this parser.
        description: what ``--help`` says above the options; the summary by default.
    """
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description or summary,
        epilog="\n".join(["examples:", *(f"  {example}" for example in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.set_defaults(run=run)
    return made


def completed_by(action: argparse.Action, complete: dict[str, str]) -> argparse.Action:
    """Tell the completion script how to complete an argument; returns the argument."""
    action.complete = complete  # type: ignore[attr-defined]
    return action


def coloured(stream: TextIO) -> bool:
    """Whether to write colours: to a terminal that is not dumb, unless NO_COLOR is set; always with FORCE_COLOR."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO) -> str:
    """``text`` in a colour (an SGR code) where ``stream`` shows colours, else as it is."""
    return f"\033[{colour}m{text}\033[0m" if coloured(stream) else text
