"""The split by molecule."""

import pytest
import torch

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets.molecule_split import split_molecules


def test_split_is_a_function_of_the_seed() -> None:
    part = split_molecules(400, 7)
    assert torch.equal(part, split_molecules(400, 7))
    assert not torch.equal(part, split_molecules(400, 8))
    assert torch.bincount(part).tolist() == [320, 40, 40]
    assert torch.bincount(split_molecules(100, 0, (0.5, 0.3, 0.2))).tolist() == [50, 30, 20]
    assert sorted(split_molecules(3, 0).tolist()) == [0, 1, 2]
    with pytest.raises(DataError, match="2 molecules cannot be split"):
        split_molecules(2, 0)
    with pytest.raises(InputError, match="sum to 1"):
        split_molecules(10, 0, (0.8, 0.1, 0.2))
