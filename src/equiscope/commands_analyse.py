"""The command ``equiscope analyse``: why symmetry was learned, from the checkpoints a run has kept."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equiscope.commands_common import FOLDERS, add_command, completed_by, device, show_report
from equiscope.errors import InputError

_EXAMPLES = (
    "equiscope analyse forcefield/demo heads layers spectrum",
    "equiscope analyse forcefield/demo gradients --part final --samples 256",
    "equiscope analyse forcefield/demo hessian --samples 32 --vectors 8 --matrices gauss_newton",
    "equiscope analyse forcefield/demo conditioning --rotations I",
    "equiscope analyse forcefield/demo layers --at 0 60 2400 --layers 'layers.*.attention'",
)
KINDS = ("gradients", "hessian", "landscape", "conditioning", "heads", "layers", "spectrum")


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to the subparsers of ``equiscope``; the parsed options carry ``run(options) -> status``."""
    summary = "analyse the kept checkpoints of a run, record it there and put it into the report"
    made = add_command(subparsers, "analyse", run, summary, _EXAMPLES)
    folder = "the run's folder, or task/name under runs/"
    completed_by(made.add_argument("folder", metavar="RUN", help=folder), FOLDERS)
    made.add_argument("kinds", nargs="*", metavar="ANALYSIS", help=f"one or more of {', '.join(KINDS)}")
    made.add_argument("--at", nargs="+", metavar="STEP", help="training steps; every kept checkpoint by default")
    made.add_argument("--probe", action="append", metavar="NAME", help="of the run; its headline probe by default")
    made.add_argument("--samples", type=int, help="held-out samples used")
    parts = "of the held-out samples: those measured along training (default), or the larger final set"
    made.add_argument("--part", choices=("track", "final"), help=parts)
    batched = "gradients, hessian, landscape, conditioning"
    made.add_argument("--batch", type=int, help=f"samples in each independent batch, for {batched}")
    made.add_argument("--rotations", help="set of rotations: T, O, I, D2, haar, …")
    made.add_argument("--cosets", type=int, help="random cosets of it for each sample")
    made.add_argument("--degrees", type=int, help="highest Wigner degree told apart, for layers and spectrum")
    made.add_argument("--seed", type=int, help="of the rotations")
    made.add_argument("--layers", nargs="+", metavar="PATTERN", help="names of layers, such as 'layers.*.mlp'")
    made.add_argument("--head", metavar="LAYER", help="name of the linear head; found by default")
    made.add_argument("--matrices", nargs="+", choices=("hessian", "gauss_newton"), help="for hessian: which curvature")
    made.add_argument("--vectors", type=int, help="for hessian: random vectors of its traces and densities")
    trust = "import the task that the run's configuration names, code that is not equiscope's"
    made.add_argument("--trust", action="store_true", help=trust)
    made.add_argument("--device", help="cpu, cuda, …; a GPU if there is one")
    return made


def run(options: argparse.Namespace) -> int:
    """Analyse, record, print, and make the report again."""
    from equiscope.runs.analyse import analyse
    from equiscope.runs.folder import find_run

    kinds, steps, patterns = _sorted(options)
    names = ("samples", "part", "batch", "rotations", "cosets", "seed", "degrees", "head", "vectors")
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if patterns:
        changes["layers"] = tuple(patterns)
    if options.matrices:
        changes["matrices"] = tuple(options.matrices)
    folder = find_run(options.folder)
    made = analyse(folder, kinds, steps, options.probe, changes, device(options.device), trust=options.trust)
    try:
        from equiscope.report.kinds import summary
    except ModuleNotFoundError:
        print(f"{len(made)} analyses recorded: {Path(folder) / 'records.jsonl'}")
    else:
        print(summary(made))
    show_report(Path(folder))
    return 0


def _sorted(options: argparse.Namespace) -> tuple[list[str], list[int] | None, list[str]]:
    """Kinds, steps and patterns; a kind that stands behind the values of ``--at`` or ``--layers`` is still a kind."""
    kinds, steps, patterns = list(options.kinds), [], []
    for value in options.at or []:
        if value.isascii() and value.removeprefix("-").isdigit():
            steps.append(int(value))
        elif value in KINDS:
            kinds.append(value)
        else:
            raise InputError(f"--at takes training steps, got {value!r}")
    for value in options.layers or []:
        (kinds if value in KINDS else patterns).append(value)
    _check(kinds)
    return kinds, (steps if options.at else None), patterns


def _check(kinds: Sequence[str]) -> None:
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        what = f"unknown analysis {unknown[0]!r}" if unknown else "no analysis given"
        raise InputError(f"{what}: name one or more of {', '.join(KINDS)}")
