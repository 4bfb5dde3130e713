"""Properties that hold for every batch: generated shapes, masks, weights, cosets and losses.

``HYPOTHESIS_PROFILE=thorough`` (`make thorough`) draws more than ten thousand examples in all.
"""

import itertools
import math
import os

import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

import equiscope as eq
from equiscope.decomposition.losses import LOSSES

from .models import Tanh, linear_error

COMMON = dict(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
PROFILES = {
    "quick": settings(max_examples=60, derandomize=True, database=None, **COMMON),
    "thorough": settings(max_examples=1700, **COMMON),
}
PROFILE = PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "quick")]

EXACT = ["D2", "T", "O", "lebedev-3", "haar"]
REGRESSION = [name for name in LOSSES if not name.startswith("cross")]
SCALES = st.sampled_from([1e-12, 1e-3, 1.0, 1e3, 1e12])


@st.composite
def batches(draw):
    """Positions, labels, a mask with at least one real atom a sample, ids in any order, clusters."""
    samples, atoms = draw(st.integers(1, 7)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mask = torch.rand(samples, atoms, generator=generator) < draw(st.sampled_from([0.3, 0.8, 1.0]))
    mask[:, draw(st.integers(0, atoms - 1))] = True
    scale = draw(SCALES)
    return {
        "pos": normal(samples, atoms, 3),
        "y": scale * normal(samples, atoms, 3),
        "e": scale * normal(samples),
        "mask": mask,
        "id": 7 * torch.randperm(samples, generator=generator),
        "c": torch.randint(0, 3, (samples,), generator=generator),
    }


@st.composite
def designs(draw, rotations=tuple(EXACT)):
    return dict(
        rotations=draw(st.sampled_from(rotations)),
        cosets=draw(st.integers(2, 4)),
        seed=draw(st.integers(0, 2**63 - 1)),
        weighting=draw(st.sampled_from(["sample", "component"])),
        center=draw(st.sampled_from(["origin", "mean"])),
    )


def masked(outputs, batch, model, **design):
    named = dict(inputs={"pos": "1o"}, outputs=outputs, mask="mask", ids="id", clusters="c", fixed=["e", "y"])
    named["fixed"] = [f for f in ("e", "y") if f not in {o.target for o in outputs.values()}]
    return eq.measure(model, batch if isinstance(batch, list) else [batch], noise_samples=1, **named, **design)


def forces(loss="mse", weight=1.0):
    return {"forces": eq.Output("1o", target="y", loss=loss, weight=weight)}


def matrix(seed, scale=1.0):
    return scale * torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights(batch, weighting):
    """Weight of every atom in a mean over samples, or over components."""
    real = batch["mask"].double()
    share = real / real.sum(1, keepdim=True) / len(real) if weighting == "sample" else real / real.sum()
    return share


@PROFILE
@given(batches(), designs(), st.sampled_from(REGRESSION), st.floats(0.01, 100))
def test_total_is_twirled_plus_equivariance(batch, design, loss, weight):
    design["cosets"] = design["cosets"] if loss == "mse" else 4
    result = masked(forces(loss, weight), batch, Tanh(), **design)
    own = result.outputs["forces"]
    size = abs(result.total)
    assert abs(result.total - result.twirled - result.equivariance) <= 1e-12 * size
    assert abs(own.total - own.twirled - own.equivariance) <= 1e-12 * size / weight
    assert result.total == pytest.approx(weight * own.total, rel=1e-12)
    assert result.percent == pytest.approx(100 * result.equivariance / result.total, rel=1e-9, abs=1e-12)
    assert result.percent == pytest.approx(own.percent, rel=1e-9, abs=1e-12)
    if loss == "mse":
        assert result.equivariance >= 0
        assert bool((result.per_sample.equivariance >= 0).all())
    assert bool(torch.isfinite(result.per_sample.total).all())


@PROFILE
@given(batches(), designs(("T", "O", "lebedev-3")), st.integers(0, 2**32), SCALES)
def test_linear_maps_give_the_closed_form(batch, design, seed, scale):
    design["center"] = "origin"
    a = matrix(seed, scale)
    result = masked(forces(), batch, lambda b: b["pos"] @ a.T, **design)
    share = weights(batch, design["weighting"])
    truth = float((share * linear_error(a, batch["pos"])).sum())
    mean = batch["pos"] * a.trace() / 3
    twirled = float((share * (mean - batch["y"]).square().mean(-1)).sum())
    assert result.equivariance == pytest.approx(truth, rel=1e-10)
    assert result.total == pytest.approx(truth + twirled, rel=1e-10)


@PROFILE
@given(batches(), designs(), SCALES)
def test_multiples_of_the_identity_have_nothing_but_noise(batch, design, scale):
    design["center"] = "origin"
    result = masked(forces(), batch, lambda b: scale * b["pos"], **design)
    assert -1e-25 * scale**2 <= result.equivariance <= 1e-25 * scale**2
    # The floor of a handful of atoms is itself a random figure: three floors are for data sets, not for one atom.
    assert result.equivariance < 30 * result.noise_floor


@PROFILE
@given(batches(), designs(), st.data())
def test_the_batches_are_of_no_consequence(batch, design, data):
    count = len(batch["pos"])
    order = torch.tensor(data.draw(st.permutations(range(count))))
    cuts = sorted(data.draw(st.sets(st.integers(1, count))) | {0, count})
    pieces = [{k: v[order[i:j]] for k, v in batch.items()} for i, j in itertools.pairwise(cuts)]
    a, b = (masked(forces(), parts, Tanh(), **design) for parts in ([batch], pieces))
    for name in ("percent", "total", "equivariance", "r2", "loss_as_given", "relative_equivariance"):
        assert getattr(b, name) == pytest.approx(getattr(a, name), rel=1e-10), name
    assert b.percent_error == pytest.approx(a.percent_error, rel=1e-6, nan_ok=True)
    assert (b.samples, b.clusters) == (a.samples, a.clusters)


@PROFILE
@given(batches(), designs(), st.integers(1, 3), st.sampled_from([0.0, 1e9, math.nan, math.inf, -math.inf]))
def test_padding_holds_nothing(batch, design, extra, filler):
    def padded(values):
        if values.ndim < 2:
            return values
        shape = (len(values), extra, *values.shape[2:])
        longer = torch.cat([values, torch.zeros(shape, dtype=values.dtype)], dim=1)
        hidden = ~torch.cat([batch["mask"], torch.zeros(len(values), extra, dtype=torch.bool)], dim=1)
        return longer if values.dtype == torch.bool else longer.masked_fill(hidden[..., None], filler)

    a = masked(forces(), batch, Tanh(), **design)
    b = masked(forces(), {k: padded(v) for k, v in batch.items()}, Tanh(), **design)
    for name in ("percent", "total", "equivariance", "r2", "loss_as_given"):
        assert getattr(b, name) == pytest.approx(getattr(a, name), rel=1e-10), name
    assert b.orientation == pytest.approx(a.orientation, abs=1e-9)


class Both(Tanh):
    def forward(self, batch):
        real = torch.where(batch["mask"][..., None], batch["pos"], 0.0)
        return super().forward(batch) | {"energy": (real @ self.a[0]).sum(1).tanh()}


@PROFILE
@given(batches(), designs(), st.floats(0, 10), st.floats(0, 10))
@example(
    batch={
        "pos": torch.ones(1, 1, 3).double(), "y": torch.ones(1, 1, 3).double(), "e": torch.ones(1).double(),
        "mask": torch.ones(1, 1).bool(), "id": torch.zeros(1).long(), "c": torch.zeros(1).long(),
    },
    design=dict(rotations="T", cosets=2, seed=0, weighting="sample", center="mean"), u=1.0, v=0.0,
)  # fmt: skip
def test_contributions_add_up(batch, design, u, v):
    assume(u + v > 1e-6)
    outputs = forces(weight=u) | {"energy": eq.Output("0e", target="e", per="sample", weight=v)}
    result = masked(outputs, batch, Both(), **design)
    parts = result.outputs.values()
    assert sum(p.contribution_percent for p in parts) == pytest.approx(result.percent, rel=1e-10)
    for name in ("total", "twirled", "equivariance"):
        assert sum(p.weight * getattr(p, name) for p in parts) == pytest.approx(getattr(result, name), rel=1e-10)
