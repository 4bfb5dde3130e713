"""The command ``equiscope analyse``: why symmetry was learned, from the checkpoints a run has kept."""

from __future__ import annotations

import argparse
from typing import Any

from equiscope.commands.common import add_command, add_run, device, show_report
from equiscope.errors import InputError
from equiscope.runs.kinds import analyses, check, settable

_EXAMPLES = (
    "equiscope analyse forcefield/demo heads layers spectrum",
    "equiscope analyse forcefield/demo gradients --part final --samples 256",
    "equiscope analyse forcefield/demo hessian --samples 32 --vectors 8 --matrices gauss_newton",
    "equiscope analyse forcefield/demo conditioning --rotations I",
    "equiscope analyse forcefield/demo layers --at 0 60 2400 --layers 'layers.*.attention'",
)


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    summary = "analyse the kept checkpoints of a run, record it there and put it into the report"
    made = add_command(subparsers, "analyse", run, summary, _EXAMPLES)
    add_run(made, "task/name")
    made.add_argument("kinds", nargs="*", metavar="ANALYSIS", help=f"one or more of {', '.join(analyses())}")
    made.add_argument("--at", nargs="+", metavar="STEP", help="training steps; every kept checkpoint by default")
    made.add_argument("--probe", action="append", metavar="NAME", help="of the run; its headline probe by default")
    for name, (setting, kinds) in settable().items():
        # The type of one value of it.
        more = {**setting.metadata, "type": next((k for k in (int, float) if k.__name__ in str(setting.type)), str)}
        if "tuple" in str(setting.type):
            more["nargs"] = "+"
        text = more.pop("help") + (f"; for {', '.join(kinds)}" if kinds else "")
        made.add_argument(f"--{name.replace('_', '-')}", help=text, **more)
    made.add_argument("--device", help="cpu, cuda, cuda:1, mps, or gpu; a GPU if there is one")
    return made


def run(options: argparse.Namespace) -> int:
    """Analyse, record, print, and make the report again."""
    from equiscope.records import read
    from equiscope.report.curves import history
    from equiscope.report.kinds import summary
    from equiscope.report.sentences import squared_unit
    from equiscope.runs.analyse import analyse
    from equiscope.runs.folder import find_run

    kinds, steps, changes = _sorted(options)
    folder = find_run(options.folder)
    made = analyse(folder, kinds, steps, options.probe, changes, device(options.device), trust=options.trust)
    book = read(folder / "records.jsonl")
    measured = [record for record in book if record["kind"] == "measure"]
    print(summary([*measured, *made], squared_unit(history(book))))
    show_report(folder)
    return 0


def _sorted(options: argparse.Namespace) -> tuple[list[str], list[int] | None, dict[str, Any]]:
    """Kinds, steps and settings; a kind that stands behind the values of ``--at`` or ``--layers`` is still a kind."""
    known, kinds, steps, changes = analyses(), list(options.kinds), [], {}
    for value in options.at or []:
        if value.isascii() and value.removeprefix("-").isdigit():
            steps.append(int(value))
        elif value in known:
            kinds.append(value)
        else:
            raise InputError(f"--at takes training steps, got {value!r}")
    for name, (setting, _) in settable().items():
        given = getattr(options, name)
        if isinstance(given, list) and "choices" not in setting.metadata:
            kinds += [value for value in given if value in known]
            given = [value for value in given if value not in known]
        if given not in (None, []):
            changes[name] = tuple(given) if isinstance(given, list) else given
    check(kinds)
    return kinds, (steps if options.at else None), changes
