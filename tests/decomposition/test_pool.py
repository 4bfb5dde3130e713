"""Pooling by hand-made figures: weights, clusters, floors, skill, notes, each against its formula."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import equiscope as eq
from equiscope.decomposition.losses import LOSSES
from equiscope.decomposition.noise import Known
from equiscope.decomposition.plan import make_plan
from equiscope.decomposition.pool import group_notes, host, loss_notes, sample_weights, summarise
from equiscope.decomposition.samples import FLOOR, LabelRows, Samples, SampleValues
from equiscope.errors import InputError
from equiscope.symmetry.actions import action
from equiscope.symmetry.declaration import Output, declare

DESIGN = {"passes": 24, "model_calls": 30, "rotations": "T", "cosets": 2, "seed": 0}
NAN = math.nan


def figures(
    total, equivariance, components=None, square=None, invariant=None, between=None, target_square=None, variance=None
):
    column = lambda v: torch.tensor(v, dtype=torch.float64)  # noqa: E731
    n = len(total)
    return SampleValues.unknown(
        n,
        total=column(total),
        equivariance=column(equivariance),
        between=column(between or [0.0] * n),
        variance=column(variance or equivariance),
        square=column(square or [2.0] * n),
        components=column(components or [3.0] * n),
        target_square=column(target_square or [4.0] * n),
        target_invariant=column(invariant).reshape(n, -1) if invariant else torch.zeros(n, 0, dtype=torch.float64),
        as_given=column(total) + 0.5,
    )


def floor_columns(values, floors):
    """The columns of floors that many think certain: loss, rounding, |f|^2, degrees of freedom, jump."""
    columns = torch.full((len(values.total), len(FLOOR)), torch.nan, dtype=torch.float64)
    for place, floor in enumerate(floors):
        columns[place] = torch.tensor([floor, floor, float(values.square[place]), 1e9, 0.0])
    return columns


def collected(values, floors=None, clusters=None, axes=None, labels=None, powers=None):
    """Figures of outputs by name; the floor is 1e-9 unless given, NaN for samples beyond those given."""
    n = len(next(iter(values.values())).total)
    made = {
        name: replace(
            v, floor=floor_columns(v, (floors or {}).get(name, [1e-9])), **({"powers": powers[name]} if powers else {})
        )
        for name, v in values.items()
    }
    return Samples(list(range(n)), clusters or list(range(n)), made, axes, labels or {})


def pooled(values, outputs=None, cosets=2, notes=(), losses=None, **settings):
    names = {name: Output("1o", target="y") for name in values} if outputs is None else outputs
    keys = {k: settings.pop(k) for k in ("floors", "clusters", "powers", "axes", "labels") if k in settings}
    plan = make_plan(declare({"pos": "1o"}, names, **settings), cosets=cosets)
    plan = replace(plan, losses=losses or plan.losses, highest_degree=2 if "powers" in keys else 0)
    return summarise(collected(values, **keys), plan, Known(wanted=99), DESIGN | {"cosets": cosets}, list(notes))


def test_ratio_of_means_over_samples():
    result = pooled({"f": figures([4.0, 2.0, 6.0], [1.0, 0.4, 0.4])})
    assert (result.total, result.equivariance, result.twirled) == pytest.approx((4, 0.6, 3.4))
    assert result.percent == pytest.approx(15)
    assert result.mean_of_ratios_percent == pytest.approx(100 * (1 / 4 + 1 / 5 + 1 / 15) / 3)
    assert result.loss_as_given == pytest.approx(4.5)
    assert result.relative_equivariance == pytest.approx(0.3)
    assert (result.samples, result.clusters, result.interval_kind) == (3, 3, "upper limit")
    # Delta method: residuals A - R B = (0.4, 0.1, -0.5), n / (n - 1) = 3/2, over the sum 12.
    jackknife = np.array([0.8 / 8, 1.4 / 10, 1.4 / 6])
    jackknife = math.sqrt(2 / 3 * ((jackknife - jackknife.mean()) ** 2).sum())
    assert result.percent_error == pytest.approx(100 * max(math.sqrt(1.5 * 0.42) / 12, jackknife))


def _kept(forward, key):
    """A model that keeps its answers, and what it takes for the same input."""
    answers = {}
    return lambda batch: answers.setdefault(key(batch), forward(batch))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_answers_that_do_not_follow_the_input_are_noted(dtype):
    mixing = torch.tensor([[1.0, 0.3, 0.0], [0.0, 1.0, 0.2], [0.1, 0.0, 1.0]], dtype=dtype)

    def linear(batch):
        return {"f": batch["pos"] @ mixing, "e": batch["pos"].square().sum((1, 2))}

    pos = torch.randn(12, 5, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    loader = [{"pos": some, "y": some, "z": some.square().sum((1, 2))} for some in pos.split(4)]
    declared = eq.Declaration(
        {"pos": "1o"}, {"f": eq.Output("1o", target="y"), "e": eq.Output("0e", target="z", per="sample")}
    )
    for model, noted in (
        (linear, False),
        (_kept(linear, lambda batch: batch["pos"].shape), True),
        (lambda batch: {"f": torch.ones_like(batch["pos"]), "e": batch["z"]}, True),
        # A scalar of the laboratory averages to zero as well, but does follow.
        (lambda batch: {**linear(batch), "e": batch["pos"][..., 0].sum(1)}, False),
    ):
        notes = [note for note in eq.measure(model, loader, declared).notes if "follow" in note]
        assert bool(notes) is noted
        assert all("['f']" in note for note in notes)


@pytest.mark.parametrize(
    ("answer", "group"),
    [
        (lambda pos: pos[..., [1, 2, 0]], "SO3"),
        (lambda pos: torch.linalg.cross(pos, pos.roll(1, 1)), "O3"),
    ],
    ids=["exchanged axes", "the other parity"],
)
def test_answers_that_follow_in_another_way_are_not_called_constants(answer, group):
    """The permutation of three axes has trace zero, a pseudovector changes sign beside a vector: both average to 0."""
    loader = [{"pos": torch.randn(8, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)}]
    found = eq.measure(
        lambda batch: {"f": answer(batch["pos"])}, loader, inputs={"pos": "1o"}, outputs={"f": "1o"}, group=group
    )
    assert found.relative_equivariance == pytest.approx(1.0, abs=1e-9)
    (note,) = (note for note in found.notes if "follows the input" in note)
    assert "at all" not in note
    assert "exchanged axes" in note
    assert "the other parity" in note


@pytest.mark.parametrize(("sign", "noted"), [(1.0, False), (-1.0, True)])
def test_labels_of_the_other_sign_are_noted(sign, noted):
    """A stress beside the labels of a virial, 5 % of noise on both."""
    x = torch.randn(40, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    stress = torch.einsum("bni,bnj->bij", x, x)
    labels = sign * stress + 0.05 * torch.randn(40, 3, 3, generator=torch.Generator().manual_seed(1)).double()

    def model(batch):
        return {"stress": torch.einsum("bni,bnj->bij", batch["pos"], batch["pos"])}

    declared = eq.Declaration({"pos": "1o"}, {"stress": eq.Output("stress", target="y", per="sample")})
    result = eq.measure(model, [{"pos": x, "y": labels}], declared)
    assert any("stress points against its labels (cosine -1.00)" in note for note in result.notes) is noted
    unlabelled = eq.Declaration({"pos": "1o"}, {"stress": eq.Output("stress", per="sample")}, fixed=["y"])
    assert not any("against" in note for note in eq.measure(model, [{"pos": x, "y": labels}], unlabelled).notes)


def test_components_are_weights_only_where_asked():
    values = figures([4.0, 2.0], [1.0, 0.2], components=[9, 3], square=[1.0, 5.0])
    assert sample_weights(values, "sample").tolist() == [1, 1]
    assert sample_weights(values, "component").tolist() == [1.5, 0.5]
    result = pooled({"f": values}, weighting="component", floors={"f": [1e-3, 3e-3]})
    assert result.total == pytest.approx((9 * 4 + 3 * 2) / 12)
    assert result.equivariance == pytest.approx((9 * 1 + 3 * 0.2) / 12)
    assert result.relative_equivariance == pytest.approx(result.equivariance / ((9 * 1 + 3 * 5) / 12))
    assert result.noise_floor == pytest.approx((9 * 1e-3 + 3 * 3e-3) / 12)
    assert result.loss_as_given == pytest.approx(result.total + 0.5)


def test_clusters_are_the_units_of_the_error():
    values = figures([1.0, 3.0, 2.0, 2.0], [0.1, 0.5, 0.1, 0.3])
    apart, together = pooled({"f": values}), pooled({"f": values}, clusters=["a", "a", "b", "b"])
    as_one = pooled({"f": figures([4.0, 4.0], [0.6, 0.4])})
    assert apart.percent == together.percent == as_one.percent == pytest.approx(12.5)
    assert (together.percent_error, together.percent_interval) == (as_one.percent_error, as_one.percent_interval)
    assert together.percent_error != pytest.approx(apart.percent_error, rel=0.1)
    assert (together.samples, together.clusters) == (4, 2)
    residual = np.array([0.1, 0.5, 0.1, 0.3]) - 0.125 * np.array([1.0, 3.0, 2.0, 2.0])
    assert apart.effective_clusters == pytest.approx((residual**2).sum() ** 2 / (residual**4).sum())
    assert together.effective_clusters == as_one.effective_clusters == pytest.approx(2)


def test_one_sample_has_a_value_and_no_interval():
    result = pooled({"f": figures([4.0], [1.0])})
    assert result.percent == 25
    assert (result.interval_kind, result.clusters) == ("none", 1)
    assert math.isnan(result.percent_error)
    assert any("fewer than two clusters" in n for n in result.notes)


def test_outputs_are_added_with_their_weights_and_contributions_make_the_whole():
    values = {"e": figures([2.0, 4.0], [0.2, 0.2]), "f": figures([1.0, 1.0], [0.3, 0.5], square=[8.0, 8.0])}
    outputs = {"e": Output("1o", target="a", weight=10), "f": Output("1o", target="b", weight=0.5)}
    result = pooled(values, outputs, floors={"e": [1e-3], "f": [4e-3]})
    assert result.total == pytest.approx(10 * 3 + 0.5 * 1)
    assert result.equivariance == pytest.approx(10 * 0.2 + 0.5 * 0.4)
    assert result.noise_floor == pytest.approx(10 * 1e-3 + 0.5 * 4e-3)
    assert result.relative_equivariance == pytest.approx(result.equivariance / (10 * 2 + 0.5 * 8))
    assert result.loss_as_given == pytest.approx(10 * 3.5 + 0.5 * 1.5)
    assert result.r2 == pytest.approx(1 - 30.5 / (10 * 4 + 0.5 * 4))
    assert result.outputs["f"].r2 == pytest.approx(1 - 1 / 4)
    assert result.outputs["e"].percent == pytest.approx(100 * 0.2 / 3)
    assert result.outputs["f"].percent == pytest.approx(40)
    assert sum(o.contribution_percent for o in result.outputs.values()) == pytest.approx(result.percent)
    assert result.outputs["f"].contribution_percent == pytest.approx(100 * 0.2 / 30.5)


def test_outputs_without_labels_do_not_enter_the_headline():
    values = {"f": figures([1.0, 1.0], [0.3, 0.5]), "e": figures([NAN, NAN], [7.0, 9.0], square=[10.0, 10.0])}
    result = pooled(values, {"f": Output("1o", target="y"), "e": Output("1o")})
    assert result.percent == pytest.approx(40)
    assert result.outputs["e"].relative_equivariance == pytest.approx(0.8)
    assert math.isnan(result.outputs["e"].percent)
    assert any("no target for ['e']" in n for n in result.notes)
    alone = pooled({"e": values["e"]}, {"e": Output("1o")})
    assert math.isnan(alone.percent)
    assert alone.relative_equivariance == pytest.approx(0.8)


@pytest.mark.parametrize(("floors", "mean"), [([2e-3], 2e-3), ([1e-3, NAN, 5e-3], 3e-3), ([NAN, NAN, 5e-3], 5e-3)])
def test_the_floor_is_that_of_the_samples_that_have_one(floors, mean):
    result = pooled({"f": figures([4.0, 2.0, 6.0], [1.0, 0.2, 0.6])}, floors={"f": floors})
    assert result.noise_floor == pytest.approx(mean)
    assert result.noise_floor_percent == pytest.approx(100 * mean / 4)


@pytest.mark.parametrize(
    ("samples", "times", "above"), [(10, 2.9, False), (10, 3.1, True), (2, 6.8, False), (2, 7.0, True)]
)
def test_distinguishable_from_three_floors_on_and_more_of_few_samples(samples, times, above):
    result = pooled({"f": figures([1.0] * samples, [times * 1e-3] * samples)}, floors={"f": [1e-3]})
    assert result.distinguishable == result.outputs["f"].distinguishable == above
    assert any("not distinguishable" in n for n in result.notes) != above


@pytest.mark.parametrize(
    ("irreps", "group", "invariant", "constant"),
    [
        ("3x0e", "SO3", [[0.0, 2.0, 5.0], [2.0, 4.0, 7.0]], [1, 3, 6]),
        # Under O(3) a constant pseudoscalar is no symmetric answer, wherever it stands.
        ("2x0e+1x0o", "O3", [[0.0, 2.0, 5.0], [2.0, 4.0, 7.0]], [1, 3, 0]),
        ("1x0o+2x0e", "O3", [[5.0, 0.0, 2.0], [7.0, 2.0, 4.0]], [0, 1, 3]),
        ("1x0o+2x0e", "SO3", [[5.0, 0.0, 2.0], [7.0, 2.0, 4.0]], [6, 1, 3]),
    ],
)
def test_skill_is_against_the_invariant_mean(irreps, group, invariant, constant):
    values = figures([1.0, 1.0], [0.1, 0.1], invariant=invariant, target_square=[20.0, 24.0])
    result = pooled({"e": values}, {"e": Output(irreps, target="y")}, group=group)
    assert result.r2 == pytest.approx(1 - 1 / (22 - sum(c * c for c in constant) / 3))


def test_the_invariant_mean_is_weighted_like_the_loss():
    values = figures([1.0, 1.0], [0.1, 0.1], [9, 3], invariant=[[0.0], [4.0]], target_square=[4.0, 20.0])
    result = pooled({"e": values}, {"e": Output("0e", target="y")}, weighting="component")
    assert result.r2 == pytest.approx(1 - 1 / ((9 * 4 + 3 * 20) / 12 - 1**2))


def test_skill_of_a_vector_is_against_zero():
    assert pooled({"f": figures([1.0, 1.0], [0.1, 0.1])}).r2 == pytest.approx(1 - 1 / 4)


def partial(known, samples=16):
    """Samples of 0.5 within cosets; of the first ``known``, 0.2 between them."""
    between = [0.2 if i < known else NAN for i in range(samples)]
    return figures([4.0] * samples, [0.5 + 0.2 * (i < known) for i in range(samples)], between=between)


@pytest.mark.parametrize("known", [2, 7, 8])
def test_a_partial_second_coset_is_carried_over(known):
    assert pooled({"f": partial(known)}, cosets=1.5).equivariance == pytest.approx(0.7)


@pytest.mark.parametrize(("known", "samples"), [(7, 15), (14, 15), (1, 16)])
def test_a_partial_design_of_too_few_samples_is_refused(known, samples):
    words = f"{samples} samples, {known} of them with a second coset, .* cosets=1.5 needs 16 samples"
    with pytest.raises(InputError, match=words):
        pooled({"f": partial(known, samples)}, cosets=1.5)


def test_shares_by_degree_are_of_the_weighted_whole():
    values = {"e": figures([1.0, 1.0], [0.2, 0.4]), "f": figures([1.0, 1.0], [0.1, 0.1])}
    outputs = {"e": Output("1o", target="a", weight=2), "f": Output("1o", target="b")}
    powers = {"e": torch.tensor([[0.1, 0.1], [0.3, 0.1]], dtype=torch.float64), "f": torch.eye(2).double() / 10}
    result = pooled(values, outputs, powers=powers)
    assert result.spectrum["share"] == pytest.approx([(2 * 0.2 + 0.05) / 0.7, (2 * 0.1 + 0.05) / 0.7])
    assert result.spectrum["remainder"] == pytest.approx(0, abs=1e-12)


def test_orientation_is_of_all_samples():
    along = torch.stack([torch.diag(torch.tensor(d)).double() for d in ([1.0, 0, 0], [0.0, 1, 0])])
    result = pooled({"f": figures([1.0, 1.0], [0.1, 0.1])}, axes=along)
    assert result.orientation == pytest.approx((0, 0.5, 0.5))
    assert pooled({"f": figures([1.0], [0.1])}).orientation is None


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (figures([0.0, 0.0], [0.0, 0.0]), "the total loss is zero"),
        (figures([3.9, 3.9], [0.1, 0.1]), "hardly better than the best constant predictor (R² 0.03)"),
        (figures([4.2, 4.2], [0.1, 0.1]), "worse than the best constant predictor (R² -0.05)"),
        (figures([1.0, 1.0], [-0.1, 0.05]), "the estimate is negative"),
    ],
)
def test_what_a_reader_must_know(values, note):
    result = pooled({"f": values}, notes=["said before"])
    assert result.notes[0] == "said before"
    assert any(note in n for n in result.notes)
    sound = pooled({"f": figures([1.0, 1.0], [0.1, 0.11])})
    assert sound.notes == ()


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_reader_is_told_of_the_hardware_that_the_batches_were_on(kind):
    plan = make_plan(declare({"pos": "1o"}, {"forces": "1o"}, "y"))
    known = Known(wanted=99, device=torch.device(kind))
    notes = summarise(collected({"forces": figures([2.0], [1.0])}), plan, known, DESIGN, ["own"]).notes
    assert any("GPU kernels" in note for note in notes) is (kind == "cuda")
    assert "own" in notes


def test_nothing_is_clipped():
    result = pooled({"f": figures([1.0, 1.0], [-0.1, 0.05])})
    assert result.percent == pytest.approx(-2.5)
    assert result.per_sample.equivariance.tolist() == [-0.1, 0.05]


def test_repeated_ids_are_counted_and_said():
    data = replace(collected({"f": figures([1.0, 3.0, 2.0], [0.1, 0.1, 0.1])}), ids=[4, 4, 5])
    plan = make_plan(declare({"pos": "1o"}, {"f": "1o"}, "y"))
    result = summarise(data, plan, Known(wanted=99), DESIGN, [])
    assert (result.samples, result.total) == (3, 2)
    assert any(n.startswith("1 samples repeat an id") for n in result.notes)


@pytest.mark.parametrize(
    ("group", "rotations", "words"),
    [("SO3", "T", []), ("O3", "T", []), ("O", "O", ["exact"]), ("O", "T", ["unbiased"])],
)
def test_a_claim_smaller_than_so3(group, rotations, words):
    notes = group_notes(group, rotations)
    assert [n.split()[0] for n in notes] == words
    assert all("a lower bound of the SO(3) error" in n for n in notes)


def test_notes_of_other_losses():
    vector = 2.0, 1.0, action("1o"), "SO3"
    assert loss_notes(LOSSES["mse"], np.array([1.0, 1.1, 1.3]), *vector) == []
    (frame,) = loss_notes(LOSSES["l1"], np.full(3, np.nan), *vector)
    assert "'l1' acts on components and is not rotation invariant" in frame
    (bias,) = loss_notes(LOSSES["l2_norm"], np.array([1.0, 1.1, 1.3]), *vector)
    assert "1.3, 1.1, 1 at a quarter, half and all cosets (bias of order 1.00 in 1/cosets)" in bias
    # No order where the plug-in does not fall.
    assert loss_notes(LOSSES["l2_norm"], np.array([1.0, 0.9, 1.3]), *vector) == []
    assert loss_notes(LOSSES["l2_norm"], np.array([1.0, 1.1, 1.05]), *vector) == []
    label = LabelRows(torch.tensor([[1.0, 2.0, 3.0]]).double(), torch.zeros(1).long())
    result = pooled({"f": figures([1.0], [0.1])}, losses={"f": LOSSES["l1"]}, labels={"f": label})
    assert frame in result.notes
    assert result.r2 == pytest.approx(1 - 1 / 2)


def test_a_bias_that_the_jackknife_leaves_is_said():
    # A plug-in loss of 8 / sqrt(cosets): 4, 4 sqrt 2, 8 at 4, 2 and 1 cosets; without bias it is 0 and all of 8 is
    # equivariance error.
    falling = np.array([4.0, 4 * math.sqrt(2), 8.0])
    vector = action("1o"), "SO3"
    (said,) = loss_notes(LOSSES["l2_norm"], falling, 8.0, 6.0, *vector)
    assert "bias of order 0.50" in said
    assert "too low, by about 25 %" in said
    (right,) = loss_notes(LOSSES["l2_norm"], falling, 8.0, 7.9, *vector)
    assert "too low" not in right
    # Of order 1, the jackknife takes it away whatever its size.
    (first,) = loss_notes(LOSSES["l2_norm"], np.array([2.0, 4.0, 8.0]), 8.0, 6.0, *vector)
    assert "too low" not in first


@pytest.mark.parametrize(("residual", "flagged"), [(0.0, True), (1.0, False)])
@pytest.mark.parametrize("name", ["l1", "l2_norm"])
def test_a_residual_under_the_spread_is_flagged_where_the_split_is_low(name, residual, flagged):
    random = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 300, 2, 3, generator=random, dtype=torch.float64)
    matrix = torch.eye(3).double() + 0.2 * torch.randn(3, 3, generator=random, dtype=torch.float64)
    # The twirled prediction of x W is tr W / 3 x: without a residual all the loss is equivariance error.
    y = x * matrix.trace() / 3 + residual * noise
    result = eq.measure(
        lambda batch: batch["pos"] @ matrix, [{"pos": x, "y": y}], rotations="haar", cosets=4, noise_samples=0,
        inputs={"pos": "1o"}, outputs={"f": Output("1o", target="y", loss=name)},
    )  # fmt: skip
    said = [note for note in result.notes if "too low, by about" in note]
    assert bool(said) == flagged
    if flagged:
        assert 70 < result.percent < 85
        assert float(said[0].split("by about ")[1].split(" %")[0]) == pytest.approx(100 - result.percent, abs=4)


def test_host_is_a_float64_array():
    array = host(torch.ones(2, dtype=torch.float32, requires_grad=True))
    assert (array.dtype, array.tolist()) == (np.float64, [1, 1])
