"""The orbit: positions about their centre, tensors and cells with them, padding untouched, outputs turned back."""

import pytest
import torch

from equiscope.decomposition.batches import DenseBatch
from equiscope.decomposition.checks import check_batch
from equiscope.decomposition.orbit import center, rotated, twisted
from equiscope.errors import DeclarationError
from equiscope.symmetry.declaration import Declaration, Input, Output
from equiscope.symmetry.rotations import haar

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
