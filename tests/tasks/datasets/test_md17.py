"""MD17 and rMD17: kcal/mol to eV, streamed out of the archive, cut in time and not in the file's order."""

import numpy as np
import pytest

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets import reading
from equiscope.tasks.datasets.md17 import LAYOUTS, Md17
from tests.tasks.datasets import layouts


@pytest.mark.parametrize("names", LAYOUTS.values())
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_frames(tmp_path, names, save, monkeypatch):
    monkeypatch.setattr(reading, "FRAMES_AT_ONCE", 2)
    source = Md17(layouts.md17(tmp_path / "water.npz", names, save=save), pieces=1)
    blocks, rejected = layouts.read(source)
    assert rejected == {}
    assert [len(block) for block in blocks] == [2, 2, 1]
    layouts.assert_frames(blocks, *layouts.MOLECULES["water"], rel=1e-9)
    assert source.units()["energy"] == "kcal/mol"
    assert "documentation" in source.units()["known from"]


def test_units_of_the_file_are_obeyed(tmp_path):
    source = Md17(layouts.md17(tmp_path / "w.npz", r_unit="Ang", e_unit="eV"))
    blocks, _ = layouts.read(source)
    _, _, e, _ = layouts.MOLECULES["water"]
    np.testing.assert_allclose(np.concatenate([b.energy for b in blocks]), e / layouts.KCAL)
    assert source.units()["forces"] == "eV/Ang"


def test_pieces_follow_time(tmp_path):
    plain, _ = layouts.read(Md17(layouts.md17(tmp_path / "w.npz"), pieces=5))
    assert [block.group for block in plain] == [f"w piece {i}" for i in range(5)]
    shuffled = layouts.md17(tmp_path / "r.npz", LAYOUTS["rmd17"], old_indices=np.array([90.0, 10, 99, 15, 55]))
    blocks, _ = layouts.read(Md17(shuffled, pieces=2))
    assert [(block.group, len(block)) for block in blocks] == [("r piece 0", 2), ("r piece 1", 3)]
    np.testing.assert_allclose(blocks[0].energy, layouts.MOLECULES["water"][2][[1, 3]])


def test_refusals(tmp_path):
    with pytest.raises(InputError, match="pieces"):
        Md17("x", pieces=0)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(DataError, match="has the arrays a; MD17 and rMD17 have z, R, E, F"):
        layouts.read(Md17(tmp_path / "other.npz"))
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(DataError, match="no npz file"):
        layouts.read(Md17(tmp_path / "text.npz"))
    np.savez(tmp_path / "o.npz", z=np.array([8]), R=np.array([{}], object), E=np.zeros(1), F=np.zeros((1, 1, 3)))
    with pytest.raises(DataError, match="only pickle"):
        layouts.read(Md17(tmp_path / "o.npz"))
    np.savez(tmp_path / "n.npz", z=np.array([8]), R=np.zeros((2, 1, 3)), E=np.zeros(2), F=np.zeros((3, 1, 3)))
    with pytest.raises(DataError, match=r"n\.npz: forces has shape \(3, 1, 3\), expected \(2, 1, 3\)"):
        layouts.read(Md17(tmp_path / "n.npz"))
