"""The controls' closed forms against brute force over random rotations, and against the measure."""

import math

import pytest
import torch

import equiscope as eq
from equiscope.symmetry.rotations import haar
from equiscope.testing import ConstantVector, LinearMap

MATRIX = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
VECTOR = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def data():
    g = torch.Generator().manual_seed(1)
    pos = torch.randn(7, 4, 3, generator=g, dtype=torch.float64)
    mask = torch.rand(7, 4, generator=g) < 0.7
    mask[:, 0] = True
    return {"pos": pos, "mask": mask, "target": torch.randn(7, 4, 3, generator=g, dtype=torch.float64)}


@pytest.mark.parametrize("control", [LinearMap(MATRIX), ConstantVector(VECTOR)])
@pytest.mark.parametrize("rotations", ["T", "O", "I"])
def test_the_measure_finds_the_closed_form(control, rotations):
    batch = data()
    output = eq.Output("1o", target="target")
    chosen = eq.Declaration({"pos": "1o"}, {"vectors": output}, mask="mask")
    result = eq.measure(control, [batch], chosen, rotations=rotations)
    expected = control.equivariance_error(batch["pos"], batch["mask"])
    torch.testing.assert_close(result.per_sample.equivariance, expected, rtol=1e-10, atol=0)
    twirled = (control.twirled(batch["pos"]) - batch["target"]).square().mean(-1)
    twirled = torch.where(batch["mask"], twirled, 0.0).sum(1) / batch["mask"].sum(1)
    assert result.twirled == pytest.approx(float(twirled.mean()), rel=1e-10)


@pytest.mark.parametrize("control", [LinearMap(MATRIX), ConstantVector(VECTOR)])
def test_closed_form_against_brute_force(control):
    x = data()["pos"][:1, :1]
    turns = haar(100_000, torch.Generator().manual_seed(2))
    turned = torch.einsum("nij,j->ni", turns, x[0, 0])
    back = torch.einsum("nji,nj->ni", turns, control({"pos": turned})["vectors"])
    square = (back - back.mean(0)).square().sum(-1) / 3
    error = float(square.std()) / math.sqrt(len(square))
    assert float(control.equivariance_error(x)) == pytest.approx(float(square.mean()), abs=4 * error)
    assert error < 0.01 * float(square.mean())


def test_multiples_of_the_identity_are_equivariant():
    x = data()["pos"]
    control = LinearMap(-2 * torch.eye(3))
    assert control.equivariance_error(x).abs().max() == 0
    eq.testing.assert_equivariant(control, [data()], eq.Declaration({"pos": "1o"}, {"vectors": "1o"}, fixed=["target"]))


def test_names_and_dtypes():
    x = torch.ones(2, 5, 3)
    answer = LinearMap(MATRIX, field="dipole", output="field")({"dipole": x})
    assert answer["field"].dtype == torch.float32
    assert ConstantVector(VECTOR, output="c")({"pos": x})["c"].shape == x.shape
