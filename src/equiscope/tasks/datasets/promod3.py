"""Reader of ProMod3's structure database (``structure_db.dat`` of Debian's package promod3-data).

Layout, little endian, as found in version 3.2.1+ds-6 (Apache-2.0): a header of 77 bytes that begins with
the magic number 1234 and the format version 2; a table of contents: u32 number of entries, 4 zero bytes,
then per entry a PDB id and a chain name (u32 length + text each), u32 offset, u16 size, u16 number of the
first residue, three f32 shifts; then one array per property over all residues of all entries, each preceded
by a u64 count: one-letter sequence, N/CA/C/O coordinates (12 u16, Å = value × 0.01 + shift) and six more
(dihedrals, solvent accessibility, depth, DSSP state, two profiles) that are only checked for their length.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from equiscope.errors import DataError
from equiscope.tasks.datasets.protein_chains import ProteinChains, centred, rejection, require_some, tally

MAGIC, VERSION = 1234, 2
LICENCE = (
    "Coordinates from the Protein Data Bank (CC0-1.0) as selected and packed in the structure database of "
    "ProMod3 (Copyright 2013-2020 SIB Swiss Institute of Bioinformatics and Biozentrum, University of Basel; "
    "Apache-2.0), taken from Debian's package promod3-data."
)
_COUNT_AT, _ENTRIES_AT = 0x4D, 0x55
_BYTES_PER_RESIDUE = {
    "sequence": 1,
    "coordinates": 24,
    "dihedrals": 4,
    "solvent accessibility": 2,
    "depth": 2,
    "DSSP": 1,
    "amino acid frequencies": 40,
    "structure frequencies": 40,
}


@dataclass(frozen=True)
class _Entry:
    name: str
    offset: int
    size: int
    shift: tuple[float, float, float]


def read_structure_db(path: str | Path, shortest: int = 40, longest: int = 256) -> ProteinChains:
    """Every usable chain stretch of ``structure_db.dat``: contiguous, unique in sequence, centred.

    The file of promod3-data 3.2.1+ds-6 has 21,119 stretches with 4,561,225 residues; with the defaults
    13,859 chains with 2,055,570 residues are kept. Coordinates have a resolution of 0.01 Å. Stretches are
    the resolved parts of chains, so some are parts of longer chains.

    Raises:
        DataError: no such file, another magic number or version, unequal counts, or a truncated file.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no file {path}: unpack Debian's package promod3-data and give its structure_db.dat")
    blob = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)
    entries, at = _read_entries(blob, path)
    arrays = _locate_arrays(blob, at, path)
    sequence_at, residues = arrays["sequence"]
    last = max((entry.offset + entry.size for entry in entries), default=0)
    if last > residues:
        raise DataError(f"{path}: entries reach residue {last}, but the arrays hold {residues}; the file is damaged")
    letters = bytes(blob[sequence_at : sequence_at + residues]).decode("ascii", errors="replace")
    start = arrays["coordinates"][0]
    packed = blob[start : start + 24 * residues].view("<u2").reshape(residues, 4, 3)
    return _collect(entries, letters, packed, path, shortest, longest)


def _collect(
    entries: list[_Entry], letters: str, packed: np.ndarray, path: Path, shortest: int, longest: int
) -> ProteinChains:
    # By sequence: name and trace.
    kept: dict[str, tuple[str, np.ndarray]] = {}
    dropped: Counter[str] = Counter()
    for entry in entries:
        stretch = slice(entry.offset, entry.offset + entry.size)
        ca = packed[stretch, 1].astype(np.float64) * 0.01 + np.array(entry.shift)
        repeated = "same sequence as an earlier chain" if letters[stretch] in kept else None
        if reason := rejection(ca, shortest, longest) or repeated:
            dropped[reason] += 1
        else:
            kept[letters[stretch]] = entry.name, centred(ca)
    ids, traces = zip(*kept.values(), strict=True) if kept else ((), ())
    counts = tally(ids, dropped)
    chains = ProteinChains(ids, traces, tuple(kept), "ProMod3 structure database", LICENCE, counts)
    return require_some(chains, str(path))


def _read_entries(blob: np.ndarray, path: Path) -> tuple[list[_Entry], int]:
    if len(blob) < _ENTRIES_AT:
        raise DataError(f"{path} has {len(blob)} bytes: too short for a ProMod3 structure database")
    magic, version = struct.unpack("<II", bytes(blob[:8]))
    if magic != MAGIC:
        raise DataError(f"{path} is no ProMod3 database: it begins with {magic}, not with {MAGIC}")
    if version != VERSION:
        raise DataError(f"{path} has format version {version}; only version {VERSION} is known")
    (count,) = struct.unpack("<Q", bytes(blob[_COUNT_AT:_ENTRIES_AT]))
    entries, at = [], _ENTRIES_AT
    # Two u32 lengths and 20 bytes of numbers are the least an entry takes; a larger count is no count.
    if count * 28 > len(blob) - at:
        raise DataError(f"{path} announces {count} entries, more than its {len(blob)} bytes can hold")
    # The table is read as one block of bytes: indexing the memory map entry by entry is slow.
    table = bytes(blob[at : at + min(len(blob) - at, count * 64 + 64)])
    position = 0
    try:
        for _ in range(count):
            texts = []
            for _ in range(2):
                (length,) = struct.unpack_from("<I", table, position)
                texts.append(table[position + 4 : position + 4 + length].decode("ascii"))
                position += 4 + length
            offset, size, first, *shift = struct.unpack_from("<IHH3f", table, position)
            position += 20
            entries.append(_Entry(f"{texts[0]}_{texts[1]}_{first}", offset, size, tuple(shift)))
    except (struct.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: its table of contents ends or breaks at entry {len(entries)} of {count}") from error
    return entries, at + position


def _locate_arrays(blob: np.ndarray, at: int, path: Path) -> dict[str, tuple[int, int]]:
    """Where each property's array starts, and how many residues it has; all must agree and end the file."""
    found: dict[str, tuple[int, int]] = {}
    for name, width in _BYTES_PER_RESIDUE.items():
        if at + 8 > len(blob):
            raise DataError(f"{path} is truncated: it ends before its {name} array")
        (count,) = struct.unpack("<Q", bytes(blob[at : at + 8]))
        found[name] = (at + 8, count)
        first = found["sequence"][1]
        if count != first:
            raise DataError(f"{path}: {count} residues in its {name} array but {first} in its sequence")
        at += 8 + count * width
        if at > len(blob):
            raise DataError(f"{path} is truncated: its {name} array needs {at} bytes, the file has {len(blob)}")
    if at != len(blob):
        raise DataError(f"{path} has {len(blob) - at} bytes after its last array: not the layout of version {VERSION}")
    return found
