"""Dense batches: rows of real atoms, copies that cannot be spoiled, errors."""

import pytest
import torch

from equiscope.decomposition.batches import DenseBatch, as_batch, as_batches
from equiscope.errors import InputError

MASK = torch.tensor([[True, True, False], [True, False, False]])


def test_rows_and_their_way_back():
    values = torch.arange(18.0).reshape(2, 3, 3)
    batch = DenseBatch({"pos": values, "mask": MASK})
    rows = batch.rows("pos", "atom", "mask")
    selected = rows.select(values, (3,))
    assert rows.sample.tolist() == [0, 0, 1]
    assert rows.counts.tolist() == [2, 1]
    assert torch.equal(selected[:, 0], torch.stack([values[0, 0], values[0, 1], values[1, 0]]))
    assert torch.equal(rows.scatter(selected, values, fill=values), values)
    assert torch.equal(rows.scatter(selected, values), values * MASK[..., None])


def test_extra_axes_fold_into_the_row():
    values = torch.arange(2 * 3 * 4 * 3.0).reshape(2, 3, 4, 3)
    rows = DenseBatch({"v": values, "mask": MASK}).rows("v", "atom", "mask")
    assert rows.select(values, (3,)).shape == (3, 4, 3)
    assert torch.equal(rows.scatter(rows.select(values, (3,)), values, fill=values), values)


def test_scattering_carries_gradients():
    values = torch.randn(2, 3, 3, requires_grad=True)
    rows = DenseBatch({"pos": values, "mask": MASK}).rows("pos", "atom", "mask")
    rows.scatter(rows.select(values, (3,)), values).sum().backward()
    assert torch.equal(values.grad, MASK[..., None].expand(2, 3, 3).float())


def test_copies_are_fresh():
    batch = {"pos": torch.zeros(2, 3), "q": torch.zeros(2), "name": ["a", "b"]}
    native = DenseBatch(batch).with_fields({})
    native["q"] += 1
    assert batch["q"].sum() == 0
    assert native["name"] == ["a", "b"]


def test_labels_of_any_type():
    batch = DenseBatch({"pos": torch.zeros(2, 3), "c": torch.tensor([4, 5]), "name": ["a", "b"]})
    assert batch.labels("c") == [4, 5]
    assert batch.labels("name") == ["a", "b"]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({}, "at least one tensor"),
        ({"x": 3.0}, "at least one tensor"),
        ({"x": torch.zeros(2, 3), "y": torch.zeros(3)}, "differ in length"),
        ({"x": torch.zeros(2, 3), "name": ["a"]}, "differ in length"),
        ({"x": torch.zeros(0, 3)}, "empty"),
    ],
)
def test_bad_batches(batch, message):
    with pytest.raises(InputError, match=message):
        DenseBatch(batch)


@pytest.mark.parametrize("mask", [MASK.float(), MASK[:, 0]])
def test_bad_masks(mask):
    with pytest.raises(InputError, match="boolean"):
        DenseBatch({"x": torch.zeros(2, 3, 3), "mask": mask}).rows("x", "atom", "mask")


def test_what_is_no_batch_is_named():
    with pytest.raises(InputError, match="type set"):
        as_batch({1, 2})
    with pytest.raises(InputError, match="one batch"):
        as_batches({"x": torch.zeros(2)})
