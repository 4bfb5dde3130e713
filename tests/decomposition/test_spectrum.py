"""Spectrum by Wigner degree: closed forms per degree, unbiasedness, the traps of pairs and centring."""

import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.decomposition.batches import Rows
from equiscope.decomposition.spectrum import Spectrum
from equiscope.errors import InputError
from equiscope.symmetry.rotations import characters_of_traces, haar_keyed, rotation_set

from .models import Linear, Tanh, random_batch

SHORT = dict(inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y")


def matrix(antisymmetric, symmetric):
    """3x3 with given squared norms of its antisymmetric (degree 1) and traceless symmetric (degree 2) parts."""
    raw = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    anti, sym = (raw - raw.T) / 2, (raw + raw.T) / 2
    sym = sym - sym.trace() / 3 * torch.eye(3, dtype=torch.float64)
    return (
        anti * (antisymmetric / anti.square().sum()) ** 0.5
        + sym * (symmetric / sym.square().sum()) ** 0.5
        + 5 * torch.eye(3, dtype=torch.float64)
    )


@pytest.mark.parametrize(("rotations", "cosets"), [("T", 2), ("O", 2), ("I", 2), ("haar", 24), ("T", 3)])
def test_linear_maps_have_their_parts_at_degrees_one_and_two(rotations, cosets):
    model = Linear(matrix(0.3, 0.7))
    result = eq.measure(model, [random_batch(300)], rotations=rotations, cosets=cosets, spectrum=2, **SHORT)
    share, error = result.spectrum["share"], result.spectrum["error"]
    assert max(error) < 0.06
    assert share[0] == pytest.approx(0.3, abs=4 * error[0] + 1e-10)
    assert share[1] == pytest.approx(0.7, abs=4 * error[1] + 1e-10)
    assert abs(result.spectrum["remainder"]) < 4 * result.spectrum["remainder_error"] + 1e-9
    assert sum(share) + result.spectrum["remainder"] == pytest.approx(1, abs=1e-12)


class Cubic(nn.Module):
    """x y z is a harmonic of degree 3: all of its equivariance error lies there."""

    def forward(self, batch):
        return {"energy": batch["pos"].prod(-1).sum(-1)}


@pytest.mark.parametrize(("rotations", "cosets"), [("T", 4), ("O", 2), ("haar", 24)])
def test_degree_three_is_told_apart(rotations, cosets):
    result = eq.measure(
        Cubic(),
        [{"pos": random_batch(1500)["pos"]}],
        inputs={"pos": "1o"},
        outputs={"energy": eq.Output("0e", per="sample")},
        rotations=rotations,
        cosets=cosets,
        spectrum=3,
    )
    for share, error, truth in zip(result.spectrum["share"], result.spectrum["error"], (0, 0, 1), strict=True):
        assert share == pytest.approx(truth, abs=4 * error + 1e-9)
        assert error < 0.3


def powers(name, cosets, highest, count=4000, seed=5, offset=20.0):
    """Repeated estimates for one sample of a rough model on top of a large mean (degree 0)."""
    model, chosen = Tanh(1.2).requires_grad_(False), rotation_set(name)
    x = torch.tensor([0.9, -0.4, 0.7], dtype=torch.float64)
    spectrum = Spectrum(Rows(torch.arange(count), None, 1, count), chosen, highest)
    for stream in range(cosets):
        for k in chosen.matrices:
            g = k @ haar_keyed(seed, range(count), stream)
            p = torch.einsum("nji,nj->ni", g, model({"pos": g @ x})["forces"]) + offset * x
            spectrum.add(p[:, None], g)
    return spectrum.powers()


def truth(highest):
    """S_l by quadrature: (2l+1) sum w w' chi <p, p'> over a set of high degree."""
    model, chosen = Tanh(1.2).requires_grad_(False), rotation_set("lebedev-11")
    x = torch.tensor([0.9, -0.4, 0.7], dtype=torch.float64)
    g = chosen.matrices
    p = torch.einsum("nji,nj->ni", g, model({"pos": g @ x})["forces"])
    chi = characters_of_traces(torch.einsum("jab,kab->jk", g, g), highest)
    gram = (p @ p.T) * chosen.weights[:, None] * chosen.weights / 3
    return torch.stack([(2 * d + 1) * (chi[d] * gram).sum() for d in range(1, highest + 1)])


@pytest.mark.parametrize(("name", "cosets", "highest"), [("T", 2, 2), ("O", 2, 3), ("T", 3, 4), ("haar", 8, 3)])
def test_powers_are_unbiased(name, cosets, highest):
    estimates, exact = powers(name, cosets, highest), truth(highest)
    z = (estimates.mean(0) - exact) / (estimates.std(0) / len(estimates) ** 0.5)
    assert z.abs().max() < 4


def test_centring_keeps_degree_zero_from_drowning_the_rest():
    small, large = (powers("T", 2, 2, offset=o).std(0) for o in (0.0, 1000.0))
    assert torch.allclose(small, large, rtol=1e-6)


def test_the_spectrum_costs_no_model_call():
    plain = eq.measure(Tanh(), [random_batch()], **SHORT)
    with_it = eq.measure(Tanh(), [random_batch()], spectrum=True, **SHORT)
    assert with_it.model_calls == plain.model_calls
    assert with_it.percent == plain.percent
    assert with_it.spectrum["degrees"] == [1, 2]


def test_outputs_are_pooled_with_their_weights():
    model = Linear(matrix(0.3, 0.7))
    both = eq.measure(
        model,
        [random_batch(100)],
        inputs={"pos": "1o"},
        outputs={"a": eq.Output("1o", target="y"), "b": eq.Output("1o", target="y", weight=2.0)},
        forward=lambda m, b: {"a": m(b), "b": torch.ones_like(b["pos"])},
        spectrum=True,
    )
    part = both.outputs["a"].contribution_percent / both.percent
    assert both.spectrum["share"][0] == pytest.approx(0.3 * part + (1 - part), abs=4 * both.spectrum["error"][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(spectrum=3), "at least three"),
        (dict(spectrum=2, rotations="haar", cosets=2), "at least three"),
        (dict(spectrum=0), "degree >= 1"),
        (dict(spectrum=True, group="O3"), "SO3"),
    ],
)
def test_designs_that_cannot_tell_degrees_apart_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        eq.measure(Tanh(), [random_batch()], **SHORT, **arguments)
