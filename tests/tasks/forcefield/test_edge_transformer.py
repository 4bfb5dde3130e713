"""The edge transformer breaks rotation symmetry in every layer and in its head, and nowhere else."""

import torch

from equiscope.symmetry.rotations import haar
from equiscope.tasks.forcefield.models import build
from tests.tasks.forcefield.molecules import random_batch, rotated


@torch.no_grad()
def twisted_difference(model: torch.nn.Module, batch: dict) -> float:
    """|g⁻¹ f(g x) − f(x)| / |f(x)| of the forces for one Haar rotation."""
    rotation = haar(1, torch.Generator().manual_seed(5))[0]
    forces = model(batch)["forces"]
    twisted = model(rotated(batch, rotation))["forces"] @ rotation
    return float((twisted - forces).norm() / forces.norm())


def blind(model: torch.nn.Module, layer: int) -> None:
    """Take the unit vector away from one layer."""
    model.layers[layer].geometry.weight[:, -3:] = 0


def test_a_fresh_model_is_far_from_equivariant() -> None:
    torch.manual_seed(0)
    assert twisted_difference(build("edge_transformer").double(), random_batch([12, 15, 8])) > 0.1


@torch.no_grad()
def test_directions_in_any_single_layer_break_the_symmetry_and_without_any_it_is_exact() -> None:
    batch = random_batch([12, 15, 8])
    for kept in (0, 1, 2, None):
        torch.manual_seed(0)
        model = build("edge_transformer").double()
        model.head.weight[1:4] = 0
        model.head.bias[1:4] = 0
        for layer in range(3):
            if layer != kept:
                blind(model, layer)
        difference = twisted_difference(model, batch)
        assert difference < 1e-10 if kept is None else difference > 1e-4


@torch.no_grad()
def test_raw_vectors_of_the_head_break_the_symmetry() -> None:
    torch.manual_seed(0)
    model = build("edge_transformer").double()
    for layer in range(3):
        blind(model, layer)
    assert twisted_difference(model, random_batch([12, 15, 8])) > 0.1


def test_a_fresh_model_sends_information_beyond_the_cutoff() -> None:
    torch.manual_seed(0)
    model = build("edge_transformer", cutoff=2.0).double()
    batch = random_batch([4])
    # A chain with links of 1.5 Å: the exchange along reversed edges carries the last atom's species to the first.
    batch["pos"][0] = torch.tensor([[1.5 * k, 0.0, 0.0] for k in range(4)])
    changed = {**batch, "species": batch["species"].clone()}
    batch["species"][0, 2], changed["species"][0, 2] = 1, 8
    assert (model(batch)["forces"][0, 0] - model(changed)["forces"][0, 0]).norm() > 1e-6
