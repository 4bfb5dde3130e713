"""The command ``equiscope sample``: protein backbones drawn from a trained flow, judged beside real chains."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from equiscope.commands.common import add_command, add_run, writable_folder
from equiscope.errors import InputError

_EXAMPLES = (
    "equiscope sample proteinflow/first --length 96 --number 8",
    "equiscope sample proteinflow/first --method heun --steps 50 --twirl T --format pdb --out chains",
)


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    summary = "draw protein backbones from a trained flow and judge them beside real chains"
    made = add_command(subparsers, "sample", run, summary, _EXAMPLES)
    add_run(made, "proteinflow/name")
    made.add_argument("--length", type=int, default=96, help="residues of a chain (default 96)")
    made.add_argument("--number", type=int, default=8, help="chains (default 8)")
    made.add_argument("--steps", type=int, default=100, help="integration steps (default 100)")
    made.add_argument("--method", default="euler", help="euler (default) or heun")
    made.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
    made.add_argument("--batch-size", type=int, default=16, help="chains integrated together (default 16)")
    blind = "do not give the model its estimate of the step before"
    made.add_argument("--no-self-conditioning", action="store_true", help=blind)
    twirled = "draw from the same noise with the model averaged over T, O, …, too"
    made.add_argument("--twirl", metavar="SET", help=twirled)
    made.add_argument("--format", default="cif,pdb", help="cif, pdb or both (default cif,pdb)")
    made.add_argument("--out", help="folder for the chains; RUN/samples by default")
    return made


def run(options: argparse.Namespace) -> int:
    """Draw, write and print what the chains are worth."""
    from tqdm.auto import tqdm

    from equiscope.runs.folder import find_run
    from equiscope.runs.trained import open_run
    from equiscope.tasks.proteinflow.sample_run import sample_run
    from equiscope.tasks.proteinflow.sampling import Sampling
    from equiscope.tasks.proteinflow.task import ProteinFlow

    same = ("length", "number", "steps", "method", "seed", "batch_size")
    settings = Sampling(self_conditioning=not options.no_self_conditioning, **{n: getattr(options, n) for n in same})
    writable_folder("--out", options.out)
    trained = open_run(find_run(options.folder), trust=options.trust)
    if not isinstance(trained.task, ProteinFlow):
        raise InputError(f"{options.folder} is a run of {trained.task.name!r}: sampling needs one of 'proteinflow'")
    folder = Path(options.out) if options.out else trained.folder.path / "samples"
    formats = [name.strip() for name in options.format.split(",") if name.strip()]
    with tqdm(unit="step", desc="integrating", disable=not sys.stderr.isatty()) as bar:
        drawn = sample_run(
            trained.model, trained.task, folder, settings, options.twirl, formats, lambda done: bar.update(1)
        )
    print(drawn)
    print(f"chains, figures and quality.json: {folder}")
    return 0
