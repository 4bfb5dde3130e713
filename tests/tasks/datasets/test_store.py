"""The data file: what goes in comes out, equal content gives equal bytes, and any damage is seen."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from equiscope.errors import DataError, InputError, IntegrityError
from equiscope.tasks.datasets import store
from equiscope.tasks.datasets.store import Made
from tests.tasks.datasets import layouts

ARRAYS = {
    "energy": np.array([-1.5, 2.25]),
    "species": np.array([1, 6, 17], dtype=np.uint8),
    "empty": np.zeros((0, 4, 3), dtype=np.float32),
}
METADATA = {"counts": {"b": 2, "a": 1}, "unit": "Å"}


def test_round_trip(tmp_path: Path) -> None:
    arrays, metadata = store.read(store.write(tmp_path / "new" / "set.npz", ARRAYS, METADATA))
    assert metadata == METADATA
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    one = store.write(tmp_path / "one.npz", ARRAYS, METADATA)
    turned = dict(reversed(METADATA.items()))
    two = store.write(tmp_path / "two.npz", dict(reversed(ARRAYS.items())), turned)
    assert one.read_bytes() == two.read_bytes()
    three = store.write(tmp_path / "three.npz", ARRAYS | {"energy": np.array([-1.5, 2.5])}, METADATA)
    assert one.read_bytes() != three.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.npz", "three.npz", "two.npz"]


def test_numpy_reads_it(tmp_path: Path) -> None:
    with np.load(store.write(tmp_path / "set.npz", ARRAYS, METADATA), allow_pickle=False) as file:
        assert np.array_equal(file["energy"], ARRAYS["energy"])


def test_every_flipped_byte_is_seen(tmp_path: Path) -> None:
    path = store.write(tmp_path / "set.npz", ARRAYS, METADATA)
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(IntegrityError, match="damaged"):
            store.read(path)


@pytest.mark.parametrize("kept", [0, 10, -1, -64, -65])
def test_a_file_cut_short_is_seen(tmp_path: Path, kept: int) -> None:
    path = store.write(tmp_path / "set.npz", ARRAYS, METADATA)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(IntegrityError):
        store.read(path)


def test_objects_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'names' holds Python objects"):
        store.write(tmp_path / "set.npz", {"names": np.array(["a", None], dtype=object)}, {})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="no data file"):
        store.read(tmp_path / "set.npz")


def of(molecules, counted="frames"):
    """The arrays of a data file of molecules name → (numbers, x, energy, forces)."""
    kept = list(molecules.values())
    return {
        "atoms": np.array([len(z) for z, *_ in kept]),
        counted: np.array([len(x) for _, x, _, _ in kept]),
        "species": np.concatenate([z for z, *_ in kept]).astype(np.uint8),
        "positions": np.concatenate([x.reshape(-1, 3) for _, x, _, _ in kept]).astype(np.float32),
        "forces": np.concatenate([f.reshape(-1, 3) for *_, f in kept]).astype(np.float32),
        "energy": np.concatenate([e for _, _, e, _ in kept]),
    }


def test_frames_of_molecules(tmp_path, monkeypatch):
    path = store.write(tmp_path / "made.npz", of(layouts.MOLECULES), {"format": "equiscope-forcefield"})
    monkeypatch.setattr("equiscope.tasks.datasets.reading.FRAMES_AT_ONCE", 3)
    blocks = list(Made(path).blocks(Counter()))
    assert len(blocks) > len(layouts.MOLECULES)
    for number, (z, x, e, f) in enumerate(layouts.MOLECULES.values()):
        own = [b for b in blocks if b.group == f"molecule {number}"]
        assert all(b.numbers.tolist() == list(z) for b in own)
        for name, expected in (("positions", x), ("energy", e), ("forces", f)):
            found = np.concatenate([getattr(b, name) for b in own])
            assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_conformers_have_no_labels(tmp_path):
    arrays = {k: v for k, v in of(layouts.MOLECULES, "conformers").items() if k not in ("energy", "forces")}
    blocks = list(Made(store.write(tmp_path / "c.npz", arrays, {})).blocks(Counter()))
    assert {(b.energy is None, b.forces is None) for b in blocks} == {(True, True)}
    assert sum(map(len, blocks)) == sum(len(x) for _, x, _, _ in layouts.MOLECULES.values())


def test_another_file(tmp_path):
    path = store.write(tmp_path / "x.npz", {"a": np.zeros(2)}, {"format": "something"})
    with pytest.raises(DataError, match="holds 'something', neither frames nor conformers"):
        list(Made(path).blocks(Counter()))
