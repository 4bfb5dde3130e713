"""HDF5 files are read without leaving them, and no further than what is stored."""

import h5py
import numpy as np
import pytest

from equiscope.files import Refused
from equiscope.tasks.datasets.ani import Ani2x
from equiscope.tasks.datasets.spice import Spice
from tests.tasks.datasets import layouts


def changed(path, name, make):
    """SPICE's file with one dataset of water made anew."""
    layouts.spice(path)
    with h5py.File(path, "a") as file:
        unit = file[name].attrs.get("units")
        del file[name]
        make(file, name)
        if unit is not None and isinstance(file.get(name), h5py.Dataset):
            file[name].attrs["units"] = unit
    return path


def external(file, name):
    file[name] = h5py.ExternalLink("/etc/passwd", "/x")


def through_a_soft_link(file, name):
    file["water/other"] = h5py.ExternalLink(file.filename.replace("a.h5", "b.h5"), "/water")
    file[name] = h5py.SoftLink("/water/other/dft_total_energy")


def raw(file, name):
    file.create_dataset(name, shape=(5,), dtype="f8", external=[("/etc/passwd", 0, 40)])


def virtual(file, name):
    layout = h5py.VirtualLayout((5,), "f8")
    layout[:] = h5py.VirtualSource(file.filename.replace("a.h5", "b.h5"), "water/dft_total_energy", shape=(5,))
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("make", [external, through_a_soft_link, raw, virtual])
def test_other_files_are_not_read(tmp_path, make):
    layouts.spice(tmp_path / "b.h5")
    path = changed(tmp_path / "a.h5", "water/dft_total_energy", make)
    with pytest.raises(Refused, match=r"another file|other files"):
        layouts.read(Spice(path))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("dft_total_energy", np.zeros(600), "energy has shape (600,), expected (5,)"),
        ("dft_total_energy", np.zeros((5, 2)), "energy has shape (5, 2), expected (5,)"),
        ("dft_total_energy", np.array([b"a"] * 5), "energy holds |S1"),
        ("conformations", np.zeros((5, 3, 3), complex), "positions holds complex128"),
        ("conformations", np.zeros((5, 4, 3)), "positions has shape"),
        ("atomic_numbers", np.array([6.5, 1, 1]), "must be 1 … 118"),
    ],
)
def test_a_group_that_does_not_fit_is_counted(tmp_path, name, value, reason):
    path = changed(tmp_path / "a.h5", f"water/{name}", lambda file, where: file.create_dataset(where, data=value))
    blocks, rejected = layouts.read(Spice(path))
    assert [b.group for b in blocks] == ["ammonia", "methane"]
    (why,) = rejected
    assert rejected[why] == 1
    assert "group water" in why
    assert reason in why


def test_headers_without_content_and_cells_are_counted(tmp_path):
    shape = (10**12, 3, 3)
    path = changed(
        tmp_path / "a.h5",
        "water/conformations",
        lambda file, name: file.create_dataset(name, shape=shape, dtype="f4", chunks=(100, 3, 3)),
    )
    _, rejected = layouts.read(Spice(path))
    assert "claims to unpack to" in next(iter(rejected))
    with h5py.File(layouts.spice(tmp_path / "c.h5"), "a") as file:
        file["water/Lattice"] = np.eye(3)
        file["soft"] = h5py.SoftLink("/methane")
    blocks, rejected = layouts.read(Spice(tmp_path / "c.h5"))
    assert [b.group for b in blocks] == ["ammonia", "methane", "soft"]
    assert "it has Lattice: a periodic set" in next(iter(rejected))
    with h5py.File(tmp_path / "c.h5", "a") as file:
        file["ammonia/cell"] = np.eye(3)
    assert Spice(tmp_path / "c.h5").units()["positions"] == "bohr"


def test_species_must_have_a_row_a_frame(tmp_path):
    path = layouts.ani2x(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        rows = file["003/species"][:-1]
        del file["003/species"]
        file["003/species"] = rows
    _, rejected = layouts.read(Ani2x(path))
    assert list(rejected.values()) == [1]
    assert "species has 4 rows, expected 5" in next(iter(rejected))
