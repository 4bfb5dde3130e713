"""A folder of memory-mapped arrays: frames of any size in any order, without reading the rest.

Data sets are converted into it once, because random access into their own formats is slow (an HDF5 group opened and
unpacked for every sample) or impossible (text, JSON), and differs from one to the next. It costs 25 bytes an atom.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiscope.errors import DataError, IntegrityError
from equiscope.files import readable
from equiscope.tasks.datasets.blocks import Block

FORMAT, FORMAT_VERSION = "equiscope-frames", 1
METADATA = "metadata.json"
# Name -> type and columns; an atom's rows lie one after another, a frame's too.
ARRAYS = {
    "positions": ("<f4", 3),
    "forces": ("<f4", 3),
    "species": ("|u1", 1),
    "atoms": ("<i4", 1),
    "energy": ("<f8", 1),
    "molecule": ("<i4", 1),
}


@dataclass(frozen=True)
class Mapped:
    """F frames, A atoms in all.

    Attributes:
        positions, forces: (A, 3) float32, Å (each frame centred on its mean) and eV/Å, on disk.
        species: (A,) uint8 atomic numbers, on disk.
        atoms: (F,) int32 atoms of a frame; starts: (F,) int64, where they begin.
        energy: (F,) float64 eV; molecule: (F,) int32, which group a frame belongs to: 0, 1, …
        metadata: what was written with them.
    """

    positions: np.ndarray
    forces: np.ndarray
    species: np.ndarray
    atoms: np.ndarray
    energy: np.ndarray
    molecule: np.ndarray
    starts: np.ndarray
    metadata: dict[str, Any]

    def checksum(self) -> str:
        """SHA-256 over those of the arrays, against which they were checked."""
        return hashlib.sha256(json.dumps(self.metadata["arrays"], sort_keys=True).encode()).hexdigest()

    def rows(self, frames: np.ndarray) -> np.ndarray:
        """Rows of the atoms of these frames, one frame after another."""
        atoms = self.atoms[frames].astype(np.int64)
        ends = np.cumsum(atoms)
        return np.arange(ends[-1]) + np.repeat(self.starts[frames] - (ends - atoms), atoms)


def write(path: str | Path, blocks: Iterable[Block], metadata: Mapping[str, Any]) -> Path:
    """Write labelled frames to the folder ``path``, at once or not at all; memory does not grow with their number.

    ``metadata`` is asked for its items after the last block, so that counts may still be filled in.

    Raises:
        DataError: frames with a cell, without energy or forces, or no frame at all.
    """
    path = Path(path)
    # A random name: in a container every start has the same process number.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    temporary.mkdir(parents=True)
    digests = {name: hashlib.sha256() for name in ARRAYS}
    counts = dict.fromkeys(ARRAYS, 0)
    groups: dict[str, int] = {}
    try:
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context((temporary / f"{name}.bin").open("wb")) for name in ARRAYS}
            for block in blocks:
                for name, array in _arrays(block, groups).items():
                    content = np.ascontiguousarray(array, dtype=ARRAYS[name][0]).tobytes()
                    files[name].write(content)
                    digests[name].update(content)
                    counts[name] += len(content)
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
        if not groups:
            raise DataError("no frame is left to write: see what was left out, and why, in `equiscope data describe`")
        about = {
            **metadata,
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "groups": len(groups),
            "arrays": {name: {"bytes": counts[name], "sha256": digests[name].hexdigest()} for name in ARRAYS},
        }
        about["sha256"] = _digest(about)
        (temporary / METADATA).write_text(json.dumps(about, indent=1, sort_keys=True, allow_nan=False))
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _arrays(block: Block, groups: dict[str, int]) -> dict[str, np.ndarray]:
    if block.cell is not None:
        raise DataError(
            f"{block.group} is periodic, and this task has no cell: such sets can be read and described, not trained on"
        )
    if missing := [name for name in ("energy", "forces") if getattr(block, name) is None]:
        raise DataError(f"{block.group} has no {' and no '.join(missing)}: training needs both")
    frames, atoms = len(block), len(block.numbers)
    group = groups.setdefault(block.group, len(groups))
    return {
        "positions": block.positions - block.positions.mean(1, keepdims=True),
        "forces": block.forces,
        "species": np.tile(block.numbers, frames),
        "atoms": np.full(frames, atoms),
        "energy": block.energy,
        "molecule": np.full(frames, group),
    }


def metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a folder; a DataError where there is none or another kind of folder."""
    file = Path(path) / METADATA
    if not file.is_file():
        raise DataError(f"no data folder at {path}: convert a data set first, or check the path")
    try:
        about: dict[str, Any] = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{file} is damaged ({error}); delete the folder and convert again") from error
    if not isinstance(about, dict):
        raise IntegrityError(f"{file} is damaged: it holds no description; delete the folder and convert again")
    if about.get("format") != FORMAT or about.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{path} holds {about.get('format')!r} version {about.get('format_version')}, "
            f"not {FORMAT!r} version {FORMAT_VERSION}; convert the data set again"
        )
    if about.get("sha256", "") not in ("", _digest(about)):
        raise IntegrityError(f"{file} is damaged: it does not match its SHA-256; delete the folder and convert again")
    return about


def read(path: str | Path) -> Mapped:
    """Open a folder made by :func:`write`; every array is checked against its SHA-256 (an IntegrityError), piece by
    piece.
    """
    path, about = Path(path), metadata(path)
    with readable(path / METADATA, "description of converted frames"):
        stated = {name: dict(about["arrays"][name]) for name in ARRAYS}
        groups = int(about["groups"])
    arrays: dict[str, np.ndarray] = {}
    for name, (dtype, columns) in ARRAYS.items():
        file = path / f"{name}.bin"
        _verify(file, stated[name])
        # As the base class: a memory-mapped subclass makes every small index slower.
        array = np.asarray(np.memmap(file, dtype=dtype, mode="r"))
        arrays[name] = array.reshape(-1, columns) if columns > 1 else array
    if len(np.unique(arrays["molecule"])) != groups:
        raise IntegrityError(f"{path / METADATA} is damaged: it says {groups} groups; convert the data set again")
    atoms = arrays["atoms"].astype(np.int64)
    return Mapped(**arrays, starts=np.cumsum(atoms) - atoms, metadata=about)


def _digest(about: Mapping[str, Any]) -> str:
    body = {name: value for name, value in about.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _verify(file: Path, stated: Mapping[str, Any]) -> None:
    found = ""
    if file.is_file():
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != stated["sha256"]:
        raise IntegrityError(f"{file} is missing or damaged: it does not match its SHA-256; convert the data set again")
