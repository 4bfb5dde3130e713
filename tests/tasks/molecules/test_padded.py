"""Dense molecules: equal to the flat file row by row, padded batches, counts by part."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from equiscope.errors import DataError, InputError
from equiscope.symmetry.orientation import orientation
from equiscope.tasks.datasets import store
from equiscope.tasks.molecules.padded import PaddedSet, check_batch, describe_split, read
from equiscope.tasks.molecules.recipe import Recipe, join

ATOMS, TIMES = [3, 1, 4], [2, 1, 3]


@dataclass(frozen=True, kw_only=True)
class Geometries(Recipe):
    FORMAT = "geometries"


@pytest.fixture(scope="module")
def flat():
    rng = np.random.default_rng(0)
    rows = sum(n * k for n, k in zip(ATOMS, TIMES, strict=True))
    return {
        "atoms": np.array(ATOMS, dtype=np.int32),
        "times": np.array(TIMES, dtype=np.int32),
        "species": rng.integers(1, 9, sum(ATOMS)).astype(np.uint8),
        "positions": rng.normal(size=(rows, 3)).astype(np.float32),
        "value": rng.normal(size=sum(TIMES)),
    }


@pytest.fixture(scope="module")
def path(flat, tmp_path_factory):
    about = {"format": "geometries", "format_version": 1}
    return store.write(tmp_path_factory.mktemp("padded") / "x.npz", flat, about)


@pytest.fixture
def made(path):
    tensors = {name: torch.from_numpy(array) for name, array in read(path, Geometries, "times")[0].items()}
    metadata = dict.fromkeys(("config", "source", "method", "versions", "counts"), "x")
    del tensors["value"]
    part = torch.tensor([0, 0, 2, 1, 1, 1])
    return PaddedSet(pos=tensors.pop("positions"), part=part, metadata=metadata, **tensors)


def test_dense_arrays_hold_the_rows_of_the_file(path, flat):
    dense, metadata = read(path, Geometries, "times")
    assert metadata["format"] == "geometries"
    row = frame = start = 0
    for molecule, (atoms, times) in enumerate(zip(ATOMS, TIMES, strict=True)):
        for _ in range(times):
            assert dense["molecule"][frame] == molecule
            assert dense["atoms"][frame] == atoms
            assert dense["mask"][frame].tolist() == [True] * atoms + [False] * (4 - atoms)
            assert dense["species"][frame].tolist() == [*flat["species"][start : start + atoms], *[0] * (4 - atoms)]
            assert np.array_equal(dense["positions"][frame, :atoms], flat["positions"][row : row + atoms])
            assert not dense["positions"][frame, atoms:].any()
            row, frame = row + atoms, frame + 1
        start += atoms
    assert np.array_equal(dense["value"], flat["value"])
    assert dense.keys() == {"atoms", "molecule", "mask", "species", "positions", "value"}


def test_reading_undoes_joining(path, flat, tmp_path):
    dense = read(path, Geometries, "times")[0]
    each = []
    for molecule, atoms in enumerate(ATOMS):
        rows = dense["molecule"] == molecule
        geometries = {"positions": dense["positions"][rows, :atoms], "value": dense["value"][rows]}
        each.append({"species": dense["species"][rows][0, :atoms].astype(np.uint8), **geometries})
    joined = join(each, "times")
    assert joined.keys() == flat.keys()
    assert all(np.array_equal(joined[name], flat[name]) and joined[name].dtype == flat[name].dtype for name in flat)


def test_files_of_another_kind_or_version_are_refused(path, flat, tmp_path):
    for about in ({"format": "others", "format_version": 1}, {"format": "geometries", "format_version": 2}):
        with pytest.raises(DataError, match="not 'geometries' version 1"):
            read(store.write(tmp_path / "x.npz", flat, about), Geometries, "times")


def test_batches_are_padded_to_their_largest(made):
    batch, rows = made.batch([2, 1]), torch.tensor([2, 1])
    assert list(batch) == ["pos", "species", "mask", "molecule", "id"]
    assert batch["id"].tolist() == [2, 1]
    assert batch["molecule"].tolist() == [1, 0]
    for name in ("pos", "species", "mask"):
        assert torch.equal(batch[name], getattr(made, name)[rows, :3])


def test_wrong_numbers():
    atoms = torch.tensor([3, 5])
    assert check_batch([1, 0], atoms)[1] == 5
    for indices, message in (([], "non-empty"), ([2], r"0\.\.1, got 2")):
        with pytest.raises(InputError, match=message):
            check_batch(indices, atoms)


def test_parts_and_counts(made):
    assert [made.indices(part).tolist() for part in ("train", "track", "final")] == [[0, 1], [3, 4, 5], [2]]
    with pytest.raises(InputError, match="part must be one of train, track, final, got 'test'"):
        made.indices("test")
    parts = {
        "train": {"frames": 2, "molecules": 1}, "track": {"frames": 3, "molecules": 1},
        "final": {"frames": 1, "molecules": 1},
    }  # fmt: skip
    assert describe_split(made) == {"frames": 6, "molecules": 3, "atoms": [1, 4], "parts": parts}
    assert made.describe() == describe_split(made) | made.metadata
    # A molecule none of whose geometries is left does not count.
    left = replace(made, **{name: getattr(made, name)[3:] for name in ("pos", "species", "mask", "molecule", "part",
                                                                      "atoms")})  # fmt: skip
    assert describe_split(left, "left")["molecules"] == 1


def test_orientation(made):
    assert made.orientation() == orientation(made.pos, made.mask)
