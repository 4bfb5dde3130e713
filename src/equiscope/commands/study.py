"""The command ``equiscope study``: many training runs along one axis, here or on a cluster, and the report on them."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from equiscope.commands.common import SETTINGS, add_command, completed_by, pages
from equiscope.errors import InputError

_EXAMPLES = (
    "equiscope study model_size task=forcefield",
    "equiscope study optimizer task=forcefield study.seeds=[0,1] trainer.max_steps=2400",
    "equiscope study efficiency task=forcefield --parallel 2",
    "equiscope study paper_scale study.minutes=240 --parallel 3",
    "equiscope study all task=forcefield hydra/launcher=submitit_slurm +hydra.launcher.partition=gpu",
)


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    summary = "train the runs of a study and report on them; go on if it was stopped"
    made = add_command(subparsers, "study", run, summary, _EXAMPLES)
    names = "replicates, model_size, data_size, optimizer, augmentation, or all of these: all; efficiency, dynamics, "
    made.add_argument("name", help=f"{names}paper_scale")
    for_whom = "for every run, for the study (study.…), or for Hydra (hydra…)"
    completed_by(made.add_argument("settings", nargs="*", metavar="key=value", help=for_whom), SETTINGS)
    made.add_argument("--parallel", type=int, metavar="N", help="runs at a time on this machine (default: one a core)")
    return made


def run(options: argparse.Namespace) -> int:
    """Run one study or all; 1 if a run failed."""
    from equiscope.runs.study_run import STUDIES, by_task, run_study, summary

    if options.parallel is not None and options.parallel < 1:
        raise InputError(f"--parallel must be at least 1, got {options.parallel}")
    names = STUDIES if options.name == "all" else (options.name,)
    failed, folders = 0, []
    for name in names:
        for settings in by_task(name, options.settings):
            print(f"study {name}", file=sys.stderr)
            outcome = run_study(name, settings, options.parallel)
            print(f"{name}:\n{summary(outcome)}")
            failed += len(outcome.failed)
            folders.append(outcome.folder)
    with pages():
        from equiscope.report.study import build, with_siblings

        for task in dict.fromkeys(folder.name.partition("-")[0] for folder in folders):
            own = [folder for folder in folders if folder.name.startswith(f"{task}-")]
            print(f"report: {build(with_siblings(own, (*STUDIES, 'efficiency', 'paper_scale')))}")
    return 1 if failed else 0
