"""The command ``equiscope report``: figures and a page of runs, from their records alone."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from equiscope.commands.common import FOLDERS, add_command, completed_by, writable_folder
from equiscope.errors import InputError
from equiscope.records import first

_EXAMPLES = (
    "equiscope report forcefield/demo",
    "equiscope report forcefield/first --beside forcefield/escaip forcefield/tied",
    "equiscope report --paper",
    "equiscope report --paper forcefield/demo proteinflow/flow voxels/grid --out runs/paper",
)


def add_parser(commands: Any) -> argparse.ArgumentParser:
    summary = "make figures and a page of runs from their records; with --paper, of the paper's claims"
    made = add_command(commands, "report", run, summary, _EXAMPLES)
    runs = "the run's folder, or task/name under runs/; with --paper several, all under runs/ by default"
    completed_by(made.add_argument("folders", nargs="*", metavar="RUN", help=runs), FOLDERS)
    paper = "one page through the claims of the paper, our numbers beside its numbers"
    made.add_argument("--paper", action="store_true", help=paper)
    out = "folder of the paper's page, figures and tables (default runs/paper)"
    completed_by(made.add_argument("--out", help=out), FOLDERS)
    others = "draw these runs on the same axes into figures/beside.png of the first"
    made.add_argument("--beside", nargs="+", default=[], metavar="RUN", help=others)
    return made


def run(options: argparse.Namespace) -> int:
    """Write the page and print where it is.

    Raises:
        InputError: for no run, one that does not exist, a study, or an option of the other kind of page.
    """
    from equiscope.report import beside, build, build_paper
    from equiscope.runs.folder import find_run

    if (options.paper and options.beside) or (options.out and not options.paper):
        raise InputError("--out is the folder of --paper's page, and --beside draws runs without it: leave one out")
    folders, others = ([find_run(folder) for folder in named] for named in (options.folders, options.beside))
    if options.paper:
        writable_folder("--out", options.out)
        found = folders or sorted(folder for folder in Path("runs").glob("*/*") if _begins(folder, "run"))
        if not found:
            raise InputError("there is no run under runs/: train one first, or name the folders of runs")
        print(f"the paper's claims: {build_paper(found, options.out or 'runs/paper')}")
        return 0
    if not folders:
        raise InputError("name a run: equiscope report TASK/NAME")
    if studies := [folder for folder in folders if _begins(folder, "study", "pace")]:
        raise InputError(
            f"{studies[0]} holds a study, not a run: equiscope study makes its page, or in Python "
            f"equiscope.report.study.build([{str(studies[0])!r}])"
        )
    for folder in folders:
        print(f"report: {build(folder)}")
    if others:
        print(f"beside each other: {beside([folders[0], *others], folders[0] / 'figures' / 'beside.png')}")
    return 0


def _begins(folder: Path, *kinds: str) -> bool:
    """Whether the first record in a folder is of one of these kinds; studies keep records of their own."""
    record = first(folder / "records.jsonl")
    return record is not None and record["kind"] in kinds
