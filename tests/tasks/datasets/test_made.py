"""The package's own data files come back frame by frame, each molecule a group."""

from collections import Counter

import numpy as np
import pytest

from equiscope.errors import DataError
from equiscope.tasks.datasets import store
from equiscope.tasks.datasets.made import Made
from tests.tasks.datasets import layouts


def of(molecules, counted="frames"):
    """The arrays of a data file of molecules name → (numbers, x, energy, forces)."""
    kept = list(molecules.values())
    return {
        "atoms": np.array([len(z) for z, *_ in kept]),
        counted: np.array([len(x) for _, x, _, _ in kept]),
        "species": np.concatenate([z for z, *_ in kept]).astype(np.uint8),
        "positions": np.concatenate([x.reshape(-1, 3) for _, x, _, _ in kept]).astype(np.float32),
        "forces": np.concatenate([f.reshape(-1, 3) for *_, f in kept]).astype(np.float32),
        "energy": np.concatenate([e for _, _, e, _ in kept]),
    }


def test_frames_of_molecules(tmp_path, monkeypatch):
    path = store.write(tmp_path / "made.npz", of(layouts.MOLECULES), {"format": "equiscope-forcefield"})
    monkeypatch.setattr("equiscope.tasks.datasets.reading.FRAMES_AT_ONCE", 3)
    blocks = list(Made(path).blocks(Counter()))
    assert len(blocks) > len(layouts.MOLECULES)
    for number, (z, x, e, f) in enumerate(layouts.MOLECULES.values()):
        own = [b for b in blocks if b.group == f"molecule {number}"]
        assert all(b.numbers.tolist() == list(z) for b in own)
        for name, expected in (("positions", x), ("energy", e), ("forces", f)):
            found = np.concatenate([getattr(b, name) for b in own])
            assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_conformers_have_no_labels(tmp_path):
    arrays = {k: v for k, v in of(layouts.MOLECULES, "conformers").items() if k not in ("energy", "forces")}
    blocks = list(Made(store.write(tmp_path / "c.npz", arrays, {})).blocks(Counter()))
    assert {(b.energy is None, b.forces is None) for b in blocks} == {(True, True)}
    assert sum(map(len, blocks)) == sum(len(x) for _, x, _, _ in layouts.MOLECULES.values())


def test_another_file(tmp_path):
    path = store.write(tmp_path / "x.npz", {"a": np.zeros(2)}, {"format": "something"})
    with pytest.raises(DataError, match="holds 'something', neither frames nor conformers"):
        list(Made(path).blocks(Counter()))
