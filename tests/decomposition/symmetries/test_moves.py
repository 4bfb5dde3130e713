"""Translations, parity and mirrors: variances in closed form, found without bias, and what has none has none."""

import math

import pytest
import torch

import equiscope as eq
from equiscope.decomposition.symmetries import Translation
from equiscope.decomposition.symmetries.moves import MoveKey
from equiscope.errors import InputError
from equiscope.symmetry.rotations import lebedev
from tests.decomposition.models import random_batch, repeated, z_score

ENERGY = {"inputs": {"pos": "1o"}, "outputs": {"e": eq.Output("0e", per="sample")}}
FORCES = {"inputs": {"pos": "1o"}, "outputs": {"f": "1o"}}
X = random_batch(samples=1, atoms=4)["pos"][0]


def measured(model, symmetry, declared=ENERGY, sample=None, **settings):
    """Equivariance errors of 2,000 repeats of one sample."""
    batch = repeated({"pos": X} if sample is None else sample)
    return eq.measure(model, [batch], symmetry=symmetry, noise_samples=1, **declared, **settings)


def test_shifts_are_uniform_in_the_ball():
    shifts = Translation(3.0).shifts(MoveKey(0, range(4000), 0))
    radii = shifts.norm(dim=1) / 3
    assert radii.max() <= 1
    # The cube of the radius is uniform: mean 1/2, variance 1/12.
    assert abs(radii.pow(3).mean() - 0.5) < 4 * (1 / 12 / 4000) ** 0.5
    assert (shifts.mean(0).abs() < 4 * 3 / 5**0.5 / 4000**0.5).all()
    assert torch.equal(shifts[[5]], Translation(3.0).shifts(MoveKey(0, [5], 0)))
    assert not torch.equal(shifts[[5]], Translation(3.0).shifts(MoveKey(1, [5], 0)))


def test_a_wave_over_translations():
    """E cos(k (x + t)) over a ball of radius r is cos(k x) 3 (sin q - q cos q) / q^3, q = |k| r."""
    k, radius = torch.tensor([0.7, -0.4, 1.1], dtype=torch.float64), 2.0
    phase = float(X[0] @ k)

    def ball(q):
        return 3 * (math.sin(q) - q * math.cos(q)) / q**3

    q = float(k.norm()) * radius
    truth = 0.5 + 0.5 * math.cos(2 * phase) * ball(2 * q) - (math.cos(phase) * ball(q)) ** 2
    result = measured(lambda b: {"e": torch.cos(b["pos"][:, 0] @ k)}, Translation(radius))
    assert abs(z_score(result.per_sample.equivariance, truth)) < 4
    assert result.symmetry == "translation within 2"
    assert result.passes == 10
    assert "10 passes (translation within 2) x 2000 samples" in str(result)


def test_a_linear_model_over_translations_by_cosets_and_by_brute_force():
    """Forces B x: variance |B|^2 r^2 / 5 over three components."""
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = float(matrix.square().sum()) * 1.5**2 / 5 / 3
    for cosets in (2, 4):
        result = measured(lambda b: {"f": b["pos"] @ matrix.T}, "translation=1.5", FORCES, cosets=cosets)
        assert abs(z_score(result.per_sample.equivariance, truth)) < 4
    shifts = Translation(1.5).shifts(MoveKey(3, range(20_000), 9)) @ matrix.T
    assert float(shifts.var(0).mean()) == pytest.approx(truth, rel=0.03)


def test_invariant_models_show_rounding_alone_near_the_origin_and_cancellation_far_away():
    def model(b):
        delta = b["pos"][:, :, None] - b["pos"][:, None]
        return {"f": (delta * torch.exp(-delta.square().sum(-1, keepdim=True))).sum(2)}

    batch = random_batch(samples=32, atoms=5, dtype=torch.float32)
    found = {}
    for within in (0.1, 1e4):
        settings = {"symmetry": Translation(within), "fixed": ["y"], **FORCES}
        found[within] = eq.measure(model, [batch], **settings)
    assert not found[0.1].distinguishable
    assert found[1e4].distinguishable
    # Positions of 1e4 are stored to 2^-11 / sqrt(12); a difference of two to sqrt(2) of that.
    stored = 2.0**-11 / 12**0.5
    assert stored / 10 < found[1e4].equivariance ** 0.5 < 10 * stored
    exact = eq.measure(model, [{k: v.double() for k, v in batch.items()}], **settings)
    assert exact.equivariance < 1e-14 * found[1e4].equivariance


def test_positions_among_the_outputs_and_centres_go_along():
    declared = {
        "inputs": {"pos": "1o"},
        "outputs": {"p": eq.Output("1o", points=True)},
        "center": "middle",
    }
    batch = {"pos": X[None].expand(3, -1, -1), "middle": torch.ones(3, 3, dtype=torch.float64)}

    def follows(b):
        return {"p": b["middle"][:, None] + 0.5 * (b["pos"] - b["middle"][:, None])}

    assert eq.measure(follows, [batch], symmetry="translation=50", **declared).equivariance < 1e-20
    stays = eq.measure(lambda b: {"p": torch.zeros_like(b["pos"])}, [batch], symmetry="translation=50", **declared)
    assert stays.equivariance > 1


def test_parity_is_exact_with_two_passes():
    """An odd scalar s is s and -s: variance s^2; a pseudovector declared a vector likewise."""
    c = torch.tensor([0.3, 2.0, -1.0], dtype=torch.float64)
    result = eq.measure(lambda b: {"e": b["pos"][:, 0] @ c + 5}, [{"pos": X[None]}], symmetry="parity", **ENERGY)
    assert result.equivariance == pytest.approx(float(X[0] @ c) ** 2, rel=1e-12)
    assert result.passes == 2
    crossed = eq.measure(
        lambda b: {"f": torch.linalg.cross(b["pos"], b["pos"].flip(1))}, [{"pos": X[None]}], symmetry="parity", **FORCES
    )
    truth = torch.linalg.cross(X, X.flip(0)).square().mean()
    assert crossed.equivariance == pytest.approx(float(truth), rel=1e-12)
    assert eq.measure(lambda b: {"f": b["pos"] ** 3}, [{"pos": X[None]}], symmetry="parity", **FORCES).equivariance == 0


def test_mirrors_of_a_constant_force_and_by_brute_force():
    """{1, 1 - 2nn^T}: E p = (v + v/3) / 2, so the variance is 5/9 |v|^2."""
    v = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64)
    result = measured(lambda b: {"f": v.expand_as(b["pos"])}, "mirror", FORCES)
    assert abs(z_score(result.per_sample.equivariance, 5 / 9 * float(v @ v) / 3)) < 4

    def wave(x):
        return torch.tanh(x @ v).sum(-1)

    grid = lebedev(15)
    # Third columns of the set's rotations are directions, evenly weighted.
    normals = grid.matrices[:, :, 2]
    reflected = X - 2 * torch.einsum("ni,ai->na", normals, X)[..., None] * normals[:, None]
    away = wave(reflected)
    mean, square = ((1 - 0.5) * wave(X) ** k + 0.5 * float(grid.weights @ away**k) for k in (1, 2))
    result = measured(lambda b: {"e": wave(b["pos"])}, "mirror")
    assert abs(z_score(result.per_sample.equivariance, float(square - mean**2))) < 4


def test_other_losses_and_refinement():
    batch = random_batch(samples=64)
    declared = {**FORCES, "target": "y"}

    def model(b):
        return {"f": torch.tanh(b["pos"])}

    four = eq.measure(model, [batch], symmetry="translation=2", loss="l1", **declared)
    assert 0 < four.percent < 100
    whole = eq.measure(model, [batch], symmetry="parity", loss="l1", **declared)
    assert whole.equivariance == 0
    few = {k: v[:8] for k, v in batch.items()}
    refined = eq.measure(model, [few] * 4, symmetry="translation=2", rtol=0.2, cosets=2, **declared)
    assert refined.passes > 2


@pytest.mark.parametrize("within", [0, -1, math.inf, math.nan, "far", True])
def test_ranges_that_are_none(within):
    with pytest.raises(InputError, match="range above zero"):
        Translation(within)


def test_translations_without_positions():
    batch = {"q": torch.zeros(2, 1)}
    with pytest.raises(InputError, match="translation needs positions"):
        eq.measure(lambda b: b["q"], [batch], inputs={"q": "0e"}, outputs={"e": "0e"}, symmetry="translation")


def test_moves_are_taken_back_last_first():
    """Shifted and then turned, R (x + t): only turned back and then shifted back it is x again."""
    declared = {"inputs": {"pos": "1o"}, "outputs": {"p": eq.Output("1o", points=True)}}
    for symmetry in (("rotation", "translation=5"), ("translation=5", "rotation")):
        found = eq.measure(lambda b: {"p": b["pos"]}, [{"pos": X[None]}], symmetry=symmetry, **declared)
        assert found.equivariance < 1e-25
