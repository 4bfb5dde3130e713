"""Permutation, padding and determinism checks pass sound models and catch planted faults."""

from dataclasses import replace

import pytest
import torch

import equiscope as eq
from equiscope.errors import InputError
from equiscope.testing import assert_deterministic, assert_padding_ignored, assert_permutation_equivariant
from tests.testing.models import PairModel, batch, batches, declaration


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("check", [assert_permutation_equivariant, assert_padding_ignored, assert_deterministic])
def test_a_sound_model_passes(check, dtype):
    check(PairModel().to(dtype), batches(dtype=dtype), declaration())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("check", "fault", "message"),
    [
        (assert_permutation_equivariant, "order", "not equivariant under permutation"),
        (assert_padding_ignored, "sees padding", "sees padding"),
        (assert_padding_ignored, "mean over padding", "sees padding"),
        (assert_deterministic, "random", "is random"),
    ],
)
def test_planted_faults_are_caught(check, fault, message, dtype):
    given = batches(dtype=dtype)
    with pytest.raises(AssertionError, match=message) as caught:
        check(PairModel(fault).to(dtype), given, declaration())
    assert ("BROKEN" if check is assert_permutation_equivariant else "batch 0, output 'forces'") in str(caught.value)


def test_padding_that_matters_only_by_its_amount():
    def model(b):
        scale = b["mask"].shape[1]
        return {"forces": torch.where(b["mask"][..., None], b["pos"] * scale, 0.0), "energy": b["mask"].sum(1).double()}

    with pytest.raises(AssertionError, match="3 padded atoms of zeros are added"):
        assert_padding_ignored(model, batches(), declaration())


def test_nan_is_never_equal():
    def model(b):
        return {"forces": b["pos"] / b["pos"].abs().amin((1, 2), keepdim=True), "energy": b["mask"].sum(1).double()}

    with pytest.raises(AssertionError, match="changes by up to"):
        assert_padding_ignored(model, batches(), declaration())


def test_pairs_edges_and_no_mask():
    g = torch.Generator().manual_seed(0)
    pairs = torch.randn(4, 5, 5, generator=g, dtype=torch.float64)
    edges = torch.randint(0, 5, (4, 7, 2), generator=g)
    edges[:, -1] = -1
    given = [{"pos": batch(4)["pos"], "pairs": pairs, "edges": edges}]
    chosen = eq.Declaration({"pos": "1o"}, {"forces": "1o"}, fixed=["pairs"])

    def model(b):
        edge, real = b["edges"].clamp_min(0), (b["edges"][..., 0] >= 0)[..., None]
        start, end = (edge[..., i : i + 1].expand(-1, -1, 3) for i in (0, 1))
        delta = torch.where(real, b["pos"].gather(1, end) - b["pos"].gather(1, start), 0.0)
        return {"forces": (b["pairs"] @ b["pos"]).scatter_add(1, start, delta)}

    assert_permutation_equivariant(model, given, chosen, pair_fields=["pairs"], index_fields=["edges"])
    for forgotten in ({"pair_fields": ["pairs"]}, {"index_fields": ["edges"], "atom_fields": ["pos"]}):
        with pytest.raises(AssertionError, match="under permutation"):
            assert_permutation_equivariant(model, given, chosen, **forgotten)


def test_padded_pairs():
    given = batches()
    for b in given:
        b["pairs"] = b["pos"].sum(-1)[:, :, None] * b["pos"].sum(-1)[:, None, :]

    def model(b, masked=True):
        pair = b["mask"][:, :, None] & b["mask"][:, None, :]
        pairs = torch.where(pair, b["pairs"], 0.0) if masked else b["pairs"]
        return {"energy": pairs.sum((1, 2)), "forces": b["pos"]}

    chosen = declaration(fixed=["pairs"])
    assert_padding_ignored(model, given, chosen, pair_fields=["pairs"])
    with pytest.raises(AssertionError, match="output 'energy'"):
        assert_padding_ignored(model, given, chosen, pair_fields=["pairs"], forward=lambda m, b: m(b, masked=False))


def test_tolerance_and_forward():
    model = PairModel("random").double()
    assert_deterministic(model, batches(), declaration(), tolerance=100.0)
    assert_deterministic(model, batches(), declaration(), forward=lambda m, b: PairModel().double()(b), tolerance=0.0)


def test_any_batch_can_be_asked_twice():
    """A tuple, and atoms of several samples one after another."""
    noisy = {"pair": lambda x, v: x + 1e-3 * torch.randn_like(x), "ragged": lambda b: {"f": b["x"] + torch.rand(1)}}
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = {"pair": (x[:, None], x[:, None]), "ragged": {"x": x, "sample": torch.tensor([0, 0, 0, 1])}}
    inputs = {"x": eq.Input("1o", points=True)}
    chosen = {"pair": eq.Declaration({**inputs, "v": eq.Input("1o", points=False)}, {"f": "1o"}, fields=["x", "v"]),
              "ragged": eq.Declaration(inputs, {"f": "1o"}, batch="sample")}  # fmt: skip
    sound = {"pair": lambda x, v: x + v, "ragged": lambda b: {"f": 2 * b["x"]}}
    for kind, batch_ in given.items():
        assert_deterministic(sound[kind], [batch_], chosen[kind], tolerance=0.0)
        with pytest.raises(AssertionError, match="the model is random"):
            assert_deterministic(noisy[kind], [batch_], chosen[kind])


def test_what_cannot_be_checked_is_said():
    model = PairModel().double()
    with pytest.raises(InputError, match="declare mask"):
        assert_padding_ignored(model, batches(), declaration(mask=None, fixed=[]))
    with pytest.raises(InputError, match="dicts of tensors, got Tensor"):
        assert_padding_ignored(model, [torch.ones(3)], declaration())
    with pytest.raises(InputError, match="no tensor 'bonds'"):
        assert_permutation_equivariant(model, batches(), declaration(), pair_fields=["bonds"])
    three = [{**batch(atoms=3), "cell": torch.ones(6, 3, 3).double()}]
    with pytest.raises(InputError, match=r"\['cell', 'species'\] may be atoms or components: say which have"):
        assert_permutation_equivariant(model, three, declaration(fixed=["cell"]))
    assert_permutation_equivariant(model, three, declaration(fixed=["cell"]), atom_fields=["species"])


def test_random_state_and_mode_are_kept():
    model = PairModel().double().train()
    state = torch.get_rng_state()
    for check in (assert_permutation_equivariant, assert_padding_ignored, assert_deterministic):
        check(model, batches(), declaration())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training


@pytest.mark.parametrize("check", [assert_permutation_equivariant, assert_padding_ignored, assert_deterministic])
def test_batches_that_are_measured_are_checked(check):
    """Whole numbers as a mask, arrays, and parts named by the declaration."""
    plain = batches()
    counted = [b | {"mask": b["mask"].long()} for b in plain]
    arrays = [{k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in b.items()} for b in counted]

    def model(b):
        return PairModel().to(b["pos"].dtype)(b | {"mask": b["mask"] > 0})

    for given in (counted, arrays):
        check(model, given, declaration())
    names = tuple(plain[0])
    check(model, [tuple(b[k] for k in names) for b in arrays], replace(declaration(), fields=names))


def test_atoms_one_after_another_have_no_padding():
    ragged = {"pos": torch.randn(6, 3), "mask": torch.ones(6).bool(), "sample": torch.arange(6) // 2}
    chosen = eq.Declaration({"pos": "1o"}, {"f": "1o"}, mask="mask", batch="sample")
    assert_deterministic(lambda b: {"f": b["pos"]}, [ragged], chosen)
    with pytest.raises(InputError, match="nor where atoms stand one after another"):
        assert_padding_ignored(lambda b: {"f": b["pos"]}, [ragged], chosen)
