"""The training losses against their formulas, and padding that must not leak."""

import pytest
import torch

from equiscope.errors import InputError
from equiscope.tasks.forcefield.losses import ForceFieldLoss


def _case(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mask = torch.tensor([[True, True, True], [True, False, False]])
    batch = {"forces": draw(2, 3, 3), "energy": draw(2), "mask": mask}
    return {"forces": draw(2, 3, 3), "energy": draw(2)}, batch


def test_squared():
    answer, batch = _case()
    found = ForceFieldLoss("squared", forces=2.0, energy=0.5, force_scale=1.5, energy_scale=3.0)(answer, batch)
    error = (answer["forces"] - batch["forces"]) / 1.5
    first = sum(float(error[0, i, c]) ** 2 for i in range(3) for c in range(3)) / 9
    second = sum(float(error[1, 0, c]) ** 2 for c in range(3)) / 3
    energy = float((((answer["energy"] - batch["energy"]) / 3.0) ** 2).mean())
    assert float(found["forces"]) == pytest.approx((first + second) / 2, abs=1e-12)
    assert float(found["energy"]) == pytest.approx(energy, abs=1e-12)
    assert float(found["loss"]) == pytest.approx(first + second + 0.5 * energy, abs=1e-12)


def test_escaip():
    answer, batch = _case()
    found = ForceFieldLoss("escaip", forces=100.0, energy=4.0, force_scale=2.0, energy_scale=0.5)(answer, batch)
    lengths = [
        float((answer["forces"] - batch["forces"])[s, i].norm()) / 2 for s, i in ((0, 0), (0, 1), (0, 2), (1, 0))
    ]
    energy = float((answer["energy"] - batch["energy"]).abs().mean()) / 0.5
    assert float(found["loss"]) == pytest.approx(100 * sum(lengths) / 4 + 4 * energy, rel=1e-12)


@pytest.mark.parametrize("name", ["squared", "escaip"])
def test_padding_does_not_leak(name):
    answer, batch = _case()
    answer["forces"].requires_grad_(True)
    loss = ForceFieldLoss(name, forces=1.0, energy=1.0)
    before = loss(answer, batch)["loss"]
    batch["forces"][~batch["mask"]] = torch.nan
    after = loss(answer, batch)["loss"]
    after.backward()
    assert torch.equal(after, before)
    assert torch.isfinite(answer["forces"].grad).all()
    assert not answer["forces"].grad[~batch["mask"]].any()


@pytest.mark.parametrize("name", ["squared", "escaip"])
def test_gradient_is_finite_at_a_perfect_prediction(name):
    _, batch = _case()
    answer = {key: batch[key].clone().requires_grad_(True) for key in ("forces", "energy")}
    ForceFieldLoss(name, forces=1.0, energy=1.0)(answer, batch)["loss"].backward()
    assert torch.isfinite(answer["forces"].grad).all()


def test_refusals():
    with pytest.raises(InputError, match=r"loss\.name must be one of squared, escaip, got 'l3'"):
        ForceFieldLoss("l3", 1.0, 1.0)
    with pytest.raises(InputError, match=r"loss\.energy"):
        ForceFieldLoss("squared", 1.0, -1.0)
