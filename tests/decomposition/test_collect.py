"""Collecting: how the model is called, which figures of a batch are kept, and how an orbit grows."""

import dataclasses

import pytest
import torch
from torch import nn

from equiscope import EquivarianceError, Twirled, measure
from equiscope.analysis.layers import layers
from equiscope.analysis.parts import Parts
from equiscope.decomposition.collect import BatchOrbit, Collector, prepare
from equiscope.decomposition.noise import Known, keys
from equiscope.decomposition.orbit import Caller
from equiscope.decomposition.plan import make_plan
from equiscope.decomposition.samples import FLOOR
from equiscope.errors import InputError, NonFiniteError, RandomModelError
from equiscope.symmetry.declaration import Input, Output, declare
from equiscope.symmetry.rotations import uniform_keyed

from .models import Linear, Tanh, linear_error, random_batch

EPS = torch.finfo(torch.float64).eps
MATRIX = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SHORT = dict(inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y")


def collector(
    model, cosets=2, rotations="T", shift=True, highest_degree=0, loss="mse", fold=1, noise_samples=0, **changes
):
    declaration = declare(**(SHORT | {"loss": loss} | changes))
    plan = make_plan(declaration, None, rotations, cosets, 3, shift=shift, fold=fold)
    return Collector(model, dataclasses.replace(plan, highest_degree=highest_degree), noise_samples)


def values(found, field="equivariance", name="forces"):
    return getattr(found.samples().figures[name], field)


# How the model is called.


def test_calls_are_counted_and_made_without_gradients():
    seen = []
    caller = Caller(None)
    assert caller(lambda batch: seen.append(torch.is_grad_enabled()) or batch, 7) == 7
    caller(lambda batch: seen.append(torch.is_grad_enabled()), 7)
    assert (seen, caller.calls) == ([False, False], 2)


def test_forward_is_called_instead_of_the_model():
    assert Caller(lambda model, batch: (model, batch))("not callable", 7) == ("not callable", 7)


def test_gradients_are_switched_on_for_good_where_the_model_needs_them():
    seen = []

    def forces(batch):
        seen.append(torch.is_grad_enabled())
        x = batch.clone().requires_grad_()
        return torch.autograd.grad((x**3).sum(), x)[0]

    caller, x = Caller(None), torch.tensor([2.0])
    with torch.no_grad():
        assert [float(caller(forces, x)) for _ in range(3)] == [12.0] * 3
        assert not torch.is_grad_enabled()
    assert (seen, caller.calls) == ([False, True, True, True], 3)


def test_other_errors_are_the_models_own():
    def fails(batch):
        raise RuntimeError("out of cheese")

    caller = Caller(None)
    with pytest.raises(RuntimeError, match="out of cheese"):
        caller(fails, {"pos": torch.ones(1, 3)})
    assert not caller._grad


@pytest.mark.parametrize(
    ("forward", "model", "message"),
    [
        ("f", None, "forward must be a function .*got 'f'"),
        (None, "m", r"the model must be callable, or give forward=…; got str"),
    ],
)
def test_what_cannot_be_called(forward, model, message):
    with pytest.raises(InputError, match=message):
        Caller(forward)(model, {})


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (torch.ones(2, 3, dtype=torch.float64), r"'x' is torch.float64 but .*parameters are torch.float32"),
        (torch.ones(2, 3, device="meta"), "'x' is on meta but the model is on cpu"),
    ],
)
def test_a_batch_that_does_not_fit_the_model_is_named(field, message):
    batch = {"kind": torch.ones(2, dtype=torch.long), "x": field}
    forward = lambda model, b: model(b["x"]) + torch.ones(4)  # noqa: E731
    with pytest.raises(InputError, match=message):
        Caller(forward)(nn.Linear(3, 3), batch)


def test_a_fault_that_is_not_the_batchs_is_not_blamed_on_it():
    batch = {"kind": torch.ones(2, dtype=torch.long), "x": torch.ones(2, 5)}
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Caller(lambda model, b: model(b["x"]))(nn.Linear(3, 3), batch)


# Figures kept.


def test_figures_of_every_sample_in_the_order_given():
    found, parts = collector(Linear(MATRIX)), [random_batch(3, 2), random_batch(1, 5, seed=1)]
    for part in parts:
        found.run(part)
    exact = torch.cat([linear_error(MATRIX, p["pos"]).mean(1) for p in parts])
    assert values(found).tolist() == pytest.approx(exact.tolist(), rel=1e-10)
    assert values(found, "components").tolist() == [6, 6, 6, 15]
    given = torch.cat([(p["pos"] @ MATRIX.T - p["y"]).square().mean((1, 2)) for p in parts])
    assert values(found, "as_given").tolist() == pytest.approx(given.tolist(), rel=1e-12)
    assert not any(v.requires_grad for v in (values(found, "as_given"), values(found)))
    assert found.samples().ids == found.samples().clusters == [0, 1, 2, 3]
    assert found.samples().axes.shape == (4, 3, 3)
    # Given, repeated, 24 turns, and the same for the second batch; the first once more; three arcs of four for the one
    # sample with a floor.
    assert found.caller.calls in (1 + 1 + 24 + 1 + 1 + 1 + 24 + 12, 1 + 1 + 24 + 1 + 1 + 1 + 24 + 12 + 12)


def test_figures_hold_no_graph():
    class Forces(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, batch):
            x = batch["pos"].requires_grad_()
            energy = (self.scale * x).tanh().sum()
            return {"forces": -torch.autograd.grad(energy, x, create_graph=True)[0]}

    found, batch = collector(Forces(), highest_degree=2), random_batch(2, 2)
    orbit = found.run(batch)
    assert not orbit.as_given()["forces"].requires_grad
    kept = found.samples().figures["forces"]
    assert kept.powers.shape == (2, 2)
    assert not any(getattr(kept, field.name).requires_grad for field in dataclasses.fields(kept))


def test_masked_atoms_count_for_nothing():
    batch = random_batch(3, 4) | {"mask": torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [True] + [False] * 3])}
    for name in ("pos", "y"):
        batch[name][~batch["mask"]] = torch.nan
    found = collector(Linear(MATRIX), mask="mask")
    found.run(batch)
    real = [batch["pos"][i, : 4 // 2**i] for i in range(3)]
    exact = [float(linear_error(MATRIX, x).mean()) for x in real]
    assert values(found).tolist() == pytest.approx(exact, rel=1e-10)
    assert values(found, "components").tolist() == [12, 6, 3]
    alone = collector(Linear(MATRIX))
    alone.run({"pos": real[1][None], "y": batch["y"][1:2, :2]})
    assert torch.allclose(found.samples().axes[1], alone.samples().axes[0], atol=1e-12)


def test_without_positions_there_are_no_axes():
    found = collector(Linear(MATRIX), inputs={"pos": Input("1o", points=False)})
    found.run(random_batch())
    assert found.samples().axes is None


def test_labels_of_losses_that_are_not_split_exactly_are_kept():
    found, batch = collector(Tanh(), loss="l1", cosets=4), random_batch(2, 3)
    found.run(batch)
    found.run(batch)
    labels = found.samples().labels["forces"]
    assert torch.equal(labels.rows, batch["y"].flatten(0, 1).repeat(2, 1))
    assert labels.sample.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    exact = collector(Tanh())
    exact.run(batch)
    assert exact.samples().labels == {}


@pytest.mark.parametrize(("asked", "checked"), [(0, 1), (2, 2), (3, 3), (99, 6)])
def test_floors_are_measured_on_the_samples_of_smallest_key(asked, checked):
    found = collector(Tanh(), noise_samples=asked)
    for seed in range(3):
        found.run(random_batch(2, 2, seed=seed))
    known = ~torch.isnan(values(found, "floor")[:, 0])
    own = keys(found.plan.design.seed, range(6))
    assert bool(known[torch.from_numpy(own.argsort()[:checked].copy())].all())
    assert len(found.known.keys) == checked
    assert found.known.rounding == {}


def test_a_batch_that_cannot_be_taken_apart_is_measured_whole():
    class Fixed(Linear):
        """Insists on the batch size it was made for."""

        def forward(self, batch):
            if len(batch["pos"]) != 5:
                raise ValueError("five samples, please")
            return super().forward(batch)

    found = collector(Fixed(MATRIX), noise_samples=1)
    found.run(random_batch(5, 2))
    assert int((~torch.isnan(values(found, "floor")[:, 0])).sum()) == 1


@pytest.mark.parametrize("cosets", [2, 1.5])
def test_deviations_as_given_are_from_the_mean_over_the_orbit(cosets):
    # T averages degree one away exactly: the twirled prediction of A x is tr A / 3 x, whatever the cosets.
    found, batch = collector(Linear(MATRIX), cosets=cosets), random_batch(30, 2)
    found.run(batch)
    traceless = MATRIX - MATRIX.trace() / 3 * torch.eye(3, dtype=torch.float64)
    expected = (batch["pos"] @ traceless.T).square().mean((1, 2))
    assert torch.allclose(values(found, "deviation"), expected, rtol=1e-10)


@pytest.mark.parametrize("late", [4, 20])
def test_a_model_that_its_calls_change_gets_no_figure(late):
    class Counting(Linear):
        calls = 0

        def forward(self, batch):
            self.calls += 1
            return super().forward(batch) * (1.01 if self.calls > late else 1)

    with pytest.raises(RandomModelError, match="keeps something from one call to the next"):
        collector(Counting(MATRIX)).run(random_batch(3, 2))


@pytest.mark.parametrize("later", [False, True])
def test_what_a_few_samples_answer_otherwise_enters_the_floor_though_the_batch_is_not_asked(later):
    class Rounding(Linear):
        sizes = ()

        def forward(self, batch):
            self.sizes += (len(batch["pos"]),)
            rounded = len(batch["pos"]) < 6 and (not later or 6 in self.sizes[2:])
            return super().forward(batch) * (1 + 4 * EPS if rounded else 1)

    model = Rounding(MATRIX)
    found = collector(model)
    found.run(random_batch(6, 2))
    assert (model.sizes.count(6), model.sizes[-1]) == (1 + 24, 4)
    assert found.known.change / EPS == pytest.approx(4, rel=0.5)
    found.noise_samples = 6
    found.run(random_batch(6, 2))
    floor = values(found, "floor")[6:]
    rounding, square = (floor[:, FLOOR.index(name)].nan_to_num() for name in ("rounding", "square"))
    assert float(rounding.sum()) > 0
    assert bool((rounding >= found.known.change**2 / 2 * square).all())


def test_the_float64_copy_is_made_once():
    model, calls = Tanh(dtype=torch.float32), []
    found = collector(model, noise_samples=9)
    batch = random_batch(2, 2, dtype=torch.float32)
    for _ in range(2):
        before = found.caller.calls
        found.run(batch)
        calls.append(found.caller.calls - before)
    # Given, repeated, 24 turns; two arcs of four, then one for the next two samples; in the first batch the copy, and
    # given once more.
    assert calls == [1 + 1 + 24 + 8 + 1 + 1, 1 + 1 + 24 + 4]
    assert 0 < found.known.float64_change < 1e-5


@pytest.mark.parametrize(("rounding", "largest"), [(None, None), ({}, None), ({"a": 1e-7, "b": 3e-7}, 3e-7)])
def test_the_largest_rounding(rounding, largest):
    assert Known(rounding=rounding).float64_change == largest


@pytest.mark.parametrize("at", ["prediction", "loss"])
def test_a_sample_without_a_finite_figure_stops_with_its_id(at):
    model = Linear(MATRIX)
    batch = random_batch(3, 2) | {"id": torch.tensor([7, 8, 9])}
    if at == "loss":
        batch["y"][1] = 1e200
        what = r"loss of 'forces' is NaN or infinite.*1 of 3 samples of a batch \(ids \[8\]\).*labels"
    else:
        what = r"prediction 'forces'.*too large to square in 1 of 3 samples of a batch \(ids \[8\]\).*the model"
        batch["pos"][1] = 1e200
    found = collector(model, ids="id")
    with pytest.raises(NonFiniteError, match=what):
        found.run(batch)
    assert found.parts == []


# Ids, and the rotations that follow from them.


def test_ids_are_positions_in_the_data_set_or_what_was_declared():
    found = collector(Tanh())
    found.next_id = 10
    orbits = [found.run(random_batch(2, 2)) for _ in range(2)]
    assert [o.of.ids for o in orbits] == [[10, 11], [12, 13]]
    named = collector(Tanh(), ids="id", clusters="m")
    orbit = named.run(random_batch(2, 2) | {"id": torch.tensor([5, 3]), "m": ["b", "a"]})
    assert (orbit.of.ids, orbit.of.clusters()) == ([5, 3], ["b", "a"])


@pytest.mark.parametrize("ids", [[1, 2.0], [True, False], [-1, 2], [2**63, 1], ["a", "b"], [1, None]])
def test_ids_that_key_no_rotation(ids):
    with pytest.raises(InputError, match="sample ids must be integers >= 0"):
        collector(Tanh(), ids="id").run(random_batch(2, 2) | {"id": ids})


class Watched(Linear):
    """Keeps the positions it was called with."""

    def forward(self, batch):
        self.seen = [*getattr(self, "seen", []), batch["pos"].clone()]
        return super().forward(batch)


def turned(model, x):
    """The rotation that took the first three atoms of x (samples, 3, 3) to what the model saw, per call."""
    return [torch.linalg.solve(x, seen).mT for seen in model.seen]


def test_a_coset_is_the_set_after_a_shift_keyed_by_the_samples_id():
    model, batch = Watched(MATRIX), random_batch(2, 3) | {"id": torch.tensor([5, 3])}
    found = collector(model, ids="id")
    orbit = BatchOrbit(model, found.caller, prepare(batch, found.plan), found.known.folding)
    orbit.as_given()
    orbit.add_cosets(1)
    orbit.add_cosets(1)
    given, *seen = turned(model, batch["pos"])
    assert torch.allclose(given, torch.eye(3, dtype=torch.float64), atol=1e-9)
    assert len(seen) == 24
    for stream in (0, 1):
        shift = uniform_keyed("SO3", 3, [5, 3], stream)
        for k, matrix in enumerate(found.plan.design.rotations.matrices):
            assert torch.allclose(seen[12 * stream + k], matrix @ shift, atol=1e-9)


def test_unshifted_the_set_itself_is_used():
    model, batch = Watched(MATRIX), random_batch(2, 3)
    found = collector(model, cosets=1, shift=False)
    found.run(batch)
    # As given, repeated, the floor; then the set, and as given once more.
    model.seen = model.seen[-len(found.plan.design.rotations) - 1 : -1]
    seen = turned(model, batch["pos"])
    assert all(torch.allclose(s, m, atol=1e-9) for s, m in zip(seen, found.plan.design.rotations.matrices, strict=True))


# An orbit that grows.


@pytest.mark.parametrize(("loss", "cosets"), [("mse", 2), ("l1", 4)])
def test_cosets_added_later_are_those_of_a_larger_design(loss, cosets):
    batch = random_batch(3, 2)
    grown, whole = collector(Tanh(), cosets, loss=loss), collector(Tanh(), cosets + 3, loss=loss)
    orbit = grown.run(batch)
    few = values(grown).clone()
    for count in (1, 2):
        orbit.add_cosets(count)
        grown.parts[0] = orbit.samples()
    whole.run(batch)
    assert not torch.equal(values(grown), few)
    for field in ("total", "equivariance", "between", "square", "halvings"):
        assert torch.equal(values(grown, field).nan_to_num(), values(whole, field).nan_to_num()), field


def test_refreshing_one_batch_leaves_the_others():
    found = collector(Tanh(), highest_degree=2)
    orbits = [found.run(random_batch(2, 2, seed=seed)) for seed in range(2)]
    before = [values(found).clone(), values(found, "powers").clone()]
    orbits[1].add_cosets(1)
    found.parts[1] = orbits[1].samples()
    after = [values(found), values(found, "powers")]
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a[:2], b[:2])
        assert not torch.isclose(a[2:], b[2:], rtol=1e-9).any()
    assert len(found.samples()) == 4


def test_one_sample_of_one_atom():
    found, batch = collector(Linear(MATRIX)), random_batch(1, 1)
    found.run(batch)
    assert values(found).tolist() == pytest.approx(linear_error(MATRIX, batch["pos"]).flatten().tolist(), rel=1e-10)
    assert torch.allclose(found.samples().axes[0], torch.eye(3).double() / 3)


def test_outputs_with_and_without_labels_side_by_side():
    outputs = {"forces": Output("1o", target="y"), "energy": Output("0e", per="sample")}
    declaration = declare(SHORT["inputs"], outputs)
    model = lambda b: {"forces": b["pos"] @ MATRIX.T, "energy": b["pos"][:, 0, 0]}  # noqa: E731
    found, batch = Collector(model, make_plan(declaration), 0), random_batch(3, 2)
    found.run(batch)
    assert not values(found, "as_given").isnan().any()
    assert values(found, "as_given", "energy").isnan().all()
    assert values(found, "total", "energy").isnan().all()
    # x_1 turned every way has the variance |x|^2 / 3.
    exact = batch["pos"][:, 0].square().sum(-1) / 3
    assert values(found, name="energy").tolist() == pytest.approx(exact.tolist(), rel=1e-10)


# Gradients by the positions, and models without their own flags.


def energy(pos):
    return torch.exp(-(pos[:, None] - pos[:, :, None]).square().sum(-1)).sum()


def by_grad(batch):
    return {"forces": -torch.autograd.grad(energy(batch["pos"]), batch["pos"])[0]}


def by_backward(batch):
    energy(batch["pos"]).backward()
    return {"forces": -batch["pos"].grad}


@pytest.mark.parametrize("model", [by_grad, by_backward])
def test_positions_marked_by_the_loader_reach_the_model_as_leaves(model):
    batch = {"pos": random_batch()["pos"].requires_grad_()}
    result = measure(model, [batch], inputs={"pos": "1o"}, outputs={"forces": "1o"})
    # Gradients of a function of distances.
    assert result.relative_equivariance < 1e-25
    assert batch["pos"].grad is None
    # Degree 3 is at the edge of what two cosets of O tell apart.
    assert layers_of(Recorded(model), batch)[:3] == pytest.approx([0, 1, 0], abs=1e-9)


class Recorded(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.features = model, nn.Identity()

    def forward(self, batch):
        return {"forces": self.features(self.model(batch)["forces"])}


def layers_of(model, batch):
    declaration = declare({"pos": "1o"}, {"forces": "1o"})
    return layers(model, [batch], declaration, names=["features"])["layers"][0]["share"]


@pytest.mark.parametrize("model", [by_grad, by_backward])
def test_positions_that_nobody_marked(model):
    with pytest.raises(InputError, match=r"requires no gradient .*pos\.requires_grad_\(\), or in the loader"):
        measure(model, [{"pos": random_batch()["pos"]}], inputs={"pos": "1o"}, outputs={"forces": "1o"})


def test_gradients_pass_through_a_twirled_model_to_marked_inputs():
    batch = {"pos": random_batch()["pos"].requires_grad_()}
    Twirled(Tanh(), inputs={"pos": "1o"}, outputs={"forces": "1o"})(batch)["forces"].sum().backward()
    assert batch["pos"].grad.abs().sum() > 0


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)).double()

    def forward(self, pos: torch.Tensor):
        return self.net(pos)


def test_frozen_torchscript_is_the_eager_model():
    model = Plain().eval()
    call = dict(SHORT, forward=lambda m, batch: m(batch["pos"]))
    wanted = measure(model, [random_batch()], **call)
    scripted = torch.jit.script(model)
    for deployed in (scripted, torch.jit.freeze(scripted)):
        found = measure(deployed, [random_batch()], **call)
        assert found.percent == pytest.approx(wanted.percent, rel=1e-9)
        assert found.percent > 1


@pytest.mark.parametrize("layer", [nn.LazyLinear, nn.LazyBatchNorm1d])
def test_lazy_modules_are_refused_before_they_draw_their_weights(layer):
    model = layer(3) if layer is nn.LazyLinear else layer()
    declaration = declare(**SHORT)
    for door in (measure, EquivarianceError(declaration).update, layers, Parts):
        batches = random_batch() if door not in (measure, layers, Parts) else [random_batch()]
        arguments = (model, batches) if door not in (measure, layers, Parts) else (model, batches, declaration)
        with pytest.raises(InputError, match=r"'weight' of Lazy.* has no values yet: call the model on a batch"):
            door(*arguments)
    assert isinstance(model.weight, nn.UninitializedParameter)
