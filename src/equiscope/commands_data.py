"""The command ``equiscope data describe``: what a published data set holds, in what units, and how it is oriented."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from equiscope.commands_common import FILES, add_command, completed_by, writable
from equiscope.errors import InputError
from equiscope.tasks.datasets.catalogue import FORMATS
from equiscope.writing import write_atomically

_EXAMPLES = (
    "equiscope data describe SPICE-2.0.1.hdf5 --format spice --frames 10000",
    "equiscope data describe mine.extxyz --format extxyz --set energy_unit=eV --set length_unit=Å",
)


def add_describe(kinds: Any) -> argparse.ArgumentParser:
    """Add ``describe`` to the subparsers of ``equiscope data``; the parsed options carry ``run(options) -> status``."""
    summary = "units, counts, rejections, labels and orientation of a published data set"
    made = add_command(kinds, "describe", run, summary, _EXAMPLES)
    completed_by(made.add_argument("path", metavar="FILE", help="the file or folder"), FILES)
    made.add_argument("--format", required=True, help=f"one of: {', '.join(FORMATS)}")
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
    writable("--json", options.json, options.path)
    shown, plain = _describe(options)
    print(shown)
    if options.json:
        try:
            write_atomically(options.json, (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise InputError(f"--json {options.json!r} cannot be written: {error.strerror}") from error
    return 0


def _describe(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from equiscope.tasks.datasets import catalogue, stream

    sample = stream.Sample(options.frames, options.share, options.seed)
    rules, settings = stream.Rules(max_force=options.max_force), _settings(options.settings)
    found = catalogue.describe(options.format, options.path, settings, rules, sample, _counted)
    return str(found), found.to_dict()


def _settings(given: list[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise InputError(f"--set needs KEY=VALUE, got {item!r}")
        found[name] = value
    return found


def _counted(blocks: Iterator[Any]) -> Iterator[Any]:
    from tqdm import tqdm

    with tqdm(unit=" frames", desc="reading", disable=not sys.stderr.isatty()) as bar:
        for block in blocks:
            bar.update(len(block))
            yield block
