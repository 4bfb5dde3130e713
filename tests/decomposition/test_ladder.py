"""The precision ladder: arithmetic falls as eps squared, a broken symmetry stays what it is."""

import numpy as np
import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.decomposition import ladder
from equiscope.errors import DeclarationError, InputError

from .models import Linear, linear_error, random_batch

VECTORS = {"inputs": {"pos": "1o"}, "outputs": {"forces": "1o"}, "fixed": ["y"]}
EPS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


class Pairs(nn.Module):
    """Equivariant in exact arithmetic: sum_j w(x_i . x_j) x_j, its products of coordinates those of autocast."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 1).double()
        nn.init.constant_(self.net.weight, 0.7)
        nn.init.constant_(self.net.bias, 0.2)

    def forward(self, batch):
        x = batch["pos"]
        gram = torch.bmm(x, x.mT)
        return {"forces": torch.bmm(torch.tanh(self.net(gram[..., None])[..., 0]), x)}


def test_arithmetic_falls_as_eps_squared():
    found = eq.precisions(Pairs(), [random_batch(40, seed=1)], names=list(EPS), **VECTORS)
    assert found.reference == "float64"
    sizes = {r.precision: r.relative / EPS[r.precision] ** 2 for r in found.rungs}
    # In float64 the turns are rounded as coarsely as the model.
    assert 0.1 < sizes.pop("float64") < 30
    assert all(0.1 < size < 3 for size in sizes.values()), sizes
    for rung in found.rungs[1:]:
        low, high = rung.arithmetic_interval
        assert 0.99 < low <= rung.arithmetic <= high <= 1 + 1e-9
        assert rung.added == pytest.approx(rung.relative, rel=1e-4, abs=0)
    assert "reference" in str(found)


def test_a_broken_symmetry_stays_what_it_is():
    matrix = torch.tensor([[1.0, 0.4, 0.0], [0.0, 1.2, -0.3], [0.2, 0.0, 0.9]], dtype=torch.float64)
    batch = random_batch(40, seed=2)
    # A linear model: T cosets give its error exactly, and mean |f|^2 over rotations is |x|^2 |A|^2 / 9.
    exact = float(linear_error(matrix, batch["pos"]).mean())
    square = float((batch["pos"].square().sum(-1) * matrix.square().sum() / 9).mean())
    found = eq.precisions(Linear(matrix), [batch], names=list(EPS), **VECTORS)
    assert [r.precision for r in found.rungs] == list(EPS)
    for rung in found.rungs:
        assert rung.relative == pytest.approx(exact / square, rel=20 * EPS[rung.precision])
    for rung in found.rungs[1:]:
        assert abs(rung.arithmetic) < 20 * EPS[rung.precision]


def test_the_interval_pairs_what_the_precisions_share():
    # Per sample: E = large common part + a small added one; unpaired intervals would hide it.
    random = np.random.default_rng(0)
    common, added = random.exponential(1.0, 60), random.uniform(1e-4, 2e-4, 60)
    square, clusters = np.ones(60), list(range(60))
    rung = ladder._rung("p", "f", ladder.Figures(common, square, clusters),
                        ladder.Figures(common + added, square, clusters))  # fmt: skip
    assert rung.added == pytest.approx(added.mean())
    low, high = rung.added_interval
    half = 1.96 * added.std(ddof=1) / np.sqrt(60)
    assert 0.9 * half < high - rung.added < 1.4 * half
    assert 0.9 * half < rung.added - low < 1.4 * half
    # By clusters: the same samples in six groups have the mean of six numbers.
    grouped = [i // 10 for i in range(60)]
    rung = ladder._rung("p", "f", ladder.Figures(common, square, grouped),
                        ladder.Figures(common + added, square, grouped))  # fmt: skip
    assert rung.clusters == 6
    assert rung.added == pytest.approx(added.mean())


def test_what_is_not_there_is_said_and_the_model_is_left_alone():
    model = Pairs()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = eq.precisions(model, [random_batch(4)], names="tf32,bf16,float64", **VECTORS)
    assert found.reference == "bfloat16"
    if not torch.cuda.is_available():
        assert "the model is on the CPU" in found.unavailable["tf32"]
        assert "tf32: not measured here: TF32 is arithmetic of NVIDIA cards" in str(found)
    assert all(v.dtype == torch.float64 and torch.equal(v, before[k]) for k, v in model.state_dict().items())
    stored = found.to_dict()
    assert stored["rungs"][0]["precision"] == "bfloat16"
    with pytest.raises(InputError, match="precisions must be of float64"):
        eq.precisions(model, [random_batch(4)], names="float8", **VECTORS)
    with pytest.raises(InputError, match="none of tf32 runs here"):
        eq.precisions(model, [random_batch(4)], names="tf32", **VECTORS)


class Insists(Pairs):
    """Runs in float64 alone."""

    def forward(self, batch):
        return {"forces": torch.bmm(torch.eye(3, dtype=torch.float64).expand(len(batch["pos"]), 3, 3), batch["pos"])}


def test_a_precision_that_the_model_does_not_have():
    found = eq.precisions(Insists(), [{"pos": torch.randn(4, 3, 3, dtype=torch.float64)}], names="float32,float64",
                          inputs={"pos": "1o"}, outputs={"forces": "1o"})  # fmt: skip
    assert found.reference == "float64"
    assert "RuntimeError" in found.unavailable["float32"]
    # What is wrong in every precision is said as it is.
    with pytest.raises(DeclarationError, match="'y'"):
        eq.precisions(Pairs(), [random_batch(4)], inputs={"pos": "1o"}, outputs={"forces": "1o"})


def test_compiled_answers_alike(monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", lambda self: setattr(self, "seen", True) or calls.append(self))
    calls: list[nn.Module] = []
    found = eq.precisions(Pairs(), [random_batch(4)], names="float32,compiled", **VECTORS)
    assert len(calls) == 1
    assert found.how["compiled"] == "parameters and inputs in float32, compiled"
    assert found.rungs[1].added == 0


def test_modules_inside_what_is_no_module():
    class Holder:
        def __init__(self):
            self.models = [nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2)]
            self.part = self.models[0][0]
            self.itself = self

    holder = Holder()
    assert ladder.outermost(holder) == holder.models
    with ladder.in_precision(holder, "float64", torch.device("cpu")) as (made, dtype, _):
        assert dtype == torch.float64
        assert made.models[1].weight.dtype == torch.float64
        # What it is handed is cast.
        assert made.models[1](torch.ones(1, 2, dtype=torch.float32)).dtype == torch.float64
    assert holder.models[1].weight.dtype == torch.float32
