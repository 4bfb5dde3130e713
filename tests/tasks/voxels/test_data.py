"""Conformers in memory: centred, split by molecule, what does not fit is counted or refused; voxel noise."""

import numpy as np
import pytest
import torch

from equiscope.errors import DataError, InputError, IntegrityError
from equiscope.tasks.datasets.store import read
from equiscope.tasks.voxels.data import load, noise_grids
from equiscope.tasks.voxels.generate import ConformerData, generate
from equiscope.tasks.voxels.voxelise import Grid

SMILES = ["CCO", "CCN", "CC(C)O", "CCCO", "CCCN", "CCOC", "CC=O", "CC(=O)C", "CCCC", "CBr", "C[N+](C)(C)C", "x", ""]
GRID = Grid(size=20)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conformers")
    source = folder / "few.smi"
    source.write_text("\n".join(f"{s} name" if s else "" for s in SMILES))
    path = folder / "few.npz"
    config = ConformerData(conformers=2, min_atoms=2, seed=10, smiles=str(source), path=str(path))
    generate(config, workers=1, progress=False)
    return source, path


def test_conformers_are_centred_and_their_molecules_counted(file):
    arrays, metadata = read(file[1])
    assert metadata["counts"]["molecules used"] == len(arrays["atoms"]) == 9
    assert metadata["counts"]["molecules rejected"] == {"charged": 1, "element": 1, "unreadable": 1}
    found = load(file[1], GRID)
    means = [found.pos[i][found.mask[i]].mean(0).abs().max() for i in range(len(found))]
    assert max(means) < 1e-5
    owners = [set(found.molecule[found.part == p].tolist()) for p in range(3)]
    assert len(set.union(*owners)) == sum(map(len, owners)) == 9
    described = found.describe()
    assert described["conformers"] == len(found) == 18
    assert described["orientation as embedded"]["eigenvalues"][2] > 0.5


def test_what_does_not_fit_is_counted_and_nothing_that_fits_is_refused(file):
    tight = Grid(size=10, resolution=0.8, elements=(1, 6, 8))
    found = load(file[1], tight)
    counts = found.metadata["counts"]["conformers rejected"]
    # Two molecules with nitrogen; a reach of 2.48 Å leaves out the longer ones.
    assert counts["element without a channel"] == 4
    assert counts["outside the grid"] + len(found) == 14
    assert counts["outside the grid"] > 0
    assert found.pos.norm(dim=-1).max() <= tight.reach
    with pytest.raises(DataError, match=r"no conformer of part 'train' fits the grid .* the grid holds 0\.00 Å"):
        load(file[1], Grid(size=4, elements=(1, 6, 8)))


def test_damaged_and_foreign_files_are_refused(file, tmp_path):
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(file[1].read_bytes()[:-100] + bytes(100))
    with pytest.raises(IntegrityError):
        load(damaged, GRID)
    np.savez(tmp_path / "foreign.npz", a=np.zeros(3))
    with pytest.raises(IntegrityError):
        load(tmp_path / "foreign.npz", GRID)


def test_noise_is_normal_and_a_function_of_its_seed():
    noise = noise_grids(torch.tensor([5, 6, 5]), Grid(size=20), 0.3)
    assert torch.equal(noise[0], noise[2])
    assert float((noise[0] * noise[1]).mean()) == pytest.approx(0, abs=0.002)
    assert float(noise.std()) == pytest.approx(0.3, rel=0.01)
    for sigma in (-1.0, float("nan")):
        with pytest.raises(InputError, match="sigma"):
            noise_grids(torch.tensor([1]), Grid(size=4), sigma)
