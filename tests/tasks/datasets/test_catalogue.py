"""One catalogue: every format can be asked for its settings and described; what has no frames is not trained on."""

import pytest

from equiscope.errors import EquiscopeError, InputError
from equiscope.tasks.datasets import catalogue, stream


@pytest.mark.parametrize("name", catalogue.FORMATS)
def test_every_reader_answers_for_what_is_not_there(name, tmp_path):
    assert "path" not in catalogue.settings(name)
    units = {"energy_unit": "eV", "length_unit": "Å"} if name == "extxyz" else {}
    for path in (tmp_path / "none", tmp_path / "none.cif"):
        with pytest.raises(EquiscopeError, match="none"):
            catalogue.describe(name, str(path), units, stream.Rules(), stream.Sample())


@pytest.mark.parametrize("name", ["smiles", "structures"])
def test_what_has_no_frames_is_described_only(name):
    with pytest.raises(InputError, match="has no frames: it can be described only"):
        catalogue.source(name, "x")


def test_settings_are_of_their_kind():
    assert catalogue.source("md17", "x", {"pieces": "3"}).pieces == 3
    assert catalogue.source("ase", "x", {"cluster": 7}).cluster == "7"
    with pytest.raises(InputError, match="pieces of md17 must be a whole number, got 'many'"):
        catalogue.source("md17", "x", {"pieces": "many"})
    with pytest.raises(InputError, match="pieces must be at least 1, got -2"):
        catalogue.source("md17", "x", {"pieces": "-2"})
