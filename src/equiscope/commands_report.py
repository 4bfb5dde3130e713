"""The command ``equiscope report``: figures and a page of runs, from their records alone."""

from __future__ import annotations

import argparse
from typing import Any

from equiscope.commands_common import FOLDERS, add_command, completed_by

_EXAMPLES = (
    "equiscope report forcefield/demo",
    "equiscope report forcefield/first --beside forcefield/escaip forcefield/tied",
)


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command to the subparsers of ``equiscope``; the parsed options carry ``run(options) -> status``."""
    made = add_command(commands, "report", run, "make figures and report.html of a run from its records", _EXAMPLES)
    completed_by(made.add_argument("folder", metavar="RUN", help="the run's folder, or task/name under runs/"), FOLDERS)
    others = "draw these runs on the same axes into figures/beside.png"
    made.add_argument("--beside", nargs="+", default=[], metavar="RUN", help=others)
    return made


def run(options: argparse.Namespace) -> int:
    """Write the page and print where it is."""
    from equiscope.report import beside, build
    from equiscope.runs.folder import find_run

    folder = find_run(options.folder)
    print(f"report: {build(folder)}")
    if options.beside:
        others = [find_run(other) for other in options.beside]
        print(f"beside each other: {beside([folder, *others], folder / 'figures' / 'beside.png')}")
    return 0
