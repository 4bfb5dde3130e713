"""Write Cα traces as mmCIF and PDB files through gemmi."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from equiscope.errors import DataError, InputError
from equiscope.files import needed
from equiscope.writing import write_atomically

FORMATS = ("cif", "pdb")


def write_trace(ca: np.ndarray, path: str | Path, name: str = "sample", sequence: str | None = None) -> None:
    """One chain A of CA atoms; the ending of ``path`` (.cif or .pdb) chooses the format.

    Args:
        ca: (L, 3) in Å.
        sequence: one-letter codes; glycine throughout where a chain has none (a drawn backbone).

    Raises:
        DataError: coordinates that are not finite, or too large for the PDB format (±999 Å).
        InputError: another ending, a wrong shape, or a sequence of another length.
    """
    path, ca = Path(path), np.asarray(ca, dtype=np.float64)
    ending = path.suffix.lstrip(".").lower()
    if ending not in FORMATS:
        raise InputError(f"traces are written as {' or '.join(FORMATS)}, got the file name {path.name}")
    letters = sequence or "G" * len(ca)
    if ca.ndim != 2 or ca.shape[1] != 3 or not len(ca) or len(letters) != len(ca):
        raise InputError(f"a trace must be (L, 3) with as many letters, got {ca.shape} and {len(letters)}")
    if not np.isfinite(ca).all():
        raise DataError(f"the trace {name} has coordinates that are not finite: it cannot be written")
    if ending == "pdb" and np.abs(ca).max() >= 999:
        raise DataError(f"a coordinate of {np.abs(ca).max():.0f} Å does not fit the PDB format: write mmCIF")
    structure = _structure(ca, letters, name)
    text = structure.make_pdb_string() if ending == "pdb" else structure.make_mmcif_document().as_string()
    write_atomically(path, text.encode())


def _structure(ca: np.ndarray, letters: str, name: str):
    gemmi = needed("gemmi")
    structure, model, chain = gemmi.Structure(), gemmi.Model(1), gemmi.Chain("A")
    structure.name = name
    for number, (letter, place) in enumerate(zip(letters, ca.tolist(), strict=True), start=1):
        residue = gemmi.Residue()
        residue.name = gemmi.expand_one_letter(letter, gemmi.ResidueKind.AA) or "UNK"
        residue.seqid = gemmi.SeqId(number, " ")
        atom = gemmi.Atom()
        atom.name, atom.element, atom.occ = "CA", gemmi.Element("C"), 1.0
        atom.pos = gemmi.Position(*place)
        residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    structure.assign_label_seq_id()
    return structure
