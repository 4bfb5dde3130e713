"""PET on our batches: padding and company change nothing, no symmetry is built in, and what is said without metatrain.

Runs whole in the environment of `make pet`, which has metatrain.
"""

import sys

import pytest
import torch

import equiscope as eq
from equiscope.errors import InputError
from equiscope.tasks.forcefield import neighbours
from equiscope.tasks.forcefield.models import build
from equiscope.tasks.forcefield.pet_field import PetConfig
from equiscope.tasks.forcefield.task import FORCES
from tests.tasks.forcefield.molecules import random_batch, rotated

SMALL = {"width": 8, "nodes": 12, "feedforward": 12}


@pytest.fixture
def model():
    pytest.importorskip("metatrain")
    torch.manual_seed(0)
    return build("pet", **SMALL).double()


def test_without_metatrain_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "metatrain.pet.modules.backend", None)
    with pytest.raises(InputError, match="pip install metatrain"):
        build("pet")
    with pytest.raises(InputError, match="multiple of heads"):
        PetConfig(width=10, heads=4)


def test_padding_and_company_change_nothing(model):
    together, alone = random_batch([6, 3, 5], pad=999.0), random_batch([6, 3, 5])
    out = model(together)
    assert torch.isfinite(out["forces"]).all()
    assert not out["forces"][1, 3:].any()
    for i, atoms in enumerate((6, 3, 5)):
        one = model({k: v[i : i + 1, :atoms] for k, v in alone.items()})
        torch.testing.assert_close(one["forces"], out["forces"][i : i + 1, :atoms], atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(one["energy"], out["energy"][i : i + 1], atol=1e-12, rtol=1e-12)


def test_batches_that_were_filled_up_are_answered_alike(model):
    batch = random_batch([6, 3, 5])
    filled = neighbours.prepared(batch, model.config.cutoff, padded=True)
    for name, value in model(batch).items():
        torch.testing.assert_close(model(filled)[name], value, atol=1e-12, rtol=1e-12)


def test_permutations_and_translations_are_exact_and_rotations_are_not(model):
    batch = random_batch([6, 3])
    batch |= {"forces": torch.zeros(2, 6, 3).double(), "energy": torch.zeros(2).double(), "molecule": torch.arange(2),
              "id": torch.arange(2)}  # fmt: skip
    errors = {
        symmetry: eq.measure(model, [batch], FORCES, symmetry=symmetry).relative_equivariance
        for symmetry in ("permutation", "translation=3", "rotation")
    }
    assert errors["permutation"] < 1e-20
    assert errors["translation=3"] < 1e-20
    assert errors["rotation"] > 1e-3
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double())[0]
    assert not torch.allclose(model(rotated(batch, turn))["energy"], model(batch)["energy"], atol=1e-4)


@pytest.mark.parametrize(("size", "parameters"), [("nano", 59_000), ("1M", 1_000_000)])
def test_sizes_are_those_of_the_other_models(size, parameters):
    pytest.importorskip("metatrain")
    assert sum(p.numel() for p in build("pet", size).parameters()) == pytest.approx(parameters, rel=0.06)
