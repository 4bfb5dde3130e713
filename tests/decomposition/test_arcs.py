"""Arcs of orientations: what is smooth is a line on them, and what is left has two degrees of freedom less."""

import pytest
import torch

from equiscope.decomposition.arcs import ARC, BEND, TWIST, Site, next_arc, off_line, row_mean
from equiscope.decomposition.batches import DenseBatch
from equiscope.decomposition.losses import LOSSES
from equiscope.decomposition.split import BatchOutput
from equiscope.symmetry.actions import action
from equiscope.symmetry.declaration import Declaration

from .models import random_batch


def test_what_a_straight_line_leaves_has_two_degrees_of_freedom_less():
    passes = torch.randn(4, 100_000, dtype=torch.float64)
    line = torch.linspace(-1, 1, 4, dtype=torch.float64)[:, None] * passes[0] + passes[1]
    assert off_line(line).abs().max() < 1e-14
    assert torch.allclose(off_line(passes + line), off_line(passes), atol=1e-14)
    assert float(off_line(passes).square().sum(0).mean()) == pytest.approx(2, rel=0.02)


def test_bend_and_twist_take_apart_what_a_line_leaves():
    places = torch.arange(4, dtype=torch.float64)
    for power, bend, twist in ((0, 0, 0), (1, 0, 0), (2, 2, 0), (3, 9, 6 / 20**0.5)):
        values = places**power
        assert float(BEND @ values) == pytest.approx(bend, abs=1e-12)
        assert float(TWIST @ values) == pytest.approx(twist, abs=1e-12)
    passes = torch.randn(4, 50, dtype=torch.float64)
    both = (BEND @ passes).square() + (TWIST @ passes).square()
    assert torch.allclose(both, off_line(passes).square().sum(0), atol=1e-12)


def site(batch, outputs):
    declaration = Declaration({"pos": "1o"}, outputs, fixed=["y"])
    found = {name: BatchOutput(name, batch.rows(name, "atom", None), action(spec), LOSSES["mse"])
             for name, spec in outputs.items()}  # fmt: skip
    return (lambda model: Site(model, batch, declaration, None, (0, list(range(batch.size))))), found


def test_passes_are_the_step_apart_and_turned_back():
    batch = DenseBatch(random_batch(5))
    of, outputs = site(batch, {"a": "1o", "b": "1o"})
    found = next_arc(of(lambda b: {"a": b["pos"], "b": torch.ones_like(b["pos"])}), outputs, 1e-3, 7)
    assert found.rows["a"].shape[0] == ARC
    assert torch.allclose(found.rows["a"], batch.fields()["pos"].expand(4, -1, -1, -1), atol=1e-14)
    # A constant vector turned back by turns that are the step apart about one axis moves by as much at each of them.
    moved = found.rows["b"].diff(dim=0).square().sum(-1).mean((2,))
    assert torch.allclose(moved[0], moved[2], rtol=1e-4)
    assert bool((moved <= 3 * 1e-6 * 1.0001).all())
    assert float(moved.mean()) == pytest.approx(3 * 1e-6 * 2 / 3, rel=0.5)


def test_parts_and_copies_keep_the_turns_of_their_samples():
    batch = DenseBatch(random_batch(5))
    of, outputs = site(batch, {"a": "1o"})
    whole = of(lambda b: {"a": torch.ones_like(b["pos"])})
    part = whole.part([3, 1])
    assert part.key == (0, [3, 1])
    own = {"a": BatchOutput("a", part.batch.rows("a", "atom", None), action("1o"), LOSSES["mse"])}
    arcs = next_arc(whole, outputs, 1e-3, 7), next_arc(part, own, 1e-3, 7)
    assert torch.allclose(arcs[1].rows["a"], arcs[0].rows["a"][:, [3, 1]], atol=1e-14)
    assert whole.in_precision(torch.float32).batch.fields()["pos"].dtype == torch.float32


def test_row_means_are_over_the_rows_of_a_sample():
    batch = DenseBatch(random_batch(3) | {"mask": torch.tensor([[True] * 4, [True] + [False] * 3, [True] * 4])})
    rows = batch.rows("pos", "atom", "mask")
    values = rows.select(batch.fields()["pos"], (3,))
    x = batch.fields()["pos"]
    expected = torch.stack([x[0].mean(), x[1, 0].mean(), x[2].mean()])
    assert torch.allclose(row_mean(rows, values), expected, atol=1e-14)
