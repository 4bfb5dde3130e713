"""Independent batches for gradients and curvature, and samples that are evenly spread."""

import pytest
import torch

from equiscope import Declaration, Input, Output
from equiscope.errors import InputError
from equiscope.runs.deal import dealt, joined, thinned

MASKED = Declaration(
    inputs={"pos": Input("1o", points=True)}, outputs={"f": Output("1o")}, mask="mask", clusters="molecule", ids="id"
)


def padded(sizes, first, molecules):
    mask = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
    pos = torch.where(mask[..., None], torch.randn(*mask.shape, 3), 0.0)
    return {"pos": pos, "mask": mask, "molecule": torch.tensor(molecules), "id": torch.arange(len(sizes)) + first}


def test_batches_are_independent_and_hold_every_sample_once():
    batches = [padded([2, 3, 3], 0, [7, 7, 8]), padded([5, 4], 3, [9, 8]), padded([4, 4, 2], 5, [1, 2, 3])]
    made = dealt(batches, MASKED, 2)
    assert sorted(torch.cat([b["id"] for b in made]).tolist()) == list(range(8))
    where = {}
    for place, batch in enumerate(made):
        for molecule in batch["molecule"].tolist():
            assert where.setdefault(molecule, place) == place
        for row, mask, number in zip(batch["pos"], batch["mask"], batch["id"].tolist(), strict=True):
            source = next(b for b in batches if number in b["id"].tolist())
            own = (source["id"] == number).nonzero().item()
            torch.testing.assert_close(row[mask], source["pos"][own][source["mask"][own]])
    assert len(made) == 4
    orders = {next(b["id"].tolist() for b in dealt(batches, MASKED, 2, seed)[:1]).__str__() for seed in range(6)}
    assert len(orders) > 1
    with pytest.raises(InputError, match="batch must be"):
        dealt(batches, MASKED, 0)


def test_joined_pads_every_axis():
    made = joined([{"pair": torch.ones(1, 2, 2)}, {"pair": torch.ones(1, 3, 3)}])
    assert made["pair"].shape == (2, 3, 3)
    assert float(made["pair"][0].sum()) == 4


def test_samples_are_spread_evenly():
    batches = [{"x": torch.arange(4.0), "id": torch.arange(4)}, {"x": torch.arange(4.0, 10), "id": torch.arange(4, 10)}]
    chosen = thinned(batches, 5)
    assert torch.cat([b["id"] for b in chosen]).tolist() == [0, 2, 4, 6, 8]
    assert [len(b["x"]) for b in thinned(batches, None)] == [4, 6]
    assert len(thinned(batches, 99)) == 2
