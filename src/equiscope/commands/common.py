"""What the commands share: help with examples, colour where a terminal wants it, a shell's completion of settings."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from equiscope.errors import InputError, sentence

BOLD, RED, YELLOW = "1", "1;31", "1;33"

#: The shell function that completes ``key=value`` settings, see ``commands.completion``.
SETTINGS = {"bash": "_equiscope_settings", "zsh": "_equiscope_settings", "fish": "(_equiscope_settings)"}
FILES = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f",
         "fish": "(__fish_complete_path (commandline -ct))"}  # fmt: skip
FOLDERS = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d", "fish": "(__fish_complete_directories)"}


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int] | None, summary: str, examples: Sequence[str]
) -> argparse.ArgumentParser:
    """Add a command to the subparsers; its options carry ``run(options) -> status``.

    Args:
        summary: one line for the list of commands and for ``--help``.
        examples: whole command lines, shown under the options. A test reads each with this parser.
    """
    shown, told = argparse.RawDescriptionHelpFormatter, "\n".join(["examples:", *(f"  {one}" for one in examples)])
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary, epilog=told, formatter_class=shown
    )
    made.set_defaults(run=run)
    return made


def add_run(command: argparse.ArgumentParser, place: str) -> None:
    """The argument ``RUN``, under runs/ as ``place``, and ``--trust`` for the task that its configuration names."""
    folder = f"the run's folder, or {place} under runs/"
    completed_by(command.add_argument("folder", metavar="RUN", help=folder), FOLDERS)
    trust = "import the task that the run's configuration names, code that is not equiscope's"
    command.add_argument("--trust", action="store_true", help=trust)


def pairs(option: str, given: Sequence[str], example: str, form: str = "NAME=VALUE") -> dict[str, str]:
    """What was given as ``NAME=VALUE``, each time the option was; ``form`` is what the command calls it.

    Raises:
        InputError: for anything else, or a name given twice.
    """
    found: dict[str, str] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise InputError(f"{option} needs {form}, such as {option} {example}, got {item!r}")
        if name in found:
            raise InputError(f"{option} names {name!r} twice: {found[name]!r} and {value!r}")
        found[name] = value
    return found


@contextlib.contextmanager
def pages() -> Iterator[None]:
    """Inside, pages are imported and made; without a package that makes them it is said which extra has it."""
    try:
        yield
    except ModuleNotFoundError as error:
        print(f"no page was made, the records are whole: {sentence(error)}", file=sys.stderr)


def show_report(folder: Path) -> None:
    """Make the page of a run and print where it is."""
    with pages():
        from equiscope.report import build

        print(f"report: {build(folder)}")


def device(name: str | None) -> str:
    """The device named by ``--device``; without a name a GPU if there is one.

    Raises:
        InputError: for a device that torch does not know, or that this machine does not have.
    """
    from equiscope.runs.devices import usable

    try:
        return usable(name)
    except InputError as error:
        raise InputError(f"--device {name or ''}: {error}") from error


def writable(option: str, path: str | None, *others: str | None) -> None:
    """A file can be made there: said before hours of work, not after them.

    Args:
        others: files that are read or written too, none of which it may be.

    Raises:
        InputError: naming the option, the path and what is in the way.
    """
    if path is None:
        return
    place = Path(path).absolute()
    for other in map(Path, filter(None, others)):
        if place.resolve() == other.resolve() or (place.exists() and other.exists() and place.samefile(other)):
            raise InputError(f"{option} {path!r} is the file {str(other)!r} that is read or written too: name another")
    if place.is_dir():
        raise InputError(f"{option} {path!r} is a folder: give the name of a file")
    if not place.parent.is_dir():
        raise InputError(f"{option} {path!r}: there is no such folder as {str(place.parent)!r}")
    _try(option, path, place.parent)
    if place.exists() and not os.access(place, os.W_OK):
        raise InputError(f"{option} {path!r} is there and cannot be written over: give another name")


def writable_folder(option: str, path: str | None) -> None:
    """A folder is there, or can be made, and takes files.

    Raises:
        InputError: naming the option, the path and what is in the way.
    """
    if path is None:
        return
    place = Path(path).absolute()
    above = next(p for p in (place, *place.parents) if p.exists())
    if not above.is_dir():
        raise InputError(f"{option} {path!r}: {str(above)!r} is a file, not a folder")
    _try(option, path, above)


def _try(option: str, path: str, folder: Path) -> None:
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{option} {path!r} cannot be written ({error.strerror}): choose another place") from error


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
