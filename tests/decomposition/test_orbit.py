"""The orbit: positions about their centre, tensors and cells with them, padding untouched, outputs turned back."""

import pickle

import pytest
import torch

from equiscope import EquivarianceError, Twirled, measure
from equiscope.decomposition.batches import DenseBatch
from equiscope.decomposition.checks import check_batch
from equiscope.decomposition.orbit import center, rotated, twisted
from equiscope.errors import DeclarationError, InputError, ModelError
from equiscope.symmetry.declaration import Declaration, Input, Output
from equiscope.symmetry.rotations import haar

from .models import linear_error

G = haar(2, torch.Generator().manual_seed(0))
POS = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
CELL = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
MASK = torch.tensor([[True, True, False], [True, True, True]])


def test_each_sample_turns_by_its_own_rotation():
    turned = rotated(DenseBatch({"pos": POS}), G, Declaration({"pos": "1o"}, {"f": "1o"}))["pos"]
    assert torch.allclose(turned, torch.einsum("bij,baj->bai", G, POS))


def test_cells_turn_with_the_positions_but_not_about_the_centre():
    declaration = Declaration({"pos": Input("1o", points=True), "cell": "1o"}, {"f": "1o"}, center="mean", mask="mask")
    turned = rotated(DenseBatch({"pos": POS, "cell": CELL, "mask": MASK}), G, declaration)
    assert torch.allclose(turned["cell"], torch.einsum("bij,baj->bai", G, CELL))
    c = center(DenseBatch({"pos": POS, "mask": MASK}), declaration)
    assert torch.allclose(c[0], POS[0, :2].mean(0))
    assert torch.allclose(turned["pos"][1], (POS[1] - c[1]) @ G[1].T + c[1])
    # Fractional coordinates are what a periodic model sees.
    before, after = (p[1] @ torch.linalg.inv(h[1]) for p, h in ((POS, CELL), (turned["pos"], turned["cell"])))
    assert torch.allclose((before - before[:1]), (after - after[:1]), atol=1e-12)


def test_padding_keeps_its_bits():
    pos = POS.clone()
    pos[0, 2] = torch.tensor([999.0, float("nan"), float("-inf")])
    declaration = Declaration({"pos": "1o"}, {"f": "1o"}, mask="mask", center="mean")
    turned = rotated(DenseBatch({"pos": pos, "mask": MASK}), G, declaration)["pos"]
    assert torch.equal(turned[0, 2].isnan(), pos[0, 2].isnan())
    assert turned[0, 2, 0] == 999
    assert torch.isfinite(turned[MASK]).all()


def test_the_models_dtype_is_kept_and_the_rotation_is_float64():
    turned = rotated(DenseBatch({"pos": POS.float()}), G, Declaration({"pos": "1o"}, {"f": "1o"}))["pos"]
    assert turned.dtype == torch.float32
    exact = torch.einsum("bij,baj->bai", G, POS.float().double()).float()
    assert torch.equal(turned, exact)


def test_equivariant_outputs_come_back_unchanged():
    declaration = Declaration(
        {"pos": "1o"}, {"f": "1o", "s": Output("stress", per="sample"), "e": Output("0e", per="sample")}
    )

    def model(batch):
        x = batch["pos"]
        return {"f": 2 * x, "s": torch.einsum("bai,baj->bij", x, x), "e": x.square().sum((1, 2))}

    batch = DenseBatch({"pos": POS})
    eye = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    for name, rows in twisted(model, batch, G, declaration).items():
        assert torch.allclose(rows, twisted(model, batch, eye, declaration)[name], atol=1e-12)


def test_gradients_flow_through_a_pass():
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    p = twisted(lambda b: weight * b["pos"], DenseBatch({"pos": POS}), G, Declaration({"pos": "1o"}, {"f": "1o"}))["f"]
    p.square().sum().backward()
    assert weight.grad == pytest.approx(float(4 * POS.square().sum()))


def test_outputs_may_be_attributes():
    class Answer:
        f = POS

    rows = twisted(lambda b: Answer(), DenseBatch({"pos": POS}), G, Declaration({"pos": "1o"}, {"f": "1o"}))["f"]
    assert torch.allclose(rows, torch.einsum("bji,baj->bai", G, POS))


def test_undeclared_floats_stop_with_the_remedy():
    declaration = Declaration({"pos": "1o"}, {"f": "1o"})
    with pytest.raises(DeclarationError, match=r"\['cell', 'q'\].*fixed=\['cell', 'q'\]"):
        check_batch(DenseBatch({"pos": POS, "cell": CELL, "q": torch.zeros(2)}), declaration)
    check_batch(DenseBatch({"pos": POS, "z": torch.zeros(2, 3, dtype=torch.long)}), declaration)


def test_a_per_sample_output_declared_per_atom_is_explained():
    declaration = Declaration({"pos": "1o"}, {"e": Output("0e")}, mask="mask")
    with pytest.raises(DeclarationError, match="per='sample'"):
        twisted(lambda b: b["pos"].sum((1, 2)), DenseBatch({"pos": POS, "mask": MASK}), G, declaration)


# Positions as outputs turn about the centre.

FAR = POS + torch.tensor([5.0, -3.0, 2.0], dtype=torch.float64)
MIX = torch.randn(3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
THIRD = FAR[:, 2]


def about(pos, middle, matrix):
    return middle + (pos - middle) @ matrix.T


CENTRES = {
    "mean": ({"pos": FAR}, {"center": "mean"}, lambda b: b["pos"].mean(1, keepdim=True), FAR.mean(1, keepdim=True)),
    "mean of real atoms": (
        {"pos": FAR, "m": MASK}, {"center": "mean", "mask": "m"},
        lambda b: (b["pos"] * b["m"][..., None]).sum(1, keepdim=True) / b["m"].sum(1)[:, None, None],
        torch.stack([FAR[0, :2].mean(0), FAR[1].mean(0)])[:, None]),
    "field": ({"pos": FAR, "c": THIRD}, {"center": "c"}, lambda b: b["c"][:, None], THIRD[:, None]),
}  # fmt: skip


@pytest.mark.parametrize("name", CENTRES)
@pytest.mark.parametrize("loss", ["mse", "l2_norm", "own"])
def test_positions_as_outputs_turn_about_the_centre(name, loss):
    """An exact denoiser, c + 0.9 (x - c), has no error; a linear one that of its centred part, in closed form."""
    batch, settings, middle, truth = CENTRES[name]
    own = lambda p, t: torch.where(real[..., None], p - t, 0.0).norm(dim=-1).sum(1) / real.sum(1)  # noqa: E731
    real = MASK if "m" in batch else torch.ones(2, 3, dtype=torch.bool)
    output = Output("1o", target="y", points=True, loss=own if loss == "own" else loss)
    call = dict(inputs={"pos": "1o"}, outputs={"x": output}, cosets=4, **settings)
    batch = batch | {"y": FAR}
    exact = measure(lambda b: {"x": about(b["pos"], middle(b), 0.9 * torch.eye(3).double())}, [batch], **call)
    assert abs(exact.percent) < 1e-10
    shown = torch.where(real[..., None], FAR - truth, 0.0)
    assert exact.relative_equivariance < 1e-13
    result = measure(lambda b: {"x": about(b["pos"], middle(b), MIX)}, [batch], **call)
    if loss == "mse":
        error = (linear_error(MIX, shown).sum(1) / real.sum(1)).mean()
        assert result.equivariance == pytest.approx(float(error), rel=1e-9)
        # The best constant is the centre itself: its loss is the mean square distance from it.
        baseline = (shown.square().mean(-1).sum(1) / real.sum(1)).mean()
        assert 1 - result.r2 == pytest.approx(result.total / float(baseline), rel=1e-9)
    # The answer as given and the turned ones are judged by the same labels.
    errors = torch.where(real[..., None], about(FAR, truth, MIX) - FAR, 0.0)
    given = errors.square().mean(-1) if loss == "mse" else errors.norm(dim=-1)
    assert result.loss_as_given == pytest.approx(float((given.sum(1) / real.sum(1)).mean()), rel=1e-12)


def test_a_twirled_model_of_positions():
    """Averaged over the octahedral group, c + W (x - c) is c + tr W / 3 (x - c)."""
    for name in CENTRES:
        batch, settings, middle, truth = CENTRES[name]
        model = lambda b: {"x": about(b["pos"], middle(b), MIX)}  # noqa: E731, B023
        outputs = {"x": Output("1o", points=True)}
        twirled = Twirled(model, inputs={"pos": "1o"}, outputs=outputs, rotations="O", **settings)
        real = batch.get("m", torch.ones(2, 3, dtype=torch.bool))
        wanted = truth + MIX.trace() / 3 * (FAR - truth)
        assert twirled(batch)["x"][real] == pytest.approx(wanted[real], abs=1e-12)


def test_far_from_the_origin_rounding_is_the_floor_of_positions():
    batch = {"pos": (FAR + 100).float()}
    model = lambda b: {"x": about(b["pos"], b["pos"].mean(1, keepdim=True), 0.9 * torch.eye(3))}  # noqa: E731
    outputs = {"x": Output("1o", points=True)}
    result = measure(model, [batch], inputs={"pos": "1o"}, outputs=outputs, center="mean", noise_samples=64)
    assert not result.distinguishable
    # Positions near 105 in single precision: a rounding of up to 3.8e-6 each, squared and no less than a tenth of it.
    assert 1e-13 < result.noise_floor < 1e-9


SAID = "x' lies where the positions of its sample lie, but was turned as vectors"


def test_positions_that_were_turned_as_vectors_are_noted():
    batch = {"pos": FAR, "y": FAR}
    denoiser = lambda b: {"x": about(b["pos"], b["pos"].mean(1, keepdim=True), 0.9 * torch.eye(3).double())}  # noqa: E731

    def notes(model, batch=batch, points=None, **settings):
        outputs = {"x": Output("1o", target="y", points=points)}
        return " ".join(measure(model, [batch], inputs={"pos": "1o"}, outputs=outputs, **settings).notes)

    assert SAID in notes(denoiser, center="mean")
    assert SAID in notes(denoiser, batch | {"c": THIRD}, center="c")
    metric = EquivarianceError(inputs={"pos": "1o"}, outputs={"x": Output("1o", target="y")}, center="mean")
    metric.update(denoiser, batch)
    metric.update(denoiser, batch)
    assert sum(SAID in note for note in metric.result().notes) == 1
    metric.reset()
    forces = lambda b: {"x": b["pos"] - b["pos"].mean(1, keepdim=True)}  # noqa: E731
    metric.update(forces, batch | {"y": forces(batch)["x"]})
    assert not any(SAID in note for note in metric.result().notes)
    # Said, about the origin, forces, and data whose centre is the origin: nothing to note.
    assert SAID not in notes(denoiser, points=True, center="mean")
    assert SAID not in notes(denoiser, points=False, center="mean")
    assert SAID not in notes(denoiser)
    assert SAID not in notes(forces, batch | {"y": forces(batch)["x"]}, center="mean")
    assert SAID not in notes(denoiser, batch | {"y": 1.2 * FAR}, center="mean")
    centred = FAR - FAR.mean(1, keepdim=True)
    assert SAID not in notes(lambda b: {"x": 0.9 * b["pos"]}, {"pos": centred, "y": centred}, center="mean")


# The model's own errors.


@pytest.mark.parametrize(
    "error",
    [KeyError("attention"), ValueError("line one\nline two"), torch.OutOfMemoryError("full"), AssertionError(),
     UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), FileNotFoundError(2, "none", "w.pt")],
)  # fmt: skip
def test_what_a_model_raises_is_an_error_of_this_library_and_its_own(error):
    def fails(batch):
        raise error

    with pytest.raises(ModelError, match="fails on the batch as it was given: " + type(error).__name__) as seen:
        measure(fails, [{"pos": POS}], inputs={"pos": "1o"}, outputs={"f": "1o"})
    assert seen.value.__cause__ is error
    assert isinstance(seen.value, type(error))
    assert "line two" not in str(seen.value)
    assert "called as model(batch) with a dict with ['pos']" in str(seen.value)
    assert isinstance(pickle.loads(pickle.dumps(seen.value)), ModelError)


def test_a_model_called_by_its_names_says_so_where_it_fails():
    def fails(pos, z):
        raise KeyError("attention")

    batch = {"pos": POS, "z": torch.ones(len(POS), dtype=torch.int64)}
    with pytest.raises(ModelError, match=r"called as model\(pos=batch\['pos'\], z=batch\['z'\]\); else give forward="):
        measure(fails, [batch], inputs={"pos": "1o"}, outputs={"f": "1o"})


def test_a_missing_package_is_no_matter_of_how_the_model_is_called():
    def fails(batch):
        raise ImportError("no flash")

    with pytest.raises(ModelError, match=r"as it was given: ImportError: no flash$"):
        measure(fails, [{"pos": POS}], inputs={"pos": "1o"}, outputs={"f": "1o"})


def test_whether_the_model_answers_the_batch_as_it_came():
    def upright_only(batch):
        if not torch.equal(batch["pos"], POS):
            raise RuntimeError("the cell must be upper triangular")
        return {"f": batch["pos"]}

    call = dict(inputs={"pos": "1o"}, outputs={"f": "1o"})
    with pytest.raises(ModelError, match="on a turned copy of the batch; as given it answers: RuntimeError: the cell"):
        measure(upright_only, [{"pos": POS}], **call)
    with pytest.raises(ModelError, match="on a turned copy of the batch; as given it answers"):
        Twirled(upright_only, **call)({"pos": POS})
    with pytest.raises(ModelError, match="on a turned copy of the batch, and on the batch as it was given"):
        Twirled(lambda b: b["z"], **call)({"pos": POS})
    with pytest.raises(InputError, match="own words"):
        measure(lambda b: (_ for _ in ()).throw(InputError("own words")), [{"pos": POS}], **call)


def test_a_loss_that_raises():
    call = dict(inputs={"pos": "1o"}, outputs={"f": "1o"}, target="y", cosets=4)

    def lost(p, t):
        raise KeyError("weights")

    with pytest.raises(ModelError, match=r"loss 'lost' fails on a prediction and target of \(2, 3, 3\) and .*KeyError"):
        measure(lambda b: {"f": b["pos"]}, [{"pos": POS, "y": POS}], loss=lost, **call)
