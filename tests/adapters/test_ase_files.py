"""Files of structures for the ASE door: a frame that cannot be read is a failed row with ASE's reason."""

import bz2
import gzip
import lzma

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.units import Bohr, GPa, Hartree

from equiscope.adapters import ase as door
from equiscope.adapters.ase_files import read
from equiscope.errors import DataError, InputError

FRAME = (
    '2\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.0 pbc="F F F"\nCu 0 0 0 0.1 0 0\nCu 2.2 0 0 -0.1 0 0\n'
)
BAD = FRAME.replace("Cu 2.2", "29 2.2")


def measure(structures, **settings):
    return door.measure(EMT(), structures, progress=False, **settings)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_bad_frame_keeps_its_place_and_reason(tmp_path):
    path = write(tmp_path / "a.xyz", FRAME + BAD + FRAME.replace("pbc", "unit=Å pbc"))
    for settings in ({}, {"labels": True}, {"labels": {"forces": "forces"}}):
        result = measure(path, outputs=["forces"], **settings)
        assert [row.status for row in result.rows] == ["measured", "failed", "measured"]
        assert result.rows[1].message == "DataError: ASE cannot read this frame: KeyError: '29'"
    with pytest.raises(DataError, match="KeyError: '29'"):
        measure(path, outputs=["forces"], on_error="raise")
    assert len(read(path, "0")) == 1
    assert len(read(path, "::2")) == 2
    with pytest.raises(DataError, match=r"none of its 2 frames can be read; the first: KeyError: '29'"):
        read(write(tmp_path / "b.xyz", BAD * 2))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_other_bytes_and_compressed_files(tmp_path, pack):
    content = FRAME.replace("pbc", "unit=Å pbc").encode("latin-1")
    name = {gzip.compress: "a.xyz.gz", bz2.compress: "a.extxyz.bz2", lzma.compress: "a.xyz.xz"}[pack]
    (atoms,) = read(write(tmp_path / name, pack(content)))
    assert atoms.positions.tolist() == [[0, 0, 0], [2.2, 0, 0]]


def test_what_ase_reads_otherwise_is_read_the_same(tmp_path):
    structures = [molecule("H2O"), bulk("Cu", cubic=True)]
    for name in ("a.xyz", "a.extxyz", "a.traj", "a.json"):
        ase.io.write(tmp_path / name, structures)
        for one, other in zip(read(tmp_path / name), structures, strict=True):
            np.testing.assert_allclose(one.positions, other.positions, atol=1e-8)
            assert (one.pbc == other.pbc).all()


def labelled(output, key, value):
    """Two structures whose label is EMT's own under another name."""
    made = []
    for seed in (1, 2):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        bare = atoms.copy()
        stored = bare.arrays if output == "forces" else bare.info
        stored[key] = value(results[output], atoms)
        made.append(bare)
    return made


def virial(stress, atoms):
    xx, yy, zz, yz, xz, xy = -stress * atoms.get_volume()
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


@pytest.mark.parametrize(
    ("output", "key", "value"),
    [
        ("forces", "dft_gradient", lambda forces, atoms: -forces),
        ("energy", "energy_per_atom", lambda energy, atoms: energy / len(atoms)),
        ("stress", "virial", virial),
        ("stress", "REF_virials", lambda stress, atoms: virial(stress, atoms)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]),
        ("stress", "dft_stress", lambda stress, atoms: (-virial(stress, atoms) / atoms.get_volume()).ravel()),
    ],
)
def test_labels_named_as_something_else_are_converted(output, key, value):
    made = labelled(output, key, value)
    result = measure(made, outputs=[output], labels={output: key})
    assert result.result.total < 1e-24
    assert any(f"label '{key}' is taken as" in note for note in result.notes) == (key != "dft_stress")
    with pytest.raises(InputError, match="a likely key"):
        measure(made, outputs=[output], labels=True)


def test_a_virial_has_units_of_energy():
    made = labelled("stress", "virial", virial)
    assert "give its energy_unit, not a stress_unit" in str(_error(made, stress_unit="GPa"))
    for atoms in made:
        atoms.set_cell(atoms.cell / Bohr, scale_atoms=True)
        atoms.info["virial"] /= Hartree
    settings = {"outputs": ["stress"], "labels": {"stress": "virial"}}
    assert measure(made, **settings, energy_unit="Hartree", length_unit="Bohr").result.total < (1e-9 * GPa) ** 2


def _error(structures, **settings):
    with pytest.raises(InputError) as error:
        measure(structures, outputs=["stress"], labels={"stress": "virial"}, **settings)
    return error.value


class Turned(EMT):
    """Answers one orientation alone, as an engine with a box of standard orientation does."""

    def calculate(self, atoms=None, *more):
        if np.abs(np.triu(atoms.cell.array, 1)).max() > 1e-9:
            raise ValueError("box must be lower-triangular")
        super().calculate(atoms, *more)


class Broken(EMT):
    def calculate(self, *more):
        raise ValueError("never an answer")


def test_a_failure_on_turned_copies_alone_is_told_from_one_as_given():
    crystal = [bulk("Cu", cubic=True)]
    with pytest.raises(InputError, match=r"on a turned copy .*ValueError: box must be .*as given it answers"):
        door.measure(Turned(), crystal, progress=False)
    with pytest.raises(InputError, match="never an answer") as error:
        door.measure(Broken(), crystal, progress=False)
    assert "turned copy" not in str(error.value)


def test_isolated_atoms_are_samples_and_no_element_is_one_failed_row():
    result = measure([Atoms("Cu"), Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]])])
    assert [row.status for row in result.rows] == ["measured", "measured"]
    wrong = Atoms(numbers=[29, 130], positions=[[0, 0, 0], [0, 0, 2]])
    result = measure([wrong, molecule("H2")], outputs=["forces"])
    assert [row.status for row in result.rows] == ["failed", "measured"]
    assert "atomic numbers must be 0 … 118, got [ 29 130]" in result.rows[0].message
