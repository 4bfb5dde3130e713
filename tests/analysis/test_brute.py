"""Brute force: a closed form, the whole octahedral group, and estimators with a fault that it must see."""

import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.analysis import brute
from equiscope.analysis.brute import PARTS, brute_force
from equiscope.errors import InputError
from equiscope.symmetry.grids import GridAction, permute
from equiscope.symmetry.rotations import group

FORCES = eq.Declaration({"pos": "1o"}, {"forces": eq.Output("1o", target="forces", mask="mask")}, mask="mask", ids="id")


class Stretched(nn.Module):
    """forces = A pos with a fixed A: μ = (tr A / 3) pos, and the variance is that of the traceless part."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, batch):
        return {"forces": batch["pos"] @ self.matrix.T}


def molecules(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    pos, forces = (torch.randn(2, 4, 3, generator=generator, dtype=dtype) for _ in range(2))
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
    return {"pos": pos, "forces": forces, "mask": mask, "id": torch.arange(2)}


def closed_form(matrix, batch):
    """E |gᵀ A g x − y|² by hand: the mean is (tr A / 3) x, E |gᵀ D g x|² = |x|² tr D Dᵀ / 3 for D = A − tr A / 3."""
    isotropic, found = matrix.trace() / 3, []
    rest = matrix - isotropic * torch.eye(3, dtype=matrix.dtype)
    for x, y, real in zip(batch["pos"], batch["forces"], batch["mask"], strict=True):
        x, y = x[real], y[real]
        twirled = (isotropic * x - y).square().mean()
        error = (x.square().sum() * (rest @ rest.T).trace() / 3) / x.numel()
        found.append((twirled + error, twirled, error))
    return dict(zip(PARTS, torch.tensor(found, dtype=torch.float64).mean(0).tolist(), strict=True))


def test_a_linear_map_has_a_closed_form():
    matrix = torch.tensor([[1.0, 0.4, 0.0], [0.0, 0.5, -0.3], [0.2, 0.0, 1.5]], dtype=torch.float64)
    batch, model = molecules(), Stretched(matrix)
    found = brute_force(model, [batch], FORCES, count=20_000, repeats=20)
    assert (found["rotations"], found["samples"], found["exact"]) == (20_000, 2, False)
    for part, due in closed_form(matrix, batch).items():
        one = found["parts"][part]
        assert abs(one["brute"] - due) < 4 * one["brute_error"]
        assert one["brute_error"] < 0.02 * due
        # Two tetrahedral cosets are exact for a map of degree 2.
        assert one["reported"] == pytest.approx(due, rel=1e-6)


def test_errors_are_those_of_repeated_draws(monkeypatch):
    # What is reported beside them is not looked at here, and takes most of the time.
    monkeypatch.setattr(brute, "_reported", lambda *_: dict.fromkeys(PARTS, (0.0, 0.0)))
    matrix = torch.tensor([[1.0, 0.4, 0.0], [0.0, 0.5, -0.3], [0.2, 0.0, 1.5]], dtype=torch.float64)
    batch, due = molecules(), closed_form(matrix, molecules())
    runs = [brute_force(Stretched(matrix), [batch], FORCES, count=400, repeats=2, seed=s)["parts"] for s in range(80)]
    for part in PARTS:
        z = torch.tensor([(one[part]["brute"] - due[part]) / one[part]["brute_error"] for one in runs])
        assert abs(float(z.mean())) < 4 / 80**0.5
        assert 0.8 < float(z.std()) < 1.25


class Tilted(nn.Module):
    """Grids shifted by one voxel along one axis: not octahedral."""

    def forward(self, batch):
        return {"clean": batch["noisy"].roll(1, 2) + 0.1 * batch["noisy"] ** 2}


def test_the_octahedral_group_is_taken_whole():
    grid = GridAction(4)
    declaration = eq.Declaration({"noisy": eq.Input(grid)}, {"clean": eq.Output(grid, target="clean", per="sample")},
                                 group="O", ids="id")  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    noisy, clean = (torch.randn(2, 1, 4, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    found = brute_force(Tilted(), [{"noisy": noisy, "clean": clean, "id": torch.arange(2)}], declaration)
    orbit = torch.stack([
        permute(Tilted()({"noisy": permute(noisy, g.expand(2, 3, 3))})["clean"], g.T.expand(2, 3, 3))
        for g in group("O").matrices
    ])  # fmt: skip
    due = {"total": (orbit - clean).square().mean(), "twirled": (orbit.mean(0) - clean).square().mean(),
           "equivariance": (orbit - orbit.mean(0)).square().mean()}  # fmt: skip
    assert found["exact"]
    assert found["rotations"] == 24
    for part, value in due.items():
        one = found["parts"][part]
        assert (one["brute"], one["brute_error"]) == (pytest.approx(float(value), rel=1e-12), 0.0)
        assert one["reported"] == pytest.approx(float(value), rel=1e-6)


def test_refusals():
    model, batch = Stretched(torch.eye(3, dtype=torch.float64)), molecules()
    absolute = eq.Declaration({"pos": "1o"}, {"forces": eq.Output("1o", target="forces", loss="mae")}, ids="id",
                              fixed=("mask",))  # fmt: skip
    with pytest.raises(InputError, match="loss 'mse'"):
        brute_force(model, [batch], absolute)
    with pytest.raises(InputError, match="count must be an integer >= 2"):
        brute_force(model, [batch], FORCES, count=1)
