"""Recipes and the file that is made once: what counts as the same, what is refused, who makes it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from equiscope.errors import DataError, InputError, IntegrityError
from equiscope.tasks.datasets import processes, store
from equiscope.tasks.molecules.recipe import Recipe, make_once


@dataclass(frozen=True, kw_only=True)
class Letters(Recipe):
    FORMAT = "letters"

    alphabet: tuple[str, ...] = ("a", "b")

    def name(self):
        return f"letters-{self.seed}"


def maker(recipe, calls):
    def make(path, workers):
        calls.append(workers)
        store.write(path, {"x": np.arange(3)}, {"format": "letters", "config": recipe.content()})

    return make


def test_a_file_is_made_once_by_as_many_processes_as_asked(tmp_path):
    recipe, calls = Letters(path=str(tmp_path / "deep" / "a.npz")), []
    for workers in (3, 1, None):
        assert make_once(recipe, maker(recipe, calls), workers) == tmp_path / "deep" / "a.npz"
    assert calls == [3]
    other = replace(recipe, path=str(tmp_path / "b.npz"))
    make_once(other, maker(other, calls), None)
    assert calls == [3, processes.available_cores()]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.npz", "deep"]


def test_another_recipe_another_tool_and_damage_are_refused(tmp_path):
    recipe = Letters(path=str(tmp_path / "a.npz"))
    path = make_once(recipe, maker(recipe, []), 1)
    with pytest.raises(DataError, match=r"seed=0 \(asked: 4\), alphabet=\['a', 'b'\] \(asked: \['z'\]\)"):
        make_once(replace(recipe, seed=4, alphabet=("z",)), maker(recipe, []), 1)
    store.write(path, {}, {"format": "numbers", "config": recipe.content()})
    with pytest.raises(DataError, match="another tool"):
        make_once(recipe, maker(recipe, []), 1)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(IntegrityError):
        make_once(recipe, maker(recipe, []), 1)


def test_the_content_is_plain_and_says_nothing_of_the_place():
    made = Letters(seed=2, path="here.npz")
    assert made.content() == {"seed": 2, "min_atoms": 10, "max_atoms": 20, "smiles": None, "alphabet": ["a", "b"]}
    assert str(made.resolved_path()) == "here.npz"
    assert str(replace(made, path=None).resolved_path()) == "data/letters-2.npz"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed must be at least 0"),
        ({"min_atoms": 30}, "got 30 and 20"),
        ({"min_atoms": 1}, "2 <= min_atoms"),
    ],
)
def test_impossible_recipes(wrong, message):
    with pytest.raises(InputError, match=message):
        Letters(**wrong)


@pytest.mark.parametrize("workers", [0, -2])
def test_impossible_numbers_of_processes(workers, tmp_path):
    with pytest.raises(InputError, match=f"workers must be at least 1, got {workers}"):
        make_once(Letters(path=str(tmp_path / "a")), maker(Letters(), []), workers)


def test_the_molecules_come_from_the_file_named(tmp_path):
    (tmp_path / "own.smi").write_text("CC one\n\nCO two\n")
    source, smiles, digest = Letters(smiles=str(tmp_path / "own.smi")).read_smiles()
    assert (source.name, smiles) == ("own.smi", ["CC", "", "CO"])
    about = Letters().metadata(source, digest, "by hand", ("numpy",))
    assert about["source"] == {"file": "own.smi", "sha256": digest}
    assert about["versions"] == {"numpy": np.__version__}
    assert (about["format"], about["format_version"], about["method"]) == ("letters", 1, "by hand")
