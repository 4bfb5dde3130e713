"""The commands ``equiscope train`` and ``equiscope demo``: a task trained and measured along the way."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from equiscope.commands.common import BOLD, SETTINGS, add_command, completed_by, paint, show_report
from equiscope.errors import InputError

_SETTINGS = "settings, for example trainer.max_steps=1200 model=escaip; see the files in equiscope/conf"
_EXAMPLES = (
    "equiscope train task=forcefield run=first model=edge_transformer data.frames=4000 trainer.max_steps=2400",
    "equiscope train task=forcefield run=escaip model=escaip loss=escaip seed=1",
    "equiscope train task=proteinflow run=flow trainer.max_steps=1200 logger=none",
)
_DEMO_EXAMPLES = ("equiscope demo", "equiscope demo --threads 1 data.frames=1000 trainer.max_steps=600 run=short")


def add_parser(subparsers: Any) -> None:
    """Add both commands to the subparsers of ``equiscope``; the parsed options carry ``run(options) -> status``."""
    summary = "the main job: real data, a force field, its symmetry, the report"
    demonstrated = add_command(subparsers, "demo", demo, summary, _DEMO_EXAMPLES)
    demonstrated.add_argument("--threads", type=int, help="CPU threads; OMP_NUM_THREADS, or all cores, by default")
    summary = "train a task, measuring along the way; go on if it was stopped"
    for made in (demonstrated, add_command(subparsers, "train", run, summary, _EXAMPLES)):
        completed_by(made.add_argument("settings", nargs="*", metavar="key=value", help=_SETTINGS), SETTINGS)


def run(options: argparse.Namespace) -> int:
    """Train and print the headline."""
    from equiscope.runs.config import configuration

    _train(configuration(options.settings))
    return 0


def demo(options: argparse.Namespace) -> int:
    """Train the force field of the demo, print the headline and make the page.

    Raises:
        InputError: for no thread, or settings that nothing knows.
    """
    import torch

    from equiscope.runs.config import configuration

    config = configuration(["task=forcefield", "run=demo", *options.settings])
    if options.threads is not None and options.threads < 1:
        raise InputError(f"--threads must be at least 1, got {options.threads}")
    if options.threads or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(options.threads or os.cpu_count() or 1)
    show_report(_train(config).parent)
    return 0


def _train(config: dict[str, Any]) -> Path:
    """Train and print the headline; the path of the records."""
    from equiscope import records
    from equiscope.runs.train import headline, train

    folder = train(config)
    # Processes that Lightning starts for other devices run this command too; one of them speaks.
    if not any(int(os.environ.get(name, 0)) for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")):
        book = records.read(folder.records)
        print(paint(headline(book), BOLD, sys.stdout))
        print(f"records: {folder.records}")
    return folder.records
