"""Runs beside each other: one figure, seconds from the train records, too few runs refused."""

import numpy as np
import pytest

from equiscope.errors import InputError
from equiscope.records import Records
from equiscope.report.beside import beside, seconds_at

from . import synthetic


def run(folder, name, percents):
    folder.mkdir(parents=True)
    with Records(folder / "records.jsonl") as book:
        book.append("run", name=name, model=name, task="toy", parameters=1, config={}, time=0.0)
        for step, percent in percents:
            book.append("train", step=step, seconds=step / 10, loss=1.0, parts={}, lr=0.1)
            made = synthetic.result(percent, 0.5)
            book.append("measure", step=step, part="track", probe="forces", headline=True, seconds=1.0, result=made)
    return folder


def test_two_runs_share_the_axes(tmp_path):
    a = run(tmp_path / "a", "raw", [(0, 15.0), (10, 3.0), (100, 5.0)])
    b = run(tmp_path / "b", "twin", [(0, 1e-12), (10, 0.0), (100, -1e-12)])
    path = beside([a, b], tmp_path / "figures" / "beside.png")
    assert path.stat().st_size > 20_000


def test_seconds_are_those_of_training():
    book = [{"kind": "train", "step": s, "seconds": t} for s, t in ((10, 1.0), (20, 3.0))]
    assert seconds_at(book, np.array([0, 5, 10, 15, 20])) == pytest.approx([0, 0.5, 1, 2, 3])


def test_too_few_runs_and_empty_ones_are_refused(tmp_path):
    a = run(tmp_path / "a", "raw", [(0, 15.0), (10, 3.0)])
    b = run(tmp_path / "b", "started", [(0, 15.0)])
    with pytest.raises(InputError, match="two to"):
        beside([a], tmp_path / "x.png")
    with pytest.raises(InputError, match="fewer than two measurements"):
        beside([a, b], tmp_path / "x.png")
