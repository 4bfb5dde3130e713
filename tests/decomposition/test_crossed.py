"""Rotations crossed with noise: against brute force, unbiased, and in its order with the plain measure."""

import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.decomposition.crossed import Redraw, measure_crossed
from equiscope.errors import InputError, ModelError, NonFiniteError
from equiscope.symmetry.declaration import Declaration, Input, Output
from equiscope.symmetry.grids import GridAction, permute
from equiscope.symmetry.rotations import group, haar

SIZE = 4
VECTORS = Declaration(
    {"x": Input("1o")}, {"y": Output("1o", target="y", per="sample")}, fixed=("noise",), ids="id"
)  # fmt: skip


class Rough(nn.Module):
    """A vector of a turned vector and of noise that stays: main effects and an interaction of both."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.a = nn.Parameter(torch.randn(3, 3, generator=generator, dtype=torch.float64))
        self.b = nn.Parameter(torch.randn(3, 3, generator=generator, dtype=torch.float64))

    def forward(self, batch):
        x, e = batch["x"], batch["noise"]
        return {"y": torch.tanh(x @ self.a) + 0.5 * torch.tanh(x @ self.b * e) + 0.3 * e}


def samples(count: int) -> dict[str, torch.Tensor]:
    x, y, noise = torch.randn(3, count, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {"x": x, "y": y, "noise": noise, "id": torch.arange(count)}


def normal(fields, number, seed=0):
    shape, keys = fields["noise"].shape, fields["id"].tolist()
    rows = [torch.randn(shape[1:], generator=torch.Generator().manual_seed(1_000_003 * seed + 1009 * i + number),
                        dtype=torch.float64) for i in keys]  # fmt: skip
    return torch.stack(rows)


def brute_force(model: nn.Module, x: torch.Tensor, count: int = 1500) -> tuple[float, float, float]:
    """(Var_g E_e, interaction, Var_e E_g) of one sample from count x count pairs of rotations and noises."""
    generator = torch.Generator().manual_seed(5)
    turns, noise = haar(count, generator), torch.randn(count, 3, generator=generator, dtype=torch.float64)
    sums, row_means, square = torch.zeros(count, 3, dtype=torch.float64), [], 0.0
    with torch.no_grad():
        for turn in turns:
            back = model({"x": (x @ turn.T).expand(count, 3), "noise": noise})["y"] @ turn
            sums += back
            square += float(back.square().sum())
            row_means.append(back.mean(0))
    rows, columns = torch.stack(row_means), sums / count
    mean = rows.mean(0)
    a = float((rows - mean).square().mean(1).mean())
    b = float((columns - mean).square().mean(1).mean())
    total = square / count**2 / 3 - float(mean.square().mean())
    return a, total - a - b, b


def test_the_three_variances_are_unbiased():
    model, one = Rough(), samples(1)
    truth = torch.tensor(brute_force(model, one["x"][0]), dtype=torch.float64)
    found = []
    for seed in range(150):
        redraw = Redraw("noise", lambda fields, number, seed=seed: normal(fields, number, seed), 3)
        result = measure_crossed(model, [one], VECTORS, redraw, count=4, seed=seed)
        assert result.equivariance == result.variance_parts["rotation"]
        found.append(list(result.variance_parts.values()))
    found = torch.tensor(found, dtype=torch.float64)
    z = (found.mean(0) - truth) / (found.std(0) / len(found) ** 0.5)
    # The brute force has an error of its own, about 1/sqrt(1500) of each part.
    assert (z.abs() < 4).all() or ((found.mean(0) - truth).abs() < 0.04 * truth.sum()).all()
    plugin = found[:, 0] + found[:, 1] / 3
    assert abs(float(plugin.mean() - truth[0])) > 4 * float(plugin.std()) / len(found) ** 0.5


class GridModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv3d(3, 1, 3, padding=1)).double()

    def forward(self, batch):
        return {"clean": self.net(batch["noisy"])}


def grids() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    grid, noise = torch.randn(2, 3, 1, SIZE, SIZE, SIZE, generator=generator, dtype=torch.float64)
    return {"grid": grid, "noise": noise, "clean": grid, "id": torch.arange(3)}


def octahedral(inputs: str, fixed: tuple[str, ...]) -> Declaration:
    action = GridAction(SIZE)
    outputs = {"clean": Output(action, target="clean", per="sample")}
    return Declaration({inputs: Input(action)}, outputs, fixed=fixed, group="O", ids="id")


def added(model, batch):
    return model({"noisy": batch["grid"] + batch["noise"]})


def test_a_whole_group_is_its_population_variance():
    """The octahedral error of the noise-averaged model, against 1,500 noises; permuted noise gives at least as much."""
    model, data = GridModel(), grids()
    noise = torch.randn(1500, 1, SIZE, SIZE, SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    means = []
    with torch.no_grad():
        for g in group("O").matrices:
            turned = permute(data["grid"], g.expand(3, 3, 3))
            rows = torch.stack([model({"noisy": t + noise})["clean"].mean(0) for t in turned])
            means.append(permute(rows, g.T.expand(3, 3, 3)))
    truth = float(torch.stack(means).var(dim=0, correction=0).mean())
    found, both = [], []
    for seed in range(12):
        redraw = Redraw("noise", lambda fields, number, seed=seed: normal(fields, number, seed), 3)
        result = measure_crossed(model, [data], octahedral("grid", ("noise",)), redraw, forward=added, rotations="O")
        found.append(result.equivariance)
        both.append(result.variance_parts["rotation x noise"])
    found = torch.tensor(found)
    assert abs(float(found.mean()) - truth) < 4 * float(found.std()) / 12**0.5 + 0.02 * truth
    assert result.passes == 72
    permuted = {"noisy": data["grid"] + data["noise"], "clean": data["clean"], "id": data["id"]}
    whole = eq.measure(model, [permuted], octahedral("noisy", ()), rotations="O")
    assert whole.equivariance > truth
    assert sum(both) / len(both) > 0


def test_a_whole_group_without_noise_is_the_plain_measure():
    model, data = GridModel(), grids()
    redraw = Redraw("noise", normal, 2)
    crossed = measure_crossed(model, [data], octahedral("grid", ("noise",)), redraw, rotations="O",
                              forward=lambda m, b: m({"noisy": b["grid"]}))  # fmt: skip
    plain = eq.measure(model, [{"noisy": data["grid"], "clean": data["clean"], "id": data["id"]}],
                       octahedral("noisy", ()), rotations="O")  # fmt: skip
    assert crossed.equivariance == pytest.approx(plain.equivariance, rel=1e-12)
    assert crossed.variance_parts["rotation x noise"] == pytest.approx(0, abs=1e-12)


def test_without_noise_it_is_the_plain_measure():
    model, data = Rough(), samples(4)
    quiet = {**data, "noise": torch.zeros(4, 3, dtype=torch.float64)}
    redraw = Redraw("noise", lambda fields, number: torch.zeros_like(fields["noise"]))
    crossed = measure_crossed(model, [quiet], VECTORS, redraw, count=6, seed=3)
    plain = eq.measure(model, [quiet], VECTORS, rotations="haar", cosets=6, seed=3)
    assert crossed.equivariance == pytest.approx(plain.equivariance, rel=1e-10)
    assert crossed.total == pytest.approx(plain.total, rel=1e-10)
    assert crossed.variance_parts["rotation x noise"] == pytest.approx(0, abs=1e-14)


def test_result_survives_storage():
    redraw = Redraw("noise", normal)
    result = measure_crossed(Rough(), [samples(3)], VECTORS, redraw, count=3)
    assert eq.Result.from_dict(result.to_dict()) == result
    assert "averaged over 2 noises in 'noise'" in str(result)


def test_bad_designs_are_refused():
    model, data, redraw = Rough(), [samples(3)], Redraw("noise", normal)
    for draws in (1, True, 2.0):
        with pytest.raises(InputError, match="at least 2 noises"):
            Redraw("noise", normal, draws)
    with pytest.raises(InputError, match="must be a function"):
        Redraw("noise", 3)
    with pytest.raises(InputError, match="at least 2 rotations"):
        measure_crossed(model, data, VECTORS, redraw, count=1)
    with pytest.raises(InputError, match="'haar', or the group"):
        measure_crossed(model, data, VECTORS, redraw, rotations="T")
    with pytest.raises(InputError, match="must be declared fixed"):
        measure_crossed(model, data, VECTORS, Redraw("x", normal))
    with pytest.raises(InputError, match="empty"):
        measure_crossed(model, [], VECTORS, redraw)
    l1 = Declaration({"x": Input("1o")}, {"y": Output("1o", "y", "l1", per="sample")}, fixed=("noise",), ids="id")
    with pytest.raises(InputError, match="only squared error has"):
        measure_crossed(model, data, l1, redraw)


@pytest.mark.parametrize("when", ["always", "for one draw"])
def test_predictions_that_are_not_finite_are_no_percent(when):
    batch = samples(8)

    def model(b):
        spoilt = when == "always" or torch.equal(b["noise"], normal(batch, 1))
        return {"y": torch.where(b["id"][:, None] == 5, torch.nan if spoilt else 0.0, b["x"])}

    with pytest.raises(NonFiniteError, match=r"prediction 'y' .*is NaN.*\(ids \[5\]\)"):
        measure_crossed(model, [batch], VECTORS, Redraw("noise", normal))


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda fields, number: fields["no"], ModelError, "'noise' cannot be drawn again: KeyError: 'no'"),
        (lambda fields, number: fields["noise"][:2], InputError, r"draw must return .*\(8, 3\), got .*\(2, 3\)"),
        (lambda fields, number: fields["noise"].float(), InputError, "draw must return .*float64.*got torch.float32"),
        (lambda fields, number: None, InputError, "draw must return .*got NoneType"),
    ],
)
def test_draws_that_are_no_noise(draw, error, message):
    with pytest.raises(error, match=message):
        measure_crossed(Rough(), [samples(8)], VECTORS, Redraw("noise", draw))
