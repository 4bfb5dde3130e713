"""The octahedral group as the claim: exact against brute force, unbiased from its subgroups, and said so."""

import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration, Input, Output
from equiscope.symmetry.grids import GridAction, permute
from equiscope.symmetry.rotations import group

SIZE = 6


def declaration(claimed: str = "O") -> Declaration:
    grid = GridAction(SIZE)
    outputs = {"clean": Output(grid, target="clean", per="sample")}
    return Declaration({"noisy": Input(grid)}, outputs, group=claimed, ids="id")


class Convolution(nn.Module):
    """Two random convolutions: no symmetry at all."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv3d(4, 2, 3, padding=1)).double()

    def forward(self, batch):
        return {"clean": self.net(batch["noisy"])}


def batch(samples: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    noisy, clean = torch.randn(2, samples, 2, SIZE, SIZE, SIZE, generator=generator, dtype=torch.float64)
    return {"noisy": noisy, "clean": clean, "id": torch.arange(samples)}


def brute(model: nn.Module, data: dict[str, torch.Tensor]) -> tuple[float, float]:
    """(total, variance over all 24) from the definition."""
    answers = []
    for g in group("O").matrices:
        turns = g.expand(len(data["id"]), 3, 3)
        answers.append(permute(model({"noisy": permute(data["noisy"], turns)})["clean"], turns.mT).detach())
    stacked = torch.stack(answers)
    total = (stacked - data["clean"]).square().mean()
    return float(total), float(stacked.var(dim=0, correction=0).mean())


def test_whole_group_is_exact_and_says_what_it_claims():
    model, data = Convolution(), batch()
    total, variance = brute(model, data)
    result = eq.measure(model, [data], declaration(), rotations="O")
    assert result.total == pytest.approx(total, rel=1e-12)
    assert result.equivariance == pytest.approx(variance, rel=1e-12)
    assert (result.passes, result.cosets, result.group) == (24, 1, "O")
    assert "exact for the octahedral group O, without interpolation; a lower bound of the SO(3) error" in str(result)
    assert result.noise_floor < 1e-20 * variance or not result.distinguishable
    again = eq.measure(model, [data], declaration(), rotations="O", seed=9, cosets=3)
    assert again.equivariance == result.equivariance


@pytest.mark.parametrize("rotations", ["D2", "T", "haar"])
def test_subgroups_estimate_it_without_bias(rotations):
    model, data = Convolution(), batch(2)
    _, variance = brute(model, data)
    found = [eq.measure(model, [data], declaration(), rotations=rotations, seed=s, noise_samples=0).equivariance
             for s in range(60)]  # fmt: skip
    found = torch.tensor(found)
    assert abs(float(found.mean()) - variance) < 4 * float(found.std()) / 60**0.5 + 1e-12
    said = eq.measure(model, [data], declaration(), rotations=rotations).notes
    assert any(note.startswith("unbiased for the octahedral group O") for note in said)


def test_twirled_over_the_group_is_equivariant():
    twin = eq.Twirled(Convolution(), declaration(), rotations="O", shift=False)
    result = eq.measure(twin, [batch()], declaration(), rotations="O")
    assert result.equivariance < 1e-28
    assert not result.distinguishable


def test_rotations_outside_the_group_are_refused():
    with pytest.raises(InputError, match="leave the octahedral group"):
        eq.measure(Convolution(), [batch()], declaration(), rotations="I")
    with pytest.raises(InputError, match="claim group='O'"):
        eq.measure(Convolution(), [batch()], declaration("SO3"), rotations="T")
