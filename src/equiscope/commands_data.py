"""The command ``equiscope data describe``: what a published data set holds, in what units, and how it is oriented."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from equiscope.commands_common import FILES, add_command, completed_by
from equiscope.errors import InputError

FORMATS = (
    "spice, md17, rmd17, ani1x, ani2x, qm9, extxyz, ase (.db, .aselmdb), mptrj, geom, geom_crude, midi, "
    "smiles (MOSES), structures (mmCIF or PDB folder)"
)


_EXAMPLES = (
    "equiscope data describe SPICE-2.0.1.hdf5 --format spice --frames 10000",
    "equiscope data describe mine.extxyz --format extxyz --set energy_unit=eV --set length_unit=Å",
)


def add_describe(kinds: Any) -> argparse.ArgumentParser:
    """Add ``describe`` to the subparsers of ``equiscope data``; the parsed options carry ``run(options) -> status``."""
    summary = "units, counts, rejections, labels and orientation of a published data set"
    made = add_command(kinds, "describe", run, summary, _EXAMPLES)
    completed_by(made.add_argument("path", metavar="FILE", help="the file or folder"), FILES)
    made.add_argument("--format", required=True, help=f"one of: {FORMATS}")
    made.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="a setting of the format"
    )
    made.add_argument("--frames", type=int, help="describe so many frames, drawn evenly (two passes over the file)")
    made.add_argument("--share", type=float, default=1.0, help="describe this share of the frames (one pass)")
    made.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    made.add_argument("--max-force", type=float, help="leave out frames with a larger force on an atom, eV/Å")
    made.add_argument("--json", metavar="FILE", help="write the same as JSON")
    return made


def run(options: argparse.Namespace) -> int:
    """Read, count and print.

    Raises:
        InputError: an unknown format or setting. DataError: the file cannot be read.
    """
    shown, plain = _describe(options)
    print(shown)
    if options.json:
        Path(options.json).write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    return 0


def _describe(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from equiscope.tasks.datasets import catalogue, description, smiles, stream

    if options.format == "structures":
        return _structures(options.path)
    sample = stream.Sample(options.frames, options.share, options.seed)
    if options.format == "smiles":
        found = smiles.describe(options.path, sample)
        return str(found), found.to_dict()
    source = catalogue.source(options.format, options.path, _settings(options.settings))
    rejected: Counter[str] = Counter()
    blocks = stream.read(source, stream.Rules(max_force=options.max_force), sample, rejected)
    made = description.describe(_counted(blocks), source.units(), rejected)
    return str(made), made.to_dict()


def _structures(path: str) -> tuple[str, dict[str, Any]]:
    """Cα traces of a folder of protein structures."""
    import torch

    from equiscope.tasks.datasets.orientation import OrientationSum
    from equiscope.tasks.datasets.structures import read_structures

    chains, total = read_structures(path), OrientationSum()
    for trace in chains.ca:
        total.add(torch.from_numpy(trace)[None])
    found, lengths = total.result(), chains.lengths
    lines = [
        f"{len(chains):,} chains, {lengths.min()} to {lengths.max()} residues, {lengths.sum():,} in all",
        str(found) if found else "orientation tensor: no chain has a longest axis",
        "units of the file: positions Å (the mmCIF and PDB standards)",
        "files and chains: " + ", ".join(f"{count:,} {reason}" for reason, count in chains.counts.items()),
    ]
    plain = {
        "chains": len(chains),
        "residues": [int(lengths.min()), int(lengths.max())],
        "orientation": found.to_dict() if found else None,
        "counts": dict(chains.counts),
    }
    return "\n".join(lines), plain


def _settings(given: list[str]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise InputError(f"--set needs KEY=VALUE, got {item!r}")
        found[name] = int(value) if value.isdigit() else value
    return found


def _counted(blocks: Iterator[Any]) -> Iterator[Any]:
    from tqdm import tqdm

    with tqdm(unit=" frames", desc="reading", disable=not sys.stderr.isatty()) as bar:
        for block in blocks:
            bar.update(len(block))
            yield block
