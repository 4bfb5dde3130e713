"""Designs: a second coset on a part of the samples is unbiased, its interval honest, its choice blind to the data."""

import numpy as np
import pytest
import torch

import equiscope as eq
from equiscope.decomposition.collect import Collector
from equiscope.decomposition.losses import LOSSES
from equiscope.decomposition.measure import measured
from equiscope.decomposition.plan import Design, as_plan, make_design, make_plan, second_cosets_need
from equiscope.decomposition.statistics import two_phase
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration, Input, Output, declare
from equiscope.symmetry.grids import GridAction
from equiscope.symmetry.rotations import haar_keyed, rotation_set

from .models import Linear, Tanh, brute_split, random_batch

MSE = {"forces": LOSSES["mse"]}
FIELDS = {"inputs": {"pos": "1o"}, "outputs": {"forces": "1o"}, "target": "y", "noise_samples": 0}
ROUGH = Tanh(scale=1.0).requires_grad_(False)


def one_atom(samples, seed=0):
    return random_batch(samples, 1, seed)


def test_a_declaration_with_its_design_is_a_plan_as_well():
    declaration = declare({"pos": "1o"}, {"forces": "1o"}, "y", "mse")
    plan = make_plan(declaration, rotations="O", cosets=3, seed=5)
    made = as_plan(declaration, {"rotations": "O", "seed": 5}, cosets=3)
    assert made.design.described(0) == plan.design.described(0)
    assert as_plan(declaration, {"cosets": 4}, cosets=3).design.cosets == 4
    assert as_plan(plan, {}, cosets=2, alone=True) is plan
    with pytest.raises(InputError, match="a plan says all of the design: leave out rotations"):
        as_plan(plan, {"rotations": "T"})
    with pytest.raises(InputError, match=r"say what rotates .* got dict"):
        as_plan({"pos": "1o"}, {})
    for moved in ((declaration, {"symmetry": "translation"}), (make_plan(declaration, symmetry="translation"), {})):
        with pytest.raises(InputError, match="analyses are of rotations: leave out symmetry"):
            as_plan(*moved)


def test_the_second_cosets_are_a_function_of_seed_and_id():
    design = Design(rotation_set("O"), 1.25, 3)
    chosen = design.second(range(4000))
    assert design.second([5, 2, 17, 3999, 2]).tolist() == chosen[[5, 2, 17, 3999, 2]].tolist()
    other = Design(rotation_set("O"), 1.25, 4).second(range(4000))
    both = float((chosen & other).double().mean())
    assert abs(both - 0.0625) < 4 * (0.0625 / 4000) ** 0.5


@pytest.mark.parametrize(
    ("cosets", "needed"), [(1.25, 32), (1.5, 16), (1.4, 20), (1.3, 27), (1.1, 80), (1.05, 160), (1.99, 9)]
)
def test_their_number_is_exact_and_every_sample_alike(cosets, needed):
    assert second_cosets_need(cosets) == needed
    repeats = 400
    chosen = torch.stack([Design(rotation_set("O"), cosets, seed).second(range(5 * needed)) for seed in range(repeats)])
    assert int(chosen[:, :needed].sum(1).min()) >= 8
    wanted = 5 * needed * (cosets - 1)
    assert (chosen.sum(1) - wanted).abs().max() < 1
    # Each sample's share of the seeds is binomial about cosets - 1.
    share = chosen.double().mean(0)
    error = ((cosets - 1) * (2 - cosets) / repeats) ** 0.5
    assert (share - (cosets - 1)).abs().max() < 4.5 * error
    assert abs(float(((share - (cosets - 1)) / error).square().mean()) - 1) < 0.6


def test_neighbours_and_periods_are_not_in_step():
    # Frames of one molecule follow each other, so that a sample at every fourth place would see only one of four.
    chosen = torch.stack([Design(rotation_set("O"), 1.25, seed).second(range(320)) for seed in range(400)]).double()
    by_phase = chosen.reshape(400, 80, 4).sum(1)
    assert float(by_phase.std(0).max()) < 4.2
    assert float(by_phase.mean(0).sub(20).abs().max()) < 4 * 4 / 20


@pytest.mark.parametrize("seed", range(20))
def test_a_partial_design_works_at_the_documented_number_of_samples(seed):
    x = one_atom(16)
    result = eq.measure(ROUGH, [x], rotations="D2", cosets=1.5, seed=seed, **FIELDS)
    assert result.interval_kind != "none"
    with pytest.raises(InputError, match=r"15 samples, .* cosets=1.5 needs 16 samples"):
        eq.measure(ROUGH, [{k: v[:15] for k, v in x.items()}], rotations="D2", cosets=1.5, seed=seed, **FIELDS)


def test_scattered_ids_are_taken_independently():
    design = Design(rotation_set("O"), 1.25, 3)
    chosen = design.second([1000 * i for i in range(4000)]).double()
    assert abs(float(chosen.mean()) - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5
    assert design.second([2**63 - 1, 2**62 + 5]).shape == (2,)


@pytest.mark.parametrize("rotations", ["D2", "T"])
def test_a_partial_second_coset_is_unbiased_and_its_error_honest(rotations):
    # A rough model, so that one coset alone is visibly low.
    x = one_atom(40)
    truth = brute_split(lambda p: ROUGH({"pos": p})["forces"], x["pos"][:, 0], x["y"][:, 0], "lebedev-35")
    repeats = 150
    whole = {k: v.repeat(repeats, 1, 1) for k, v in x.items()}
    ids = torch.arange(40 * repeats)
    result = eq.measure(ROUGH, [{**whole, "id": ids}], rotations=rotations, cosets=1.4, ids="id", **FIELDS)
    assert result.passes == pytest.approx(1.4 * len(rotation_set(rotations)))
    values = result.per_sample.equivariance.numpy().reshape(repeats, 40)
    exact = truth[2].numpy()
    error = (values - exact).std() / values.size**0.5
    assert abs(values.mean() - exact.mean()) < 4 * error
    # Without the second cosets the same figure is low.
    assert values.mean() - _between(whole, ids, rotations) < exact.mean() - 4 * error
    # The error that the values themselves show is that of repeated measurements.
    seen = [_mean(x, rotations, seed) for seed in range(60)]
    stated = (values - exact).std() / 40**0.5
    assert np.std(seen, ddof=1) == pytest.approx(stated, rel=0.3)


def _mean(x, rotations, seed):
    return eq.measure(ROUGH, [x], rotations=rotations, cosets=1.4, seed=seed, **FIELDS).equivariance


def _between(batch, ids, rotations):
    """What the variance between cosets contributes on average, from two cosets of every sample."""
    declaration = declare({"pos": "1o"}, {"forces": "1o"}, "y", ids="id")
    collector = Collector(ROUGH, make_plan(declaration, rotations=rotations), 0)
    collector.run({**batch, "id": ids})
    return float(collector.samples().figures["forces"].between.mean())


def test_batches_and_order_do_not_matter():
    x = one_atom(30)
    rest = {"rotations": "T", "cosets": 1.5, "ids": "id", **FIELDS}
    ids = torch.arange(30)
    whole = eq.measure(ROUGH, [{**x, "id": ids}], **rest)
    parts = [{**{k: v[i : i + 7] for k, v in x.items()}, "id": ids[i : i + 7]} for i in range(0, 30, 7)]
    split = eq.measure(ROUGH, parts, **rest)
    assert split.per_sample.ids == whole.per_sample.ids == list(range(30))
    assert torch.allclose(split.per_sample.equivariance, whole.per_sample.equivariance, rtol=1e-11)
    assert torch.allclose(split.per_sample.total, whole.per_sample.total, rtol=1e-11)


def test_where_the_set_is_exact_one_coset_is_as_good_as_two():
    # A linear map has degrees 1 and 2 alone: T leaves nothing between cosets.
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model, x = Linear(matrix).requires_grad_(False), one_atom(40)
    settings = {"inputs": {"pos": "1o"}, "outputs": {"f": "1o"}, "target": "y"}
    full = eq.measure(model, [x], rotations="I", cosets=2, **settings)
    part = eq.measure(model, [x], rotations="I", cosets=1.5, **settings)
    assert part.equivariance == pytest.approx(full.equivariance, rel=1e-10)
    assert part.passes == 90


def test_the_metric_gives_the_figures_of_measure():
    x, settings = one_atom(40), {"rotations": "T", "cosets": 1.5, **FIELDS}
    metric = eq.EquivarianceError(ids="id", **settings)
    for i in range(0, 40, 16):
        part = {k: v[i : i + 16] for k, v in x.items()}
        metric.update(ROUGH, {**part, "id": torch.arange(i, i + len(part["pos"]))})
    assert float(metric.compute()) == pytest.approx(eq.measure(ROUGH, [x], **settings).percent, rel=1e-10)


def test_graphs_give_the_figures_of_padded_batches():
    data = pytest.importorskip("torch_geometric.data")
    eq.adapters.pyg  # noqa: B018
    x, settings = one_atom(30), {"rotations": "T", "cosets": 1.5, **FIELDS}
    graphs = [data.Data(pos=p, y=y) for p, y in zip(x["pos"], x["y"], strict=True)]
    model = lambda batch: {"forces": ROUGH({"pos": batch.pos})["forces"]}  # noqa: E731
    result = eq.measure(model, [data.Batch.from_data_list(graphs)], **settings)
    assert result.percent == pytest.approx(eq.measure(ROUGH, [x], **settings).percent, rel=1e-10)


def test_two_phase_values_have_the_mean_of_the_estimate():
    random = np.random.default_rng(0)
    first, second, known = random.random(50), random.random(50), random.random(50) < 0.3
    second[~known] = np.nan
    values = two_phase(first, second, known)
    assert values.mean() == pytest.approx(first.mean() + second[known].mean(), rel=1e-12)
    everything = two_phase(first, first, np.ones(50, dtype=bool))
    assert everything == pytest.approx(2 * first, rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cosets": 2.5}, "a number between 1 and 2"),
        ({"cosets": 1.0}, "cosets must be an integer"),
        ({"cosets": float("nan")}, "cosets must be an integer"),
        ({"cosets": "1.5"}, "cosets must be an integer"),
        ({"cosets": 1.5, "rotations": "haar"}, "needs a set of several rotations"),
        ({"cosets": 1.5, "loss": "l2_norm"}, "at least 4 independent cosets"),
        ({"cosets": 1.5, "rtol": 0.1}, "rtol and spectrum need"),
        ({"cosets": 1.5, "spectrum": True}, "rtol and spectrum need"),
        ({"cosets": 1.5, "shift": False}, "give cosets=1 and a set"),
        ({"cosets": 1.125}, "12 samples, .* are too few .* needs 64 samples"),
    ],
)
def test_typed_error(settings, words):
    with pytest.raises(InputError, match=words):
        eq.measure(ROUGH, [one_atom(12)], **{"rotations": "T", **FIELDS, **settings})


def test_the_whole_group_is_measured_once_whatever_was_asked():
    design = make_design("O", 2, 0, "O", MSE)
    assert (design.cosets, design.shift, design.passes) == (1, False, 24)


# The walk.


def test_a_walk_goes_through_every_coset_of_every_sample():
    plan = make_plan(declare({"pos": "1o"}, {"forces": "1o"}), rotations="T", cosets=3, seed=5)
    passes = list(plan.walk([7, 2], torch.device("cpu")))
    assert [one.last_of_coset for one in passes] == ([False] * 11 + [True]) * 3
    assert [one.weight for one in passes] == [pytest.approx(1 / 12)] * 36
    for place, one in enumerate(passes):
        shift = haar_keyed(5, [7, 2], place // 12)
        assert torch.allclose(one.turns, plan.design.rotations.matrices[place % 12] @ shift)
    later = list(plan.walk([2], torch.device("cpu"), first=2, cosets=1))
    assert torch.equal(torch.stack([one.turns[0] for one in later]), torch.stack([p.turns[1] for p in passes[24:]]))


def test_one_coset_alone_is_for_functions_and_not_measured():
    declaration = declare({"pos": "1o"}, {"forces": "1o"}, "y")
    plan = make_plan(declaration, cosets=1, alone=True)
    assert plan.design.lone == "whole"
    with pytest.raises(InputError, match="cosets=1 is too few: mse"):
        measured(ROUGH, [one_atom(3)], plan)
    with pytest.raises(InputError, match="cosets=1 is too few: l1"):
        make_plan(declare({"pos": "1o"}, {"forces": "1o"}, "y", "l1"), cosets=1, alone=True)
    assert len(list(make_plan(declaration, None, "haar", 1, alone=True).walk([0], torch.device("cpu")))) == 1


def test_rotations_that_a_grid_cannot_follow_are_refused_before_anything_is_turned():
    def plan(group, **more):
        grid = GridAction(4)
        declaration = Declaration({"grid": Input(grid)}, {"grid": Output(grid, per="sample")}, group=group)
        return make_plan(declaration, **more)

    assert plan("O", rotations="O").design.passes == 24
    with pytest.raises(InputError, match="claim group='O' with rotations='O'"):
        plan("SO3")
    # An average over the set as it is turns by nothing else; a measured floor would.
    assert not plan("SO3", rotations="O", cosets=1, shift=False, judged=False).design.shift
    with pytest.raises(InputError, match="claim group='O' with rotations='O'"):
        plan("SO3", rotations="O", cosets=1, shift=False)
