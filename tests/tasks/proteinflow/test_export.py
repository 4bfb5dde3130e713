"""Tests of written traces: read back with gemmi and with the library's own reader."""

import numpy as np
import pytest

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets.structures import read_structures
from equiscope.tasks.proteinflow.export import write_trace
from tests.tasks.datasets.test_protein_chains import helix


@pytest.mark.parametrize("ending", ["cif", "pdb"])
def test_a_written_trace_is_read_back(tmp_path, ending):
    ca = helix(50) - 20
    write_trace(ca, tmp_path / f"a.{ending}", "drawn", "ACDEFGHIKL" * 5)
    chains = read_structures(tmp_path)
    assert np.abs(chains.ca[0] - (ca - ca.mean(0))).max() < 2e-3
    assert chains.sequences == ("ACDEFGHIKL" * 5,)


def test_atoms_are_numbered_ca_of_glycine_in_chain_a(tmp_path):
    import gemmi

    write_trace(helix(5), tmp_path / "a.pdb")
    (chain,) = gemmi.read_structure(str(tmp_path / "a.pdb"))[0]
    assert chain.name == "A"
    assert [(r.name, r.seqid.num, [a.name for a in r]) for r in chain] == [("GLY", i, ["CA"]) for i in range(1, 6)]
    assert chain[2][0].pos.tolist() == pytest.approx(helix(5)[2].tolist(), abs=1e-3)


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(InputError, match="cif or pdb"):
        write_trace(helix(5), tmp_path / "a.xyz")
    with pytest.raises(InputError, match=r"\(L, 3\)"):
        write_trace(helix(5), tmp_path / "a.cif", sequence="AC")
    with pytest.raises(DataError, match="not finite"):
        write_trace(np.full((5, 3), np.nan), tmp_path / "a.cif")
    with pytest.raises(DataError, match="write mmCIF"):
        write_trace(helix(5) + 2000, tmp_path / "a.pdb")
    write_trace(helix(5) + 2000, tmp_path / "a.cif")
