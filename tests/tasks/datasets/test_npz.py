"""Arrays of an archive: headers that lie, flips and cuts are typed; what is sound comes back in any pieces."""

import io
import zipfile
from collections import Counter

import numpy as np
import pytest

from equiscope.errors import DataError, EquiscopeError
from equiscope.tasks.datasets import npz
from equiscope.tasks.datasets.md17 import Md17
from tests.tasks.datasets import layouts


def header(shape, dtype="<f8", content=b""):
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": dtype, "fortran_order": False, "shape": shape})
    return made.getvalue() + content


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path, save):
    x = np.random.default_rng(0).normal(size=(7, 2, 3))
    save(tmp_path / "a.npz", x=x, word="eV")
    with npz.opened(tmp_path / "a.npz") as found:
        assert found.names == {"x", "word"}
        assert (found.column("x").shape, found.column("x").dtype) == ((7, 2, 3), np.float64)
        assert str(found.whole("word")) == "eV"
        rows = list(found.rows("x", [slice(0, 3), slice(3, 6), slice(6, 7)]))
    assert [len(piece) for piece in rows] == [3, 3, 1]
    assert np.array_equal(np.concatenate(rows), x)


SOUND = {"z": header((1,), "|u1", b"\x01"), "E": header((2,), content=bytes(16))}


@pytest.mark.parametrize(
    "changed",
    [
        {"R": header((10**12, 1, 3)), "E": header((10**12,)), "F": header((10**12, 1, 3))},
        {"R": header((2, 1, 3), content=bytes(40))},
        {"R": header((2, 1, 3), content=bytes(56))},
        {"z": header((10**9,), "|u1"), "R": header((2, 10**9, 3))},
        {"z": header((0,), "|u1"), "R": header((10**12, 0, 3)), "F": header((10**12, 0, 3))},
        {"R": b"no array"},
        {"R": b"\x93NUMPY\x01\x00\xff\xff{'descr'"},
    ],
)
def test_headers_that_lie_are_typed(tmp_path, changed):
    members = {**SOUND, "R": header((2, 1, 3), content=bytes(48)), "F": header((2, 1, 3), content=bytes(48)), **changed}
    with pytest.raises(DataError, match=r"a\.npz"):
        layouts.read(Md17(archive(tmp_path / "a.npz", **members)))


def test_bombs(tmp_path, monkeypatch):
    from equiscope import files

    monkeypatch.setattr(files, "LARGEST_UNPACKED", 1 << 20)
    path = archive(tmp_path / "a.npz", R=header((1 << 20,), content=bytes(8 << 20)))
    with npz.opened(path) as found, pytest.raises(DataError, match="claims to unpack"):
        found.column("R")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flips_and_cuts_are_typed_or_harmless(tmp_path, save):
    path = layouts.md17(tmp_path / "w.npz", save=save)
    content, sound = path.read_bytes(), layouts.read(Md17(path, pieces=1))[0]
    rng = np.random.default_rng(0)
    seen = Counter()
    for trial in range(120):
        damaged = bytearray(content)
        if trial % 4:
            damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        else:
            del damaged[rng.integers(len(content)) :]
        path.write_bytes(bytes(damaged))
        try:
            blocks = layouts.read(Md17(path, pieces=1))[0]
        except EquiscopeError:
            seen["typed"] += 1
            continue
        # A flip in a time or an attribute of the archive changes no number.
        seen["read"] += 1
        for name in ("positions", "energy", "forces"):
            expected = np.concatenate([getattr(b, name) for b in sound])
            assert np.array_equal(np.concatenate([getattr(b, name) for b in blocks]), expected)
    assert seen["typed"] > 90
