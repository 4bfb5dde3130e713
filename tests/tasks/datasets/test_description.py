"""A description from one pass equals the same numbers taken from all frames at once."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from equiscope.symmetry.orientation import orientation
from equiscope.tasks.datasets import stream
from equiscope.tasks.datasets.blocks import Block
from equiscope.tasks.datasets.description import describe
from equiscope.tasks.datasets.hdf5 import Spice
from tests.tasks.datasets import layouts


def test_numbers(tmp_path):
    source, rejected = Spice(layouts.spice(tmp_path / "s.hdf5")), Counter()
    found = describe(stream.read(source, stream.Rules(elements=(1, 6, 8)), stream.Sample(), rejected), {}, rejected)
    used = [layouts.MOLECULES[name] for name in ("methane", "water")]
    assert (found.frames, found.groups, found.atoms) == (8, 2, (3, 5))
    assert found.elements == {"H": 8, "C": 3, "O": 5}
    assert found.labels == {"energy": 8, "forces": 8}
    assert found.charges == {0: 8}
    assert found.rejected == {"element N": 4}
    forces = np.concatenate([f.reshape(-1) for *_, f in used])
    assert found.force_rms == pytest.approx(np.sqrt(np.mean(forces**2)), rel=1e-6)
    assert found.force_max == pytest.approx(max(np.linalg.norm(f, axis=-1).max() for *_, f in used), rel=1e-6)
    assert found.net_force == pytest.approx(
        max((np.linalg.norm(f.sum(1), axis=-1) / len(z)).max() for z, *_, f in used), rel=1e-6
    )
    per_atom = np.concatenate([e / len(z) for z, _, e, _ in used])
    assert found.energy_per_atom == pytest.approx((per_atom.min(), per_atom.max()))
    padded, mask = torch.zeros(8, 5, 3, dtype=torch.float64), torch.zeros(8, 5, dtype=torch.bool)
    for i, x in enumerate(x for _, block, _, _ in used for x in block):
        padded[i, : len(x)], mask[i, : len(x)] = torch.from_numpy(x), True
    expected = orientation(padded, mask)
    assert found.orientation.eigenvalues == pytest.approx(expected.eigenvalues, abs=1e-6)
    assert found.orientation.p_value == pytest.approx(expected.p_value, rel=1e-4)
    assert json.loads(json.dumps(found.to_dict()))["orientation"]["samples"] == 8


def test_text():
    one = Block("a", np.array([8]), np.zeros((2, 1, 3)))
    lines = str(describe([one], {"positions": "nm", "known from": "the user"}, {"charged": 3})).splitlines()
    assert lines[0] == "2 frames of 1 groups, 1 to 1 atoms"
    assert "labels (frames): none" in lines
    assert "orientation tensor: no frame has a longest axis" in lines
    assert "random orientation: fewer than 20 frames that have a direction, not tested" in lines
    assert "units of the file: positions nm (the user)" in lines
    assert lines[-1] == "left out: 3 charged"


def test_whether_frames_are_randomly_oriented():
    """Two blocks of one molecule each, all frames alike: a direction that every frame shares is found."""
    shape = np.array([[0, 0, 0], [0, 0, 1.5], [0.9, 0, 0.2]])
    random = np.random.default_rng(0)
    made = [Block(name, np.array([6, 8, 1]), shape + 0.05 * random.normal(size=(30, 3, 3))) for name in "ab"]
    found = describe(made, {}, {})
    assert found.orientation_bias.by == "frames"
    assert found.orientation_bias.auc > 0.9
    assert "NOT randomly oriented: a classifier tells frames from turned copies of them, AUC 1.00" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["orientation_bias"]["frames"] == 36


def test_nothing():
    found = describe([], {}, {})
    assert (found.frames, found.atoms, found.energy_per_atom, found.orientation) == (0, (0, 0), None, None)
    assert "0 frames" in str(found)
