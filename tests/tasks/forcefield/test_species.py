"""Elements as indices, and a clear error for an element the model does not know."""

import pytest
import torch

from equiscope.errors import InputError
from equiscope.tasks.forcefield.species import SpeciesIndex


def test_indices_follow_the_order_of_the_elements() -> None:
    assert SpeciesIndex((1, 8, 6))(torch.tensor([6, 1, 8, 8])).tolist() == [2, 0, 1, 1]


@pytest.mark.parametrize("unknown", [0, 7, 92, -3])
def test_an_unknown_element_is_named(unknown: int) -> None:
    with pytest.raises(InputError, match=rf"\[{unknown}\].*\[1, 8, 6\]"):
        SpeciesIndex((1, 8, 6))(torch.tensor([6, unknown]))
