"""The ``equiscope`` command: one-line errors, and nothing heavy imported before it is needed."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, cast

from equiscope.commands import analyse, completion, data, doctor, measure, report, sample, study, train
from equiscope.commands.common import RED, YELLOW, paint
from equiscope.errors import EquiscopeError, sentence, version
from equiscope.words import harmless

FAILED, UNFORESEEN, INTERRUPTED = 2, 3, 130
GOES_ON = "the same command goes on from here"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: the one place where errors become a line of words and a status.

    Returns:
        0 if it succeeded; 2 after an error of equiscope's own, of the disk, or for want of a package; 3 after one that
        nobody foresaw; 130 after Ctrl-C. With ``--traceback`` errors come as they are.
    """
    options = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal or file that cannot show a character is no reason to lose the rest.
            stream.reconfigure(errors="replace")
    out, error = (cast(Any, _Harmless(stream)) for stream in (sys.stdout, sys.stderr))
    with warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(error):
        warnings.showwarning = _show_warning
        try:
            return int(options.run(options) or 0)
        except KeyboardInterrupt:
            print(f"\nequiscope: stopped; {getattr(options, 'stopped', GOES_ON)}", file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:
            # Whoever read the output has seen enough; without this Python would complain at its own end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except Exception as raised:
            if options.traceback:
                raise
            foreseen = isinstance(raised, EquiscopeError | OSError | ImportError)
            more = "" if foreseen else "; nobody foresaw this: equiscope --traceback COMMAND … shows where it came from"
            print(f"{paint('equiscope:', RED, sys.stderr)} {sentence(raised)}{more}", file=sys.stderr)
            return FAILED if foreseen else UNFORESEEN


class _Harmless:
    """A text stream without control characters, which names in files of others could hold."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(harmless(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="equiscope",
        description="How much of a model's loss is there only because its symmetry is imperfect.",
        epilog="equiscope COMMAND --help shows examples.",
    )
    top.add_argument("--version", action="version", version=f"equiscope {version('equiscope') or 'unknown'}")
    top.add_argument("--traceback", action="store_true", help="show errors as Python does, to report them")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    train.add_parser(commands)
    for command in (data, study, report, analyse, measure, sample, doctor):
        command.add_parser(commands)
    completion.add_parser(commands, parser)
    return top


def _show_warning(message: Warning | str, *place: Any, **more: Any) -> None:
    print(f"{paint('equiscope: warning:', YELLOW, sys.stderr)} {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
