"""The command ``equiscope data``: a data set made, or what a published one holds and how it is oriented."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from equiscope.commands.common import FILES, add_command, completed_by, pairs, writable, writable_folder
from equiscope.errors import InputError
from equiscope.tasks.datasets.catalogue import FORMATS
from equiscope.writing import write_atomically

_DESCRIBE = (
    "equiscope data describe SPICE-2.0.1.hdf5 --format spice --frames 10000",
    "equiscope data describe mine.extxyz --format extxyz --set energy_unit=eV --set length_unit=Å",
)
_GENERATE = (
    "equiscope data forcefield --frames 4000 --seed 0",
    "equiscope data forcefield --sampler langevin --smiles my.smi --out data/mine.npz",
)


def add_parser(subparsers: Any) -> None:
    examples = ("equiscope data forcefield --frames 4000", _DESCRIBE[0])
    made = add_command(subparsers, "data", None, "make a data set, or say what is in one", examples)
    kinds = made.add_subparsers(title="data sets", required=True, metavar="KIND")
    _add_describe(kinds)
    _add_generate(kinds)


def _add_describe(kinds: Any) -> None:
    summary = "units, counts, rejections, labels and orientation of a published data set"
    made = add_command(kinds, "describe", describe, summary, _DESCRIBE)
    completed_by(made.add_argument("path", metavar="FILE", help="the file or folder"), FILES)
    made.add_argument("--format", required=True, help=f"one of: {', '.join(FORMATS)}")
    one = "a setting of the format"
    made.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=one)
    made.add_argument("--frames", type=int, help="describe so many frames, drawn evenly (two passes over the file)")
    made.add_argument("--share", type=float, default=1.0, help="describe this share of the frames (one pass)")
    made.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    made.add_argument("--max-force", type=float, help="leave out frames with a larger force on an atom, eV/Å")
    made.add_argument("--json", metavar="FILE", help="write the same as JSON")


def _add_generate(kinds: Any) -> None:
    made = add_command(kinds, "forcefield", generate, "molecules with GFN2-xTB energies and forces", _GENERATE)
    made.add_argument("--frames", type=int, default=4000, help="labelled geometries (default 4000)")
    made.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    made.add_argument("--sampler", default="jitter", help="jitter (default) or langevin")
    made.add_argument("--min-atoms", type=int, default=10, help="of a molecule, with hydrogens")
    made.add_argument("--max-atoms", type=int, default=20, help="of a molecule, with hydrogens")
    made.add_argument("--frames-per-molecule", type=int, help="most frames of one molecule")
    made.add_argument("--orientation", default="haar", help="haar (default) or embedded")
    smiles = "a SMILES file of your own instead of RDKit's NCI list"
    completed_by(made.add_argument("--smiles", help=smiles), FILES)
    made.add_argument("--out", dest="path", help="the file; data/forcefield-….npz by default")
    made.add_argument("--workers", type=int, help="processes; all cores by default")


def generate(options: argparse.Namespace) -> int:
    """Make the force-field data and check that they can be read."""
    from equiscope.tasks.forcefield import data

    writable_folder("--out", options.path and str(Path(options.path).parent))
    names = data.ForceFieldData.__dataclass_fields__
    config = data.ForceFieldData(**{name: getattr(options, name) for name in names if hasattr(options, name)})
    data.load(data.generate(config, workers=options.workers, progress=sys.stderr.isatty()))
    return 0


def describe(options: argparse.Namespace) -> int:
    """Read, count and print.

    Raises:
        InputError: an unknown format or setting. DataError: the file cannot be read.
    """
    from equiscope.tasks.datasets import catalogue, stream

    writable("--json", options.json, options.path)
    sample = stream.Sample(options.frames, options.share, options.seed)
    rules = stream.Rules(max_force=options.max_force)
    settings = pairs("--set", options.settings, "energy_unit=eV", "KEY=VALUE")
    found = catalogue.describe(options.format, options.path, settings, rules, sample, _counted)
    print(found)
    if options.json:
        try:
            write_atomically(options.json, (json.dumps(found.to_dict(), indent=1, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise InputError(f"--json {options.json!r} cannot be written: {error.strerror}") from error
    return 0


def _counted(blocks: Iterator[Any]) -> Iterator[Any]:
    from tqdm import tqdm

    with tqdm(unit=" frames", desc="reading", disable=not sys.stderr.isatty()) as bar:
        for block in blocks:
            bar.update(len(block))
            yield block
