"""Batches by step: the start of a resumed run, and shares of several processes."""

import pytest
import torch

from equiscope.errors import InputError
from equiscope.runs.batches import Steps, loader
from tests.runs.toy import Toy


def test_loader_goes_on_at_the_given_step():
    task = Toy(0, 4)
    batches = list(loader(Steps(task, 6), start=4))
    assert len(batches) == 2
    for step, batch in zip((4, 5), batches, strict=True):
        assert all(torch.equal(batch[k], v) for k, v in task.training_batch(step).items())
    assert len(loader(Steps(task, 6), start=4)) == 6


def test_shares_make_up_the_batch():
    task = Toy(0, 6)
    parts = [Steps(task, 3, process, 3)[1] for process in range(3)]
    ids = torch.cat([part["id"] for part in parts])
    assert sorted(ids.tolist()) == list(range(6))
    assert {len(part["x"]) for part in parts} == {2}


def test_uneven_shares_are_refused():
    with pytest.raises(InputError, match="multiple of the number of processes"):
        Steps(Toy(0, 5), 3, 0, 2)[0]
