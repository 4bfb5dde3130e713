"""Tests of the equivariant twin."""

import pytest
import torch

from equiscope.tasks.proteinflow.equivariant import handedness
from tests.tasks.proteinflow.common import batch, make, rotations, turned

MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))


@pytest.mark.parametrize("guess", [True, False])
def test_its_velocity_turns_with_the_chain(guess):
    net, b = make("proteina_equivariant").double(), batch(lengths=(14, 9, 12), guess=guess)
    plain = net(b)["velocity"]
    for seed in range(5):
        turns = rotations(3, seed)
        assert torch.allclose(net(turned(b, turns))["velocity"] @ turns, plain, atol=1e-10)
    assert plain.abs().max() > 0.1


def test_its_velocity_does_not_change_when_both_traces_are_shifted_as_points():
    """Only through the radii |x_i|, which are taken from the origin, does the place of the chain enter."""
    net, b = make("proteina_equivariant").double(), batch()
    with torch.no_grad():
        net.read_shape.weight[:, -2:] = 0
    shift = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    moved = {**b, "x_t": b["x_t"] + shift, "x_sc": b["x_sc"] + shift}
    assert torch.allclose(net(moved)["velocity"], net(b)["velocity"], atol=1e-10)


def test_it_is_no_mirror_model():
    net, b = make("proteina_equivariant").double(), batch()
    mirrored = net(turned(b, MIRROR.expand(3, 3, 3)))["velocity"] @ MIRROR
    assert (mirrored - net(b)["velocity"]).abs().max() > 1e-4


def test_without_handedness_it_could_not_tell_a_chain_from_its_mirror_image():
    net, b = make("proteina_equivariant").double(), batch()
    with torch.no_grad():
        net.read_shape.weight[:, :6] = 0
    mirrored = net(turned(b, MIRROR.expand(3, 3, 3)))["velocity"] @ MIRROR
    assert torch.allclose(mirrored, net(b)["velocity"], atol=1e-10)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_handedness_is_the_normalised_signed_volume(stride):
    b = batch(lengths=(14, 9, 12))
    found = handedness(b["x_t"], b["mask"], stride)
    assert found.shape == (3, 14)
    for row, length in enumerate((14, 9, 12)):
        x = b["x_t"][row]
        for i in range(14):
            if i + 3 * stride >= length:
                assert found[row, i] == 0
                continue
            edges = [x[i + (k + 1) * stride] - x[i + k * stride] for k in range(3)]
            volume = torch.linalg.det(torch.stack(edges))
            expected = volume / torch.stack([e.norm() for e in edges]).prod()
            assert found[row, i].item() == pytest.approx(expected.item(), abs=1e-12)
    assert torch.allclose(handedness(b["x_t"] @ MIRROR, b["mask"], stride), -found)


def test_handedness_of_a_right_handed_helix_is_positive():
    angle = torch.deg2rad(torch.tensor(100.0)) * torch.arange(20)
    helix = torch.stack([0.23 * angle.cos(), 0.23 * angle.sin(), 0.15 * torch.arange(20.0)], -1)[None]
    mask = torch.ones(1, 20, dtype=torch.bool)
    assert (handedness(helix, mask, 1)[0, :17] > 0.3).all()


def test_short_chains_are_no_trouble():
    net = make("proteina_equivariant").double()
    assert torch.isfinite(net(batch(lengths=(2, 1)))["velocity"]).all()
