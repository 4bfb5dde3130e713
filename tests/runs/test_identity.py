"""A run goes on with the data it began with, which its records know by a checksum."""

import numpy as np
import pytest

from equiscope.errors import RunError
from equiscope.runs.config import configuration
from equiscope.runs.trained import check_data, data_checksum
from equiscope.tasks import build
from equiscope.tasks.datasets import store
from equiscope.tasks.datasets.protein_chains import shipped_chains, write_npz


class Told:
    def __init__(self, checksum=None, **facts):
        self.facts = facts
        if checksum:
            self.checksum = lambda: checksum

    def describe(self):
        return self.facts


def entries(checksum, **facts):
    return [{"kind": "run", "data_sha256": checksum}, {"kind": "data", "n": 1, "sha": "x", **facts}]


def test_other_data_are_refused_by_their_checksum():
    check_data(Told("a"), entries("a", frames=3))
    with pytest.raises(RunError, match="the data are not those the run began with"):
        check_data(Told("b", frames=3), entries("a", frames=3))


@pytest.mark.filterwarnings("error")
def test_a_run_of_before_is_told_by_its_description():
    check_data(Told("a", frames=3, path="here"), entries(None, frames=3, path="there"))
    with pytest.warns(UserWarning, match="frames differ from its records"):
        check_data(Told("a", frames=4), entries(None, frames=3))


def test_a_run_of_before_is_bound_from_its_first_resumption_on():
    book = [*entries(None, frames=3), {"kind": "resume", "data_sha256": "a"}]
    with pytest.raises(RunError, match="not those"):
        check_data(Told("b", frames=3), book)


def protein(path, seed=0):
    few = ("data.track_chains=3", "data.final_chains=4", "data.source=npz", f"data.path={path}", f"seed={seed}")
    task = build(configuration(["task=proteinflow", "run=x", *few]))
    task.prepare(progress=False)
    return data_checksum(task)


def test_chains_that_were_exchanged_have_another_checksum(tmp_path):
    chains = shipped_chains()
    write_npz(chains.select(range(120)), tmp_path / "a.npz")
    kept = [i for i, length in enumerate(chains.lengths) if 40 <= length <= 96]
    exchanged = [*(i for i in range(120) if i != kept[5]), next(i for i in kept if i >= 120)]
    write_npz(chains.select(exchanged), tmp_path / "b.npz")
    first = protein(tmp_path / "a.npz")
    assert first == protein(tmp_path / "a.npz", seed=1)
    assert first != protein(tmp_path / "b.npz")


def test_the_checksum_of_arrays_is_of_all_they_are():
    arrays = {"a": np.arange(6.0), "b": np.arange(3)}
    same = {"b": np.arange(3), "a": np.arange(6.0)}
    assert store.digest(arrays) == store.digest(same)
    others = (
        {**arrays, "a": np.arange(6.0).reshape(2, 3)},
        {**arrays, "a": np.arange(6.0, dtype="f4")},
        {**arrays, "a": np.arange(6.0) + 1e-12},
        {"a": arrays["a"], "c": arrays["b"]},
    )
    assert len({store.digest(arrays), *map(store.digest, others)}) == 5
