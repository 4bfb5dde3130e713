"""Reader of a folder of protein structures (mmCIF or PDB files, also gzipped) through gemmi."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from equiscope.errors import DataError
from equiscope.tasks.datasets.protein_chains import (
    LONGEST_STEP,
    ProteinChains,
    centred,
    rejection,
    require_some,
    tally,
)

ENDINGS = (".cif", ".mmcif", ".pdb", ".ent", ".cif.gz", ".mmcif.gz", ".pdb.gz", ".ent.gz")


@dataclass(frozen=True)
class _Residue:
    number: str
    letter: str
    ca: tuple[float, float, float]


def read_structures(folder: str | Path, shortest: int = 40, longest: int = 256) -> ProteinChains:
    """Cα traces of all protein chains in a folder's structure files.

    Of each file the first model is read, of each residue the first alternative location of its Cα.
    A chain is cut where a residue has no Cα and where consecutive Cα lie farther apart than 4.2 Å; each
    stretch is then kept or counted under the reason it was left out. ``counts`` also tells how many files
    were read, how many chains were cut, and how many files or chains were unusable as a whole.

    Raises:
        DataError: no such folder, no structure file in it, or no usable chain (with all counts).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: give a folder of mmCIF or PDB files")
    files = sorted(path for path in folder.iterdir() if path.name.lower().endswith(ENDINGS))
    if not files:
        raise DataError(f"{folder} has no structure file: names must end in {', '.join(ENDINGS)}")
    ids: list[str] = []
    traces: list[np.ndarray] = []
    sequences: list[str] = []
    dropped: Counter[str] = Counter()
    for path in files:
        for name, stretch in _stretches(path, dropped):
            ca = np.array([residue.ca for residue in stretch])
            reason = rejection(ca, shortest, longest)
            if reason is None and name in ids:
                reason = "same name as an earlier chain"
            if reason:
                dropped[reason] += 1
                continue
            ids.append(name)
            traces.append(centred(ca))
            sequences.append("".join(residue.letter for residue in stretch))
    counts = tally(ids, dropped) | {"files": len(files)}
    chains = ProteinChains(tuple(ids), tuple(traces), tuple(sequences), source=f"folder {folder.name}", counts=counts)
    return require_some(chains, str(folder))


def _stretches(path: Path, dropped: Counter[str]) -> Iterator[tuple[str, list[_Residue]]]:
    """Contiguous stretches of the protein chains of one file, each with its name."""
    import gemmi

    try:
        structure = gemmi.read_structure(str(path))
        structure.setup_entities()
    except Exception:
        # gemmi raises many types for damaged files; whichever it was, the file is unusable and counted.
        dropped["file that cannot be read"] += 1
        return
    if len(structure) == 0 or len(structure[0]) == 0:
        dropped["file without atoms"] += 1
        return
    stem = path.name.split(".")[0]
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
        residues = [_residue(residue) for residue in polymer.first_conformer()]
        missing = sum(residue is None for residue in residues)
        if missing:
            dropped["residue without CA (chain cut there)"] += missing
        if any(residue is not None and not np.isfinite(residue.ca).all() for residue in residues):
            dropped["coordinates not finite"] += 1
            continue
        for stretch in _cut(residues, dropped):
            yield f"{stem}_{chain.name}_{stretch[0].number}", stretch
    if not found:
        dropped["file without a protein chain"] += 1


def _residue(residue) -> _Residue | None:
    """The residue's first Cα, or ``None``; calcium ions are also called CA, so the element is asked for."""
    import gemmi

    for atom in residue:
        if atom.name == "CA" and atom.element.name == "C":
            letter = gemmi.find_tabulated_residue(residue.name).one_letter_code.upper().strip() or "X"
            return _Residue(str(residue.seqid), letter, (atom.pos.x, atom.pos.y, atom.pos.z))
    return None


def _cut(residues: list[_Residue | None], dropped: Counter[str]) -> Iterator[list[_Residue]]:
    stretch: list[_Residue] = []
    for residue in residues:
        if residue is not None and stretch:
            gap = float(np.linalg.norm(np.subtract(residue.ca, stretch[-1].ca)))
            if gap > LONGEST_STEP:
                dropped[f"chain break (CA-CA farther than {LONGEST_STEP} Å; chain cut there)"] += 1
                yield stretch
                stretch = []
        if residue is not None:
            stretch.append(residue)
        elif stretch:
            yield stretch
            stretch = []
    if stretch:
        yield stretch
