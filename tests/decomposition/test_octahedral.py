"""The octahedral group as the claim: exact against brute force, unbiased from its subgroups, and said so."""

import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration, Input, Output
from equiscope.symmetry.grids import GridAction, permute
from equiscope.symmetry.rotations import cyclic, group

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


class Flat(nn.Module):
    """A linear map of images without symmetry."""

    def __init__(self, size: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.map = nn.Parameter(torch.randn(3, size * size, generator=generator, dtype=torch.float64))

    def forward(self, batch):
        return {"logits": batch["image"].flatten(1) @ self.map.T}


def images(size: int = 11, samples: int = 6) -> dict[str, torch.Tensor]:
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    places = torch.randn(samples, 1, 1, 1, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return {"image": torch.exp(-(points - places).square().sum(-1) / 4)}


def measured(model, data, group, rotations, resampling=None, **more):
    size = data["image"].shape[-1]
    return eq.measure(
        model,
        [data],
        inputs={"image": GridAction(size, resampling, dimensions=2)},
        outputs={"logits": Output("3x0e", per="sample")},
        group=group,
        rotations=rotations,
        **more,
    )


def test_images_under_quarter_turns_are_exact():
    model, data = Flat(11), images()
    answers = torch.stack([model({"image": torch.rot90(data["image"], k, (2, 3))})["logits"] for k in range(4)])
    result = measured(model, data, "C4", "C4")
    assert result.equivariance == pytest.approx(float(answers.var(0, correction=0).mean()), rel=1e-12)
    assert (result.passes, result.cosets) == (4, 1)
    assert "exact for the quarter turns, C4, without interpolation; a lower bound of the error of all angles" in str(
        result
    )
    assert "group C4, a lower bound for all angles" in str(result)


def test_images_under_all_angles_by_quadrature():
    """Spots drawn at turned places, no interpolation at all, at 360 angles."""
    size, model = 17, Flat(17)
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    places = torch.randn(50, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def drawn(where):
        return torch.exp(-(points - where[:, None, None]).square().sum(-1) / 6)[:, None]

    turns = cyclic(360)[:, :2, :2]
    answers = torch.stack([model({"image": drawn(places @ turn.T)})["logits"] for turn in turns]).detach()
    truth = answers.var(0, correction=0).mean(-1)
    found = measured(model, {"image": drawn(places)}, "SO2", "C8", "cubic", cosets=4)
    error = found.per_sample.equivariance - truth
    assert abs(float(error.mean() / (error.std() / len(error) ** 0.5))) < 4
    assert found.equivariance == pytest.approx(float(truth.mean()), rel=0.02)
    floor = measured(model, {"image": drawn(places)}, "SO2", "C8", "cubic", symmetry="interpolation")
    assert 0 < floor.equivariance < 1e-3 * found.equivariance
    coarse = measured(model, {"image": drawn(places)}, "SO2", "C8", "trilinear", symmetry="interpolation")
    assert coarse.equivariance > 10 * floor.equivariance
    assert not any("discontinuous" in note for note in found.notes)
