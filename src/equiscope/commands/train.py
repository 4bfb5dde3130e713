"""The commands ``equiscope train`` and ``equiscope demo``: a task trained and measured along the way."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from equiscope.commands.common import BOLD, SETTINGS, add_command, completed_by, paint, show_report
from equiscope.errors import InputError
from equiscope.words import aligned

_SETTINGS = "settings, for example trainer.max_steps=1200 model=escaip; equiscope train --settings lists all"
_EXAMPLES = (
    "equiscope train task=forcefield run=first model=edge_transformer data.frames=4000 trainer.max_steps=2400",
    "equiscope train task=forcefield run=escaip model=escaip loss=escaip seed=1",
    "equiscope train task=proteinflow run=flow trainer.max_steps=1200 logger=none",
    "equiscope train task=voxels --settings",
)
_DEMO_EXAMPLES = ("equiscope demo", "equiscope demo --threads 1 data.frames=1000 trainer.max_steps=600 run=short")
_MANY_MOLECULES = ["data.frames=3800", "data.frames_per_molecule=4"]


def add_parser(subparsers: Any) -> None:
    """Add both commands."""
    summary = "the main job: real data, a force field, its symmetry, the report"
    demonstrated = add_command(subparsers, "demo", demo, summary, _DEMO_EXAMPLES)
    demonstrated.add_argument("--threads", type=int, help="CPU threads (OMP_NUM_THREADS, or as many as help)")
    summary = "train a task, measuring along the way; go on if it was stopped"
    trained = add_command(subparsers, "train", run, summary, _EXAMPLES)
    listed = "list every setting with its default and meaning, of the task, model and data chosen, and train nothing"
    trained.add_argument("--settings", "--cfg", dest="listed", nargs="?", const="job", metavar="job", help=listed)
    for made in (demonstrated, trained):
        completed_by(made.add_argument("settings", nargs="*", metavar="key=value", help=_SETTINGS), SETTINGS)


def run(options: argparse.Namespace) -> int:
    """Train and print the headline, or list the settings."""
    from equiscope.runs.config import configuration, settings

    if options.listed:
        # What follows the option may be meant as a setting: --settings task=voxels.
        chosen = [options.listed] if "=" in options.listed else []
        rows = [(s.name, s.default, s.meaning) for s in settings([*chosen, *options.settings])]
        print("\n".join(aligned([("setting", "default", "meaning"), *rows])))
        return 0
    _train(configuration(options.settings), "its page: equiscope report {}")
    return 0


def demo(options: argparse.Namespace) -> int:
    """Train the force field of the demo, print the headline and make the page.

    Raises:
        InputError: for no thread, or settings that nothing knows.
    """
    import torch

    from equiscope.runs.config import configuration
    from equiscope.runs.doctor import threads_worth_having

    # `make demo` does not install TensorBoard; the report shows the curves.
    quiet = [] if importlib.util.find_spec("tensorboard") else ["logger=none"]
    # Many molecules with few frames each: of few, two or three that are hard to predict carry the interval.
    spread = [] if any(s.lstrip("+").startswith("data") for s in options.settings) else _MANY_MOLECULES
    config = configuration(["task=forcefield", "run=demo", *quiet, *spread, *options.settings])
    if options.threads is not None and options.threads < 1:
        raise InputError(f"--threads must be at least 1, got {options.threads}")
    if options.threads or (config["threads"] is None and "OMP_NUM_THREADS" not in os.environ):
        torch.set_num_threads(options.threads or threads_worth_having())
    print(f"{torch.get_num_threads()} CPU thread(s); make demo THREADS=1, or --threads 1, for another number")
    show_report(_train(config).parent)
    return 0


def _train(config: dict[str, Any], last: str = "") -> Path:
    """Train, print the headline and ``last`` words on the run's folder; the path of the records."""
    from equiscope import records
    from equiscope.runs.train import headline, train

    folder = train(config)
    # Processes that Lightning starts for other devices run this command too; one of them speaks.
    if not any(int(os.environ.get(name, 0)) for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")):
        book = records.read(folder.records)
        print(paint(headline(book), BOLD, sys.stdout))
        print(f"records: {folder.records}")
        if last:
            print(last.format(folder.records.parent))
    return folder.records
