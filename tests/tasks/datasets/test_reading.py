"""The one place where frames are parsed, checked and counted."""

from collections import Counter

import numpy as np
import pytest

from equiscope.errors import DataError, InputError
from equiscope.files import REMARK, Refused
from equiscope.tasks.datasets import reading
from equiscope.tasks.datasets.reading import Reader, Rejected, block, fits, pieces, stress_matrix, told


def numbers(records, rejected, parse=float):
    class Numbers(Reader):
        RECORD, NOTHING = "row", "has no row"

        def records(self, reading):
            return records

        def parse(self, record, reading):
            return [parse(record)]

    return list(Numbers("file").blocks(rejected))


def test_errors_inside_a_record_are_counted_with_the_first_words():
    rejected = Counter()
    assert numbers(["1", "x1", "2", "y2", "", "3"], rejected) == [1, 2, 3]
    first = "row that cannot be read (first: row 1: ValueError: could not convert string to float: 'x1')"
    assert rejected == {first: 3}


def test_other_kinds_are_told_apart_and_bounded(monkeypatch):
    monkeypatch.setattr(reading, "_KINDS", 2)

    def parse(record):
        if isinstance(record, type):
            raise record("words")
        return record

    rejected = Counter()
    assert numbers([KeyError, 1, ValueError, KeyError, OSError, MemoryError], rejected, parse) == [1]
    assert list(rejected.values()) == [2, 1, 2]
    assert list(rejected)[2] == "row that cannot be read (for other reasons)"
    rejected = Counter()
    assert numbers([1, ("name", Rejected)], rejected, lambda record: parse(record if record == 1 else record[1])) == [1]
    assert rejected == {"words": 1}


@pytest.mark.parametrize("error", [Refused("hostile"), InputError("a setting")])
def test_what_must_not_be_read_and_wrong_settings_stop(error):
    def parse(record):
        raise error

    with pytest.raises(type(error), match=str(error)):
        numbers([1], Counter(), parse)


def test_records_that_end_in_an_error_are_a_damaged_file():
    def records():
        yield 1
        raise EOFError("no more")

    with pytest.raises(DataError, match=r"file is no sound file after 1 rows, .*cut short: EOFError: no more"):
        numbers(records(), Counter())


def test_nothing_read_says_what_was_left_out():
    with pytest.raises(DataError, match=r"file has no row \(left out: 2 row that .*could not convert"):
        numbers(["x", "y"], Counter())


ONE = {"numbers": [8, 1], "positions": np.zeros((2, 3))}


def test_one_frame_and_many():
    one = block("a", **ONE, energy=2, forces=np.ones((2, 3)), cell=np.eye(3), charge=-1.0, length=2.0, energy_unit=3.0)
    assert (one.energy.tolist(), one.charge, one.numbers.dtype) == ([6.0], -1, np.int64)
    assert one.forces.tolist() == np.full((1, 2, 3), 1.5).tolist()
    assert one.cell.tolist() == [(2 * np.eye(3)).tolist()]
    stress = np.arange(12.0).reshape(2, 6)
    many = block("a", [8, 1], np.zeros((2, 2, 3)), energy=np.ones((2, 1)), stress=stress, stress_unit=2.0)
    assert many.energy.tolist() == [1.0, 1.0]
    assert many.stress[1].tolist() == [[12, 22, 20], [22, 14, 18], [20, 18, 16]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"numbers": [6.5, 1]}, r"must be 1 … 118, got \[6.5, 1.0\]"),
        ({"numbers": [119, 1]}, "must be 1 … 118"),
        ({"numbers": [0, 1]}, "must be 1 … 118"),
        ({"numbers": [np.nan, 1]}, "must be 1 … 118"),
        ({"numbers": ["H", "H"]}, "atomic numbers holds 'H', not real numbers"),
        ({"numbers": [[1, 1]]}, r"have shape \(1, 2\)"),
        ({"numbers": []}, "must be 1 … 118"),
        ({"positions": np.zeros((2, 3), complex)}, "positions holds 0j, not real numbers"),
        ({"positions": np.zeros((3, 3))}, r"positions has shape \(1, 3, 3\), expected \(1, 2, 3\)"),
        ({"energy": "not converged"}, "energy holds 'not converged'"),
        ({"energy": [1.0, 2.0]}, r"energy has shape \(1, 2\), expected \(1,\)"),
        ({"energy": True}, "energy holds True"),
        ({"forces": [[0, 0, 0], [0, 0]]}, "forces: ValueError"),
        ({"forces": np.zeros((2, 2))}, r"forces has shape \(1, 2, 2\), expected \(1, 2, 3\)"),
        ({"stress": np.zeros(4)}, r"stress has shape \(1, 4\), expected \(1, 3, 3\)"),
        ({"stress": np.triu(np.ones((3, 3)))}, "stress is not symmetric"),
        ({"charge": 0.5}, "one whole number, got 0.5"),
        ({"charge": "0"}, "charge holds '0'"),
    ],
)
def test_what_does_not_fit_is_named(changed, message):
    with pytest.raises(DataError, match=message):
        block("a", **{**ONE, **changed})


def test_lengths_and_kinds_are_compared_before_reading():
    class Column:
        def __init__(self, *shape, dtype=float):
            self.shape, self.dtype = shape, np.dtype(dtype)

    assert fits({"positions": Column(5, 2, 3), "energy": Column(5, 1), "forces": Column(5, 2, 3)}, 2) == 5
    for wrong in (Column(6), Column(5, 2), Column(5, dtype=complex), Column(5, dtype="S1"), Column(5, dtype=object)):
        with pytest.raises(DataError, match="energy"):
            fits({"positions": Column(5, 2, 3), "energy": wrong}, 2)
    with pytest.raises(DataError, match="more than the 1,000,000"):
        fits({"positions": Column(5, 10**9, 3)}, 10**9)
    with pytest.raises(Rejected, match="group without a frame"):
        fits({"positions": Column(0)}, 2)


def test_pieces_bound_the_memory():
    assert [(rows.start, rows.stop) for rows in pieces(1030, 3)] == [(0, 512), (512, 1024), (1024, 1030)]
    assert max(rows.stop - rows.start for rows in pieces(20, 10**6)) * 10**6 <= 1 << 22


def test_stresses_of_every_shape_are_one():
    matrix = [[1.0, 6, 5], [6, 2, 4], [5, 4, 3]]
    for shape in (matrix, np.ravel(matrix), [1, 2, 3, 4, 5, 6]):
        assert stress_matrix(shape).tolist() == matrix


def test_remarks_are_not_left_out():
    assert told({}) == ["left out: nothing"]
    assert told({"charged": 2, f"{REMARK}odd": 1}) == ["left out: 2 charged", "read with a remark: 1 odd"]
