"""Tests of the raw-coordinate model."""

import pytest
import torch

from equiscope.errors import InputError
from equiscope.tasks.proteinflow.models import handedness, relative_neighbours
from equiscope.tasks.proteinflow.task import MODELS
from tests.tasks.proteinflow.common import batch, make, rotations, turned

# What the published sizes have beside the small ones.
PUBLISHED = {"conditioning": 2, "qk_norm": "width", "pair_every": 1}


@pytest.mark.parametrize("changes", [{}, PUBLISHED], ids=["small", "published"])
@pytest.mark.parametrize("model", MODELS)
def test_a_chain_gets_the_same_velocity_alone_and_in_a_padded_batch(model, changes):
    net, b = make(model, **changes).double(), batch(lengths=(14, 9, 12))
    together = net(b)["velocity"]
    for row, length in enumerate((14, 9, 12)):
        alone = {key: value[row : row + 1] for key, value in b.items()}
        alone = {key: value[:, :length] if value.ndim > 1 else value for key, value in alone.items()}
        assert torch.allclose(net(alone)["velocity"][0], together[row, :length], atol=1e-10)
    assert (together[~b["mask"]] == 0).all()


@pytest.mark.parametrize("changes", [{}, PUBLISHED], ids=["small", "published"])
@pytest.mark.parametrize("model", MODELS)
def test_what_stands_in_the_padding_does_not_matter(model, changes):
    net, b = make(model, **changes).double(), batch()
    dirty = dict(b)
    for name in ("x_t", "x_sc"):
        dirty[name] = torch.where(b["mask"][..., None], b[name], torch.full_like(b[name], 7.0))
    dirty["residue"] = torch.where(b["mask"], b["residue"], 3)
    assert torch.allclose(net(dirty)["velocity"], net(b)["velocity"], atol=1e-10)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("field", ["x_t", "x_sc", "t", "residue"])
def test_every_input_is_used(model, field):
    net, b = make(model).double(), batch()
    changed = {**b, field: b[field].flip(0) if field != "residue" else b[field].flip(1)}
    real = b["mask"][..., None].expand_as(b["x_t"])
    change = (net(changed)["velocity"] - net(b)["velocity"])[real].abs().max()
    assert change > 1e-3


@pytest.mark.parametrize("changes", [{}, PUBLISHED], ids=["small", "published"])
@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_gets_a_gradient(model, changes):
    net, b = make(model, **changes).double().train(), batch()
    net(b)["velocity"].square().sum().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


@pytest.mark.parametrize("model", MODELS)
def test_equal_seeds_give_equal_weights_and_models_stay_in_single_precision(model):
    first, second = make(model, seed=4), make(model, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert first(batch(dtype=torch.float32))["velocity"].dtype == torch.float32


@pytest.mark.parametrize("source", ["x_t", "x_sc"])
def test_the_raw_model_is_not_equivariant_in_either_coordinate_input(source):
    net, b = make("proteina").double(), batch()
    turns = rotations(3)
    other = {**b, ("x_sc" if source == "x_t" else "x_t"): torch.zeros_like(b["x_t"])}
    answer, plain = net(turned(other, turns))["velocity"], net(other)["velocity"]
    assert (answer @ turns - plain).abs().max() > 1e-2
    # It reads the components themselves: a model that saw distances alone would not change at all.
    assert (answer - plain).abs().max() > 1e-2


def test_without_the_two_coordinate_inputs_the_raw_model_ignores_rotations():
    """Everything else it reads is invariant, so that its answer does not turn at all."""
    net, b = make("proteina").double(), batch()
    with torch.no_grad():
        net.read_noisy.weight.zero_()
        net.read_guess.weight.zero_()
    turns = rotations(3)
    assert torch.allclose(net(turned(b, turns))["velocity"], net(b)["velocity"], atol=1e-8)


def test_relative_neighbours_are_differences_within_the_chain():
    b = batch(lengths=(5, 3))
    found = relative_neighbours(b["x_t"], b["mask"], 2).unflatten(-1, (4, 3))
    for row, length in enumerate((5, 3)):
        x = b["x_t"][row]
        for i in range(length):
            for place, offset in enumerate((1, -1, 2, -2)):
                inside = 0 <= i + offset < length
                expected = x[i + offset] - x[i] if inside else torch.zeros(3, dtype=x.dtype)
                assert torch.allclose(found[row, i, place], expected), (row, i, offset)


def test_neighbours_break_the_symmetry_too_and_leave_padding_alone():
    net, b = make("proteina", neighbours=2).double(), batch(lengths=(14, 9, 2))
    with torch.no_grad():
        net.read_noisy.weight.zero_()
        net.read_guess.weight.zero_()
    turns = rotations(3)
    plain = net(b)["velocity"]
    assert (net(turned(b, turns))["velocity"] @ turns - plain).abs().max() > 1e-2
    alone = {key: value[1:2, :9] if value.ndim > 1 else value[1:2] for key, value in b.items()}
    assert torch.allclose(net(alone)["velocity"][0], plain[1, :9], atol=1e-10)
    with pytest.raises(InputError, match="at least 0"):
        make("proteina", neighbours=-1)


def test_the_published_twin_is_equivariant_with_updated_pairs_too():
    net, b = make("proteina_equivariant", **PUBLISHED).double(), batch()
    turns = rotations(3)
    assert torch.allclose(net(turned(b, turns))["velocity"] @ turns, net(b)["velocity"], atol=1e-8)


def test_distances_are_predicted_where_they_are_asked_for():
    net, b = make("proteina", **PUBLISHED, distogram=5).double(), batch()
    assert net(b)["distogram"].shape == (3, 14, 14, 5)
    assert "distogram" not in make("proteina", **PUBLISHED).double()(b)
    with pytest.raises(InputError, match="set pair_every"):
        make("proteina", distogram=5)


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
