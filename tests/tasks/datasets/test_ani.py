"""ANI-1x and ANI-2x: hartree to eV, rows without a label counted, rows of mixed species sorted out."""

import numpy as np
import pytest

from equiscope.errors import DataError
from equiscope.tasks.datasets.ani import Ani1x, Ani2x
from tests.tasks.datasets import layouts

FORMULAS = {"H3N": "ammonia", "CH4": "methane", "H2O": "water"}


def test_ani1x(tmp_path):
    blocks, rejected = layouts.read(Ani1x(layouts.ani1x(tmp_path / "a.h5")))
    assert rejected == {}
    assert [block.group for block in blocks] == list(FORMULAS)
    for block in blocks:
        layouts.assert_frames([block], *layouts.MOLECULES[FORMULAS[block.group]])


def test_rows_without_a_label_are_counted(tmp_path):
    numbers, x, e, f = layouts.MOLECULES["water"]
    e, f = e.copy(), f.copy()
    e[1], f[3, 0, 0] = np.nan, np.nan
    path = layouts.ani1x(tmp_path / "a.h5", {"water": (numbers, x, e, f)})
    (block,), rejected = layouts.read(Ani1x(path))
    layouts.assert_frames([block], numbers, x[[0, 2, 4]], e[[0, 2, 4]], f[[0, 2, 4]])
    assert rejected == {"no wb97x_dz label (NaN)": 2}
    with pytest.raises(DataError, match=r"hf_dz\.forces"):
        layouts.read(Ani1x(path, method="hf_dz"))


def test_ani2x(tmp_path):
    both = {**layouts.MOLECULES, "phosphine": ([15, 1, 1, 1], *layouts.frames([15, 1, 1, 1], 6, 9))}
    blocks, rejected = layouts.read(Ani2x(layouts.ani2x(tmp_path / "a.h5", both)))
    assert rejected == {}
    formulas = {**FORMULAS, "H3P": "phosphine"}
    assert sorted(block.group for block in blocks) == sorted(formulas)
    for block in blocks:
        numbers, x, e, f = both[formulas[block.group]]
        order, found = np.argsort(e), np.argsort(block.energy)
        layouts.assert_frames([block.take(found)], numbers, x[order], e[order], f[order])
    with pytest.raises(DataError, match="no group with species"):
        layouts.read(Ani2x(layouts.ani1x(tmp_path / "other.h5")))


def test_arrays_of_different_length(tmp_path):
    import h5py

    with h5py.File(layouts.ani1x(tmp_path / "a.h5"), "a") as file:
        del file["water/wb97x_dz.energy"]
        file["water/wb97x_dz.energy"] = np.zeros(2)
    blocks, rejected = layouts.read(Ani1x(tmp_path / "a.h5"))
    assert [block.group for block in blocks] == ["H3N", "CH4"]
    reason = "group that cannot be read (first: group water: energy has shape (2,), expected (5,))"
    assert rejected == {reason: 1}
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["ammonia"], file["methane"]
    with pytest.raises(DataError, match=r"left out: 1 group .*energy has shape \(2,\), expected \(5,\)"):
        layouts.read(Ani1x(tmp_path / "a.h5"))
