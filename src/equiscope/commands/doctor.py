"""The command ``equiscope doctor``: what slows or spoils a measurement on this machine, and what to do about it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from equiscope.commands.common import SETTINGS, add_command, completed_by, paint

_EXAMPLES = ("equiscope doctor", "equiscope doctor --quiet", "equiscope doctor --parameters 6e6 --samples 1000",
             "equiscope doctor task=forcefield model=escaip --samples 1000")  # fmt: skip
SOMETHING_WRONG = 1
_MARKS = {"good": ("ok   ", "32"), "slow": ("slow ", "1;33"), "wrong": ("wrong", "1;31")}


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    summary = "versions, threads, precision, GPU: what slows or spoils a measurement here"
    made = add_command(subparsers, "doctor", run, summary, _EXAMPLES)
    made.add_argument("--quiet", action="store_true", help="only what is slow or wrong")
    told = made.add_argument_group("a measurement whose cost is estimated")
    name = "settings as for train name a model, which is timed: task=voxels model.size=28M"
    completed_by(told.add_argument("settings", nargs="*", metavar="key=value", help=name), SETTINGS)
    told.add_argument("--parameters", type=float, default=1e6, help="of a network that is not named (1e6)")
    told.add_argument("--tokens", type=int, default=200, help="atoms, edges, residues or voxels of a sample (200)")
    told.add_argument("--samples", type=int, default=256, help="that are measured (256)")
    told.add_argument("--rotations", type=int, default=24, help="of each sample (24)")
    told.add_argument("--batch", type=int, default=64, help="samples a call (64)")
    return made


def run(options: argparse.Namespace) -> int:
    """Print the findings; 1 if something makes figures wrong."""
    from equiscope.runs import doctor

    asked = doctor.Asked(options.parameters, options.tokens, options.samples, options.rotations, options.batch)
    facts = doctor.gather(asked, options.settings)
    found = doctor.findings(facts, asked)
    if not options.quiet:
        print(f"Python {facts.python}, {facts.system}")
    shown = [finding for finding in found if not options.quiet or finding.level != doctor.GOOD]
    for finding in shown:
        mark, colour = _MARKS[finding.level]
        print(f"{paint(mark, colour, sys.stdout)}  {finding.what}")
        if finding.remedy:
            print(f"       {finding.remedy}")
    if not shown:
        print("nothing slows or spoils a measurement here")
    return SOMETHING_WRONG if any(finding.level == doctor.WRONG for finding in found) else 0
