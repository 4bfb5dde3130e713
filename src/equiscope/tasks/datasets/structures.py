"""Reader of a folder of protein structures (mmCIF or PDB files, also compressed) through gemmi."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equiscope.errors import DataError, InputError
from equiscope.files import LARGEST_UNPACKED, PACKED, needed, text_lines
from equiscope.symmetry.orientation import Orientation, OrientationSum
from equiscope.tasks.datasets.orientation_bias import TOO_FEW, BiasTest, OrientationBias
from equiscope.tasks.datasets.protein_chains import (
    LONGEST_STEP,
    SHORTEST_STEP,
    ProteinChains,
    centred,
    read_npz,
    rejection,
    require_some,
    tally,
)
from equiscope.tasks.datasets.reading import Reading, Rejected
from equiscope.tasks.datasets.stream import Sample

PLAIN = (".cif", ".mmcif", ".pdb", ".ent")
ENDINGS = (*PLAIN, *(f"{ending}{packed}" for ending in PLAIN for packed in PACKED))
# Elements that an alpha carbon is read as: left-justified and without an element column, "CA" looks like calcium.
_CARBON = ("C", "Ca", "X")


@dataclass(frozen=True)
class _Residue:
    number: str
    letter: str
    ca: tuple[float, float, float]


@dataclass(frozen=True)
class Structures:
    """Chains as a format of the catalogue: a folder for :func:`read_structures`, or an npz for :func:`read_npz`."""

    path: str | Path

    def describe(self, sample: Sample) -> StructuresDescription:
        """All chains; a sample of them is not drawn: an InputError where one is asked for."""
        if sample.frames is not None or sample.share < 1:
            raise InputError("a folder of structures is described whole: leave out frames and share")
        packed = Path(self.path).suffix == ".npz"
        return StructuresDescription(read_npz(self.path) if packed else read_structures(self.path))


@dataclass(frozen=True)
class StructuresDescription:
    """Counts, lengths and orientation of chains."""

    chains: ProteinChains

    def orientation(self) -> Orientation | None:
        """Of the traces; None where no chain has a longest axis."""
        total = OrientationSum()
        for trace in self.chains.ca:
            total.add(torch.from_numpy(trace)[None])
        return total.result()

    @cached_property
    def orientation_bias(self) -> OrientationBias | None:
        """Whether a classifier tells the traces from turned ones; chains of one file (or entry) are one group."""
        test = BiasTest()
        for name, trace in zip(self.chains.ids, self.chains.ca, strict=True):
            test.add(name.split("_")[0], np.full(len(trace), 6), trace[None])
        return test.result()

    def __str__(self) -> str:
        found, lengths = self.orientation(), self.chains.lengths
        counts = ", ".join(f"{count:,} {reason}" for reason, count in self.chains.counts.items())
        lines = [
            f"{len(self.chains):,} chains, {lengths.min()} to {lengths.max()} residues, {lengths.sum():,} in all",
            str(found) if found else "orientation tensor: no chain has a longest axis",
            str(self.orientation_bias or TOO_FEW),
            "units of the file: positions Å (the mmCIF and PDB standards)",
            f"files and chains: {counts}",
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for a record."""
        found, lengths = self.orientation(), self.chains.lengths
        return {
            "chains": len(self.chains),
            "residues": [int(lengths.min()), int(lengths.max())],
            "orientation": found.to_dict() if found else None,
            "orientation_bias": self.orientation_bias.to_dict() if self.orientation_bias else None,
            "counts": dict(self.chains.counts),
        }


def read_structures(folder: str | Path, shortest: int = 40, longest: int = 256) -> ProteinChains:
    """Cα traces of all protein chains in a folder's structure files.

    Of each file the first model is read, of each residue the first alternative location of its Cα. Two residues with
    one author number are two residues: in mmCIF ``label_seq_id`` says so, elsewhere their places or 2.5 Å between Cα. A
    chain is cut where a residue has no Cα and where consecutive Cα lie farther apart than 4.2 Å; each stretch is then
    kept or counted under the reason it was left out. ``counts`` also tells how many files were read, how many chains
    were cut, and how many files or chains were unusable as a whole.

    A chain's id is its file's name, its own name and its first residue's number. Where files differ in their endings
    alone, equal chains are read once and others take the whole file name.

    Raises:
        DataError: no such folder, no structure file in it, or no usable chain (with all counts).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: give a folder of mmCIF or PDB files")
    files = sorted(path for path in folder.iterdir() if path.name.lower().endswith(ENDINGS))
    if not files:
        raise DataError(f"{folder} has no structure file: names must end in {', '.join(ENDINGS)}")
    found: dict[str, tuple[np.ndarray, str]] = {}
    dropped: Counter[str] = Counter()
    reading = Reading[tuple[Path, str, list[_Residue]]](folder, dropped, "file")
    for path, name, stretch in reading.each(files, lambda path: _stretches(path, dropped)):
        ca = np.array([residue.ca for residue in stretch])
        if reason := rejection(ca, shortest, longest):
            dropped[reason] += 1
            continue
        chain = (centred(ca), "".join(residue.letter for residue in stretch))
        own = f"{_stem(path)}_{name}"
        if own in found and _equal(found[own], chain):
            dropped["same name as an earlier chain"] += 1
            continue
        names = (own, f"{path.name}_{name}", *(f"{path.name}_{name}.{k}" for k in range(2, len(found) + 3)))
        found[next(free for free in names if free not in found)] = chain
    chains = ProteinChains(
        ids=tuple(found),
        ca=tuple(ca for ca, _ in found.values()),
        sequences=tuple(sequence for _, sequence in found.values()),
        source=f"folder {folder.name}",
        counts=tally(list(found), dropped) | {"files": len(files)},
    )
    return require_some(chains, str(folder))


def _stem(path: Path) -> str:
    """A file's name without the ending of its format: what stands before it may hold dots."""
    ending = next(ending for ending in sorted(ENDINGS, key=len, reverse=True) if path.name.lower().endswith(ending))
    return path.name[: -len(ending)]


def _equal(one: tuple[np.ndarray, str], other: tuple[np.ndarray, str]) -> bool:
    """Whether two chains are one, to the three decimals of the formats."""
    return one[1] == other[1] and bool(np.abs(one[0] - other[0]).max() < 5e-3)


def _stretches(path: Path, dropped: Counter[str]) -> Iterator[tuple[Path, str, list[_Residue]]]:
    """Contiguous stretches of the protein chains of one file, each with its chain's name and first number."""
    gemmi = needed("gemmi")
    structure = _structure(path, dropped)
    if len(structure) == 0 or len(structure[0]) == 0:
        raise Rejected("file without atoms")
    found = False
    for chain in structure[0]:
        polymer = chain.get_polymer()
        if polymer.check_polymer_type() not in (gemmi.PolymerType.PeptideL, gemmi.PolymerType.PeptideD):
            # gemmi calls a lone amino acid no polymer; it is a protein chain of one residue all the same.
            if len(chain) == 1 and gemmi.find_tabulated_residue(chain[0].name).is_amino_acid():
                dropped["one residue"] += 1
                found = True
            continue
        found = True
        residues = list(_residues(polymer))
        if missing := sum(residue is None for residue in residues):
            dropped["residue without CA (chain cut there)"] += missing
        if any(residue is not None and not np.isfinite(residue.ca).all() for residue in residues):
            dropped["coordinates not finite"] += 1
            continue
        for stretch in _cut(residues, dropped):
            yield path, f"{chain.name}_{stretch[0].number}", stretch
    if not found:
        raise Rejected("file without a protein chain")


def _structure(path: Path, dropped: Counter[str]) -> Any:
    gemmi = needed("gemmi")
    lines, size = [], 0
    for line in text_lines(path, "structure file", dropped):
        size += len(line)
        if size > LARGEST_UNPACKED:
            raise DataError(f"{path} is larger than any structure")
        lines.append(line)
    # Content decides: the endings of the two formats are mixed up.
    if next((line for line in lines if line.strip() and line[0] != "#"), "").lower().startswith("data_"):
        block = gemmi.cif.read_string("".join(lines)).sole_block()
        _number_cif(block)
        structure = gemmi.make_structure_from_block(block)
    else:
        structure = gemmi.read_pdb_string("".join(_numbered_pdb(lines)))
    structure.merge_chain_parts()
    structure.setup_entities()
    return structure


def _number_cif(block: Any) -> None:
    """Number the residues of an mmCIF file by their places, where author numbers do not tell them apart."""
    names = ("group_PDB", "label_alt_id", "pdbx_PDB_model_num", "auth_asym_id", "pdbx_PDB_ins_code", "auth_seq_id")
    columns = {name: block.find_values(f"_atom_site.{name}") for name in (*names, "label_seq_id")}
    rows = len(columns["auth_seq_id"])
    kinds, locations, *keys = (list(column) if len(column) == rows else ["?"] * rows for column in columns.values())
    atoms = [row for row in range(rows) if kinds[row] != "HETATM"]
    places = _places([tuple(key[row] for key in keys) for row in atoms], [locations[row] not in ".?" for row in atoms])
    for row, place in zip(atoms, places, strict=False):
        columns["auth_seq_id"][row] = str(place)
        if len(columns["pdbx_PDB_ins_code"]):
            columns["pdbx_PDB_ins_code"][row] = "?"


def _numbered_pdb(lines: list[str]) -> list[str]:
    """The lines of a PDB file, its residues numbered by their places where their own numbers do not tell them apart."""
    atoms: list[int] = []
    keys: list[tuple[str, ...]] = []
    model = 0
    for row, line in enumerate(lines):
        model += line.startswith("MODEL ")
        if line.startswith("ATOM  "):
            atoms.append(row)
            keys.append((str(model), line[21:22], line[22:27], "."))
    places = _places(keys, [lines[row][16:17].strip() != "" for row in atoms])
    numbered = list(lines)
    for row, place in zip(atoms, places, strict=False):
        numbered[row] = f"{lines[row][:22]}{place % 10_000:4d} {lines[row][27:]}"
    return numbered


# keys: (…, author number, label_seq_id) of each atom; alternative: whether it names an alternative location.
def _places(keys: list[tuple[str, ...]], alternative: list[bool]) -> list[int]:
    """1, 2, … for each atom's residue if residues share a key or one comes back after others; else nothing."""
    place_of: dict[tuple[str, ...], int] = {}
    places: list[int] = []
    last, again, next_place = None, False, 1
    for key, other in zip(keys, alternative, strict=True):
        if key != last and not (other and key in place_of):
            again |= key in place_of
            place_of[key], next_place = next_place, next_place + 1
        last = key
        places.append(place_of[key])
    shared = len({key[:-1] for key in place_of}) < len(place_of)
    return places if again or shared else []


def _residues(polymer: Any) -> Iterator[_Residue | None]:
    """The residues of a chain in order, ``None`` for one without a Cα.

    What shares a number is one residue in several locations, of which the first is taken, unless its Cα are too far
    apart for that: then the numbers are at fault, and each is a residue.
    """
    gemmi = needed("gemmi")
    for number, together in groupby(polymer, key=lambda residue: str(residue.seqid)):
        carbons = [
            (gemmi.find_tabulated_residue(residue.name).one_letter_code.upper().strip() or "X", atom)
            for residue in together
            for atom in residue
            if atom.name == "CA" and atom.element.name in _CARBON
        ]
        if not carbons:
            yield None
        last: _Residue | None = None
        for letter, atom in carbons:
            place = (atom.pos.x, atom.pos.y, atom.pos.z)
            apart = last is None or float(np.linalg.norm(np.subtract(place, last.ca))) >= SHORTEST_STEP
            if atom.altloc == carbons[0][1].altloc and apart:
                last = _Residue(number, letter, place)
                yield last


def _cut(residues: list[_Residue | None], dropped: Counter[str]) -> Iterator[list[_Residue]]:
    stretches: list[list[_Residue]] = [[]]
    for residue in residues:
        if residue is None:
            stretches.append([])
            continue
        if stretches[-1] and np.linalg.norm(np.subtract(residue.ca, stretches[-1][-1].ca)) > LONGEST_STEP:
            dropped[f"chain break (CA-CA farther than {LONGEST_STEP} Å; chain cut there)"] += 1
            stretches.append([])
        stretches[-1].append(residue)
    yield from filter(None, stretches)
