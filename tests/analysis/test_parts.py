import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import equiscope as eq
from equiscope.analysis.parts import KINDS, PARTS, Parts
from equiscope.decomposition.plan import make_plan
from equiscope.errors import InputError
from tests.analysis import pooled
from tests.analysis.networks import DECLARED, LAYERS, Net, batches, network

STEP = 1e-4


def moved(net, vector, parts):
    net = copy.deepcopy(net)
    with torch.no_grad():
        for p, step in zip(net.parameters(), parts.split_vector(vector), strict=True):
            p.add_(step)
    return net


def difference(function, net, vector, parts):
    """Fourth-order central difference of a function of the network along a vector."""
    at = {k: function(moved(net, k * STEP * vector, parts)) for k in (-2, -1, 1, 2)}
    return (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * STEP)


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_and_products_equal_finite_differences(kind):
    net, data = network(kind), batches()
    parts = Parts(net, data, DECLARED, rotations="D2", memory="pass")
    v = torch.randn(parts.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    v /= v.norm()
    gradient = parts.gradient(PARTS)

    def values(n):
        own = Parts(n, data, DECLARED, rotations="D2").values
        return torch.tensor([own[p] for p in PARTS], dtype=torch.float64)

    slopes = difference(values, net, v, parts)
    for part, slope in zip(PARTS, slopes, strict=True):
        assert float(gradient[part] @ v) == pytest.approx(float(slope), rel=1e-6, abs=1e-9)
    twice = difference(
        lambda n: torch.stack(list(Parts(n, data, DECLARED, rotations="D2").gradient(PARTS).values())), net, v, parts
    )
    held = Parts(net, data, DECLARED, rotations="D2", memory="batch")
    for part, expected in zip(PARTS, twice, strict=True):
        for way in (parts, held):
            assert (way.product(part, v) - expected).norm() <= 1e-6 * expected.norm()


def test_one_rotation_a_sample_is_the_plain_loss_of_the_turned_batch():
    net, data = network("LayerNorm"), batches()
    parts = Parts(net, data, DECLARED, rotations="haar", cosets=1)
    assert list(parts.values) == ["total"]
    turned = [
        {k: torch.einsum("nij,naj->nai", fixed.passes[0].turns, x) for k, x in fixed.batch.fields().items()}
        for fixed in parts._fixed
    ]

    def loss(n):
        return sum(F.mse_loss(n(batch)["forces"], batch["y"]) for batch in turned) / len(turned)

    def gradient(n):
        return parts.flat(torch.autograd.grad(loss(n), list(n.parameters())))

    assert loss(net).item() == pytest.approx(parts.values["total"], rel=1e-12)
    v = torch.randn(parts.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = difference(gradient, net, v / v.norm(), parts)
    assert (parts.product("total", v / v.norm()) - expected).norm() <= 1e-6 * expected.norm()
    for part in ("twirled", "equivariance"):
        with pytest.raises(InputError, match="cosets=2"):
            parts.product(part, v)
    unlabelled = eq.Declaration({"pos": "1o"}, {"forces": "1o"}, fixed=["y"])
    with pytest.raises(InputError, match="target"):
        Parts(net, data, unlabelled, rotations="haar", cosets=1)


def test_values_are_those_of_measure():
    net, data = network("GELU"), batches(3)
    result = eq.measure(net, data, DECLARED, seed=5)
    values = Parts(net, data, DECLARED, seed=5).values
    assert values["total"] == pytest.approx(result.total, rel=1e-12)
    assert values["equivariance"] == pytest.approx(result.equivariance, rel=1e-12)
    assert values["twirled"] == pytest.approx(result.twirled, rel=1e-12)


@pytest.mark.parametrize("loss", ["l2_norm", "huber"])
def test_jackknifed_losses_and_component_weights(loss):
    declared = eq.Declaration(
        {"pos": "1o"}, {"forces": eq.Output("1o", target="y", loss=loss, mask="mask")}, weighting="component"
    )
    data = batches()
    for batch in data:
        batch["mask"] = torch.tensor([[True, True, True], [True, True, False]])
    net = network("SiLU")
    design = {"rotations": "haar", "cosets": 4}
    parts = Parts(net, data, declared, **design)
    result = eq.measure(net, data, declared, **design)
    assert parts.values["equivariance"] == pytest.approx(result.equivariance, rel=1e-12)
    v = torch.randn(parts.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    twice = difference(lambda n: Parts(n, data, declared, **design).gradient(PARTS)["twirled"], net, v / 10, parts)
    assert (parts.product("twirled", v / 10) - twice).norm() <= 1e-6 * twice.norm()


@pytest.mark.parametrize("part", PARTS)
def test_gauss_newton_is_the_hessian_of_a_network_that_is_linear_in_its_parameters(part):
    net, data = nn.Linear(3, 3).double(), batches()
    parts = Parts(net, data, DECLARED, forward=lambda m, b: m(b["pos"]))
    v = torch.randn(parts.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    full, gauss = (parts.product(part, v, kind) for kind in KINDS)
    torch.testing.assert_close(full, gauss, rtol=1e-12, atol=1e-12)


def test_gauss_newton_equals_its_dense_form():
    net, data = network("LayerNorm"), batches(1)
    parts = Parts(net, data, DECLARED, rotations="D2", cosets=1)
    fixed = parts._fixed[0]
    own = list(net.parameters())
    jacobians = []
    for one in fixed.passes:
        rows = parts._run(fixed, one)["forces"].flatten()
        jacobians.append(torch.stack([parts.flat(torch.autograd.grad(r, own, retain_graph=True)) for r in rows]))
    stacked = torch.stack(jacobians)
    dense = 2 * torch.einsum("mri,mrj->ij", stacked, stacked) / stacked[0].shape[0] / len(stacked)
    mean = stacked.mean(0)
    expected = {"total": dense, "twirled": 2 * mean.T @ mean / mean.shape[0]}
    v = torch.randn(parts.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for memory in ("pass", "batch", "all", "all"):
        parts.graphs.memory = memory
        for part, matrix in expected.items():
            found = parts.product(part, v, "gauss_newton")
            assert (found - matrix @ v).norm() <= 1e-10 * (matrix @ v).norm()


def test_graphs_kept_give_the_same_product_again_and_the_model_is_left_alone():
    net, data = network("attention", dtype=torch.float32), batches(dtype=torch.float32)
    net.train()
    before = copy.deepcopy(net.state_dict())
    kept = Parts(net, data, DECLARED, memory="all")
    v = torch.ones(kept.size, dtype=torch.float64)
    first = kept.product("equivariance", v)
    torch.testing.assert_close(kept.product("equivariance", v), first, rtol=0, atol=0)
    kept.batch_values(0, 0.1 * v)
    torch.testing.assert_close(kept.product("equivariance", v), first, rtol=1e-5, atol=1e-6)
    assert net.training
    assert all(torch.equal(before[k], x) for k, x in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_memory_of_a_pass_holds_one_graph_at_a_time():
    net, data = network("GELU"), batches(1)
    live = {"now": 0, "most": 0}

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            live["now"] += len(x)
            live["most"] = max(live["most"], live["now"])
            ctx.token = Token(len(x))
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g

    class Token:
        def __init__(self, samples):
            self.samples = samples

        def __del__(self):
            live["now"] -= self.samples

    def forward(model, batch):
        return Counted.apply(model(batch)["forces"])

    samples = len(data[0]["pos"])
    for memory, most in (("pass", 2 * samples), ("batch", 24 * samples)):
        live["most"] = 0
        parts = Parts(net, data, DECLARED, forward=forward, memory=memory)
        parts.product("equivariance", torch.ones(parts.size, dtype=torch.float64))
        if memory == "pass":
            assert live["most"] <= most
        else:
            assert live["most"] >= most


@pytest.mark.parametrize("memory", ["pass", "batch", "all"])
def test_steady_products_are_those_made_one_by_one(memory):
    net, data = network("GELU"), batches()
    net.train()
    before = copy.deepcopy(net.state_dict())

    def noisy(model, batch):
        assert not model.training
        return model(batch)["forces"] * (1 + torch.rand(1, dtype=torch.float64))

    parts = Parts(net, data, DECLARED, forward=noisy, memory=memory)
    v = torch.ones(parts.size, dtype=torch.float64)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    expected, there = parts.product("total", v), parts.batch_values(0, v)
    parts.release()
    with parts.steady(), parts.steady():
        for _ in range(2):
            torch.testing.assert_close(parts.product("total", v), expected, rtol=0, atol=0)
        assert parts.batch_values(0, v) == there
        torch.testing.assert_close(parts.product("total", v), expected, rtol=0, atol=0)
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[k], x) for k, x in net.state_dict().items())


def test_the_fastest_memory_that_fits_is_chosen(monkeypatch):
    net, data = network("GELU"), batches(3)
    v = torch.ones(sum(p.numel() for p in net.parameters()), dtype=torch.float64)
    found = []
    for held in (2**30, 60_000, 0):
        monkeypatch.setattr("equiscope.analysis.autograd.HELD", held)
        parts = Parts(net, data, DECLARED)
        parts.product("total", v)
        found.append(parts.graphs.memory)
    assert found == ["all", "batch", "pass"]


class Crowd(Net):
    """A network whose samples know of each other."""

    def forward(self, batch):
        return {"forces": super().forward(batch)["forces"] + self.first.bias[:3] * batch["pos"].norm()}


class Fussy(Net):
    def forward(self, batch):
        if len(batch["pos"]) != 2:
            raise RuntimeError("compiled for two samples")
        return super().forward(batch)


@pytest.mark.parametrize(("made", "together"), [(Net, True), (Crowd, False), (Fussy, False)])
def test_all_passes_are_run_in_one_call_where_that_is_the_same(made, together):
    net, data = made(nn.Tanh()).double(), batches()
    swept = Parts(net, data, DECLARED, memory="pass")
    v = torch.randn(swept.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for memory in ("batch", "all"):
        parts = Parts(net, data, DECLARED, memory=memory)
        for kind in KINDS:
            expected = swept.product("twirled", v, kind)
            assert (parts.product("twirled", v, kind) - expected).norm() <= 1e-10 * expected.norm()
        assert parts._at_once == together


def test_parameters_can_be_chosen():
    net, data = network("GELU"), batches()
    net.first.requires_grad_(False)
    some, alone = Parts(net, data, DECLARED, parameters=["last"]), network("GELU")
    every = Parts(alone, data, DECLARED)
    assert list(some.parameters) == ["last.weight", "last.bias"]
    torch.testing.assert_close(some.gradient()["equivariance"], every.gradient()["equivariance"][-some.size :])


def test_graphs_are_by_the_chosen_parameters_alone():
    net, data, seen = network("GELU"), batches(), []

    def forward(model, batch):
        seen.append([p.requires_grad for p in model.parameters()])
        return model(batch)

    parts = Parts(net, data, DECLARED, parameters=["last"], forward=forward)
    parts.product("equivariance", torch.ones(parts.size, dtype=torch.float64))
    assert all(flags == [False, False, True, True] for flags in seen)
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory": "none"}, "memory"),
        ({"parameters": "last"}, "list of names"),
        ({"parameters": ["head"]}, "'head'"),
        ({"cosets": 0}, "cosets"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        Parts(network("GELU"), batches(), DECLARED, **arguments)


def test_bad_parts_vectors_and_empty_batches():
    with pytest.raises(InputError, match="empty"):
        Parts(network("GELU"), [], DECLARED)
    with pytest.raises(InputError, match=r"whole cosets: give cosets=1 or 2, got 1\.25"):
        Parts(network("GELU"), batches(), make_plan(DECLARED, cosets=1.25))
    parts = Parts(network("GELU"), batches(), DECLARED)
    with pytest.raises(InputError, match="'mean'"):
        parts.gradient(("mean",))
    with pytest.raises(InputError, match="entries"):
        parts.product("total", torch.ones(3, dtype=torch.float64))
    with pytest.raises(InputError, match="kind"):
        parts.product("total", torch.ones(parts.size, dtype=torch.float64), "fisher")
    unlabelled = eq.Declaration({"pos": "1o"}, {"forces": "1o"}, fixed=["y"])
    parts = Parts(network("GELU"), batches(), unlabelled)
    assert list(parts.values) == ["equivariance"]
    with pytest.raises(InputError, match="target"):
        parts.product("total", torch.ones(parts.size, dtype=torch.float64))


def test_unused_parameters_count_as_zero():
    net = network("GELU")
    net.spare = nn.Linear(2, 2).double()
    parts = Parts(net, batches(), DECLARED)
    assert parts.unused == ["spare.weight", "spare.bias"]
    assert not parts.gradient()["twirled"][-6:].any()
    assert isinstance(net, Net)


@pytest.mark.parametrize("weighting", ["sample", "component"])
def test_batches_of_unequal_molecules_have_the_share_of_their_weights(weighting):
    """Samples, or real components of each output, the outputs by their weights; the gradient in closed form."""
    model, data = pooled.TwoMaps(), pooled.dealt(4)
    parts = Parts(model, data, pooled.declared(weighting, 3.0, 1.0))
    if weighting == "sample":
        expected = [2 / 7, 1 / 7, 3 / 7, 1 / 7]
    else:
        counts = [[float(b[mask].sum()) for b in data] for mask in ("mask", "some")]
        first, second = ([n / sum(row) for n in row] for row in counts)
        expected = [(3 * a + b) / 4 for a, b in zip(first, second, strict=True)]
    assert parts.shares == pytest.approx(expected, rel=1e-12)
    eye = torch.eye(3).double()
    slopes = [
        weight * 2 / 9 * pooled.moment(data, mask, weighting) * (m.detach() - eye * m.detach().trace() / 3)
        for weight, mask, m in ((3.0, "mask", model.a), (1.0, "some", model.b))
    ]
    found = parts.gradient()["equivariance"]
    torch.testing.assert_close(found, torch.cat([s.flatten() for s in slopes]), rtol=1e-10, atol=1e-12)


def test_outputs_without_weight_are_refused():
    with pytest.raises(InputError, match=r"weights of .* are all 0"):
        Parts(pooled.TwoMaps(), pooled.dealt(2), pooled.declared("sample", 0.0, 0.0))


def test_the_first_sweep_folds_its_passes_and_finds_the_same():
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.a = nn.Parameter(torch.randn(3, 3, generator=generator, dtype=torch.float64))
            self.calls = 0

        def forward(self, batch):
            self.calls += 1
            return torch.tanh(batch["pos"] @ self.a)

    generator = torch.Generator().manual_seed(1)
    pos, forces = torch.randn(2, 5, 4, 3, generator=generator, dtype=torch.float64)
    declaration = eq.Declaration({"pos": eq.Input("1o")}, {"forces": eq.Output("1o", target="forces")})
    found, calls = [], []
    for fold in (1, 6):
        model = Counted()
        parts = Parts(model, [{"pos": pos, "forces": forces}], declaration, fold=fold)
        found.append((parts.values, parts.gradient()))
        calls.append(model.calls)
    (single, slopes), (values, folded) = found
    assert values == pytest.approx(single, rel=1e-12)
    for part, slope in slopes.items():
        assert torch.allclose(folded[part], slope, rtol=1e-11, atol=1e-14)
    # Two sweeps that keep predictions, by 6 of 24 passes a call; one that differentiates. Two calls look at folding,
    # and two passes alone are compared with a shared call.
    assert calls[0] - calls[1] == 2 * (24 - 4) - 2 - 2
