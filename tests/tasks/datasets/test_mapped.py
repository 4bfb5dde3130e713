"""Memory-mapped frames: any frame in any order equals what was written; damage and unfit frames are refused."""

import json
import os

import numpy as np
import pytest

from equiscope.errors import DataError, IntegrityError
from equiscope.tasks.datasets import mapped
from equiscope.tasks.datasets.blocks import Block
from tests.tasks.datasets import layouts


def blocks():
    for name, (numbers, x, e, f) in layouts.MOLECULES.items():
        yield Block(name, np.array(numbers), x, e, f)
    numbers, x, e, f = layouts.MOLECULES["ammonia"]
    yield Block("ammonia", np.array(numbers), x[:1] + 3.0, e[:1], f[:1])


def test_random_access(tmp_path):
    found = mapped.read(mapped.write(tmp_path / "a.frames", blocks(), {"note": "Å"}))
    assert found.metadata["note"] == "Å"
    assert found.metadata["groups"] == 3
    assert found.molecule.tolist() == [0] * 4 + [1] * 3 + [2] * 5 + [0]
    every = [(b, k) for b in blocks() for k in range(len(b))]
    for chosen in ([12, 0, 5], [7], list(range(13))):
        rows = found.rows(np.array(chosen))
        expected = [every[i] for i in chosen]
        assert found.species[rows].tolist() == [z for b, _ in expected for z in b.numbers.tolist()]
        x = np.concatenate([b.positions[k] - b.positions[k].mean(0) for b, k in expected])
        np.testing.assert_allclose(found.positions[rows], x, atol=1e-6)
        np.testing.assert_array_equal(
            found.forces[rows], np.concatenate([b.forces[k] for b, k in expected]).astype(np.float32)
        )
        np.testing.assert_array_equal(found.energy[chosen], [b.energy[k] for b, k in expected])


def test_counts_filled_in_by_the_last_block(tmp_path):
    about = {}

    def stream():
        yield from blocks()
        about["seen"] = 13

    mapped.write(tmp_path / "a.frames", stream(), about)
    assert mapped.metadata(tmp_path / "a.frames")["seen"] == 13


def test_unfit_frames_leave_nothing_behind(tmp_path):
    numbers, x, e, f = layouts.MOLECULES["water"]
    cell = np.broadcast_to(np.eye(3), (5, 3, 3))
    for block, message in (
        (Block("mp-1", np.array(numbers), x, e, f, cell=cell), "mp-1 is periodic, and this task has no cell"),
        (Block("a", np.array(numbers), x, e), "a has no forces: training needs both"),
        (Block("a", np.array(numbers), x), "no energy and no forces"),
    ):
        with pytest.raises(DataError, match=message):
            mapped.write(tmp_path / "a.frames", [*blocks(), block], {})
    with pytest.raises(DataError, match="no frame is left"):
        mapped.write(tmp_path / "a.frames", [], {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", mapped.ARRAYS)
def test_any_flipped_or_missing_byte_is_seen(tmp_path, name):
    path = mapped.write(tmp_path / "a.frames", blocks(), {})
    file = path / f"{name}.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    for damage in (whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:], whole[:-1], None):
        file.unlink() if damage is None else file.write_bytes(damage)
        with pytest.raises(IntegrityError, match=name):
            mapped.read(path)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="no data folder"):
        mapped.read(tmp_path)
    path = mapped.write(tmp_path / "a.frames", blocks(), {})
    about = json.loads((path / "metadata.json").read_text())
    (path / "metadata.json").write_text(json.dumps(about | {"format_version": 9}))
    with pytest.raises(DataError, match="version 9"):
        mapped.read(path)
    (path / "metadata.json").write_text("{")
    with pytest.raises(IntegrityError, match="damaged"):
        mapped.read(path)


def test_a_conversion_that_was_killed_is_no_hindrance_where_process_numbers_come_again(tmp_path):
    (tmp_path / f".a.frames.{os.getpid()}.tmp").mkdir()
    mapped.write(tmp_path / "a.frames", blocks(), {})
    assert (tmp_path / "a.frames" / "metadata.json").exists()
