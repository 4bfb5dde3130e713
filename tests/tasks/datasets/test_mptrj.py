"""MPtrj: eV/atom to eV, fractional coordinates, kbar with VASP's sign to ASE's; one material at a time."""

import json

import numpy as np
import pytest

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets.mptrj import MpTrj
from tests.tasks.datasets import layouts

CELL = np.array([[4.0, 0, 0], [1.0, 5.0, 0], [0, 0.5, 6.0]])
STRESS = np.array([[10.0, 1, 2], [1, -20, 3], [2, 3, 30]])
ABC = np.array([[0, 0, 0], [0.5, 0.25, 0.1]])
FORCE = np.array([[0.1, 0, 0], [-0.1, 0, 0]])
ENTRY = ([11, 17], CELL, ABC, -3.5, FORCE, STRESS)


def test_units_and_signs(tmp_path):
    source = MpTrj(layouts.mptrj(tmp_path / "m.json", {"mp-1": [ENTRY, ENTRY], "mp-22": [ENTRY]}))
    blocks, rejected = layouts.read(source)
    assert rejected == {}
    assert [b.group for b in blocks] == ["mp-1", "mp-1", "mp-22"]
    block = blocks[0]
    assert block.numbers.tolist() == [11, 17]
    assert block.energy.tolist() == [-7.0]
    np.testing.assert_allclose(block.positions[0], [[0, 0, 0], [2.25, 1.3, 0.6]])
    np.testing.assert_allclose(block.forces[0], FORCE)
    # 1 kbar = 0.1 GPa, and 160.21766 GPa = 1 eV/Å³.
    np.testing.assert_allclose(block.stress[0], -STRESS * 0.1 / 160.21766208, rtol=1e-7)
    np.testing.assert_allclose(block.cell[0], CELL)
    total, _ = layouts.read(MpTrj(tmp_path / "m.json", energy="uncorrected_total_energy"))
    assert total[0].energy.tolist() == [-8.0]


def test_bad_frames_are_counted(tmp_path):
    path = layouts.mptrj(tmp_path / "m.json", {"mp-1": [ENTRY, ENTRY]})
    content = json.loads(path.read_text())
    del content["mp-1"]["mp-1-0-0"]["force"]
    path.write_text(json.dumps(content))
    blocks, rejected = layouts.read(MpTrj(path))
    assert len(blocks) == 1
    reason = "it lacks one of structure, energy_per_atom, force"
    assert rejected == {f"frame that cannot be read (first: frame mp-1: {reason})": 1}


def test_refusals(tmp_path):
    with pytest.raises(InputError, match="energy must be one of"):
        MpTrj("x", energy="energy")
    path = layouts.mptrj(tmp_path / "m.json", {"mp-1": [ENTRY] * 3})
    path.write_text(path.read_text()[:-200])
    with pytest.raises(DataError, match="no JSON file, or is damaged or cut short"):
        layouts.read(MpTrj(path))
    path.write_text("{}")
    with pytest.raises(DataError, match="no frame of MPtrj's layout"):
        layouts.read(MpTrj(path))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda frame: frame.update(energy_per_atom=None), "energy holds None"),
        (lambda frame: frame.update(stress=[1, 2, 3, 0]), "stress has shape (1, 4)"),
        (lambda frame: frame.update(force=[[0, 0, 0], [0, 0]]), "forces: ValueError"),
        (lambda frame: frame["structure"]["sites"][0]["species"][0].update(element="D"), "got [0, 17]"),
        (lambda frame: frame["structure"]["sites"][0]["species"][0].update(occu=0.5), "not always occupied"),
        (lambda frame: frame["structure"].update(charge=0.5), "one whole number"),
    ],
)
def test_bad_values_are_counted_with_their_reason(tmp_path, change, reason):
    path = layouts.mptrj(tmp_path / "m.json", {"mp-1": [ENTRY, ENTRY]})
    content = json.loads(path.read_text())
    change(content["mp-1"]["mp-1-0-0"])
    path.write_text(json.dumps(content))
    blocks, rejected = layouts.read(MpTrj(path))
    assert (len(blocks), list(rejected.values())) == (1, [1])
    assert reason in next(iter(rejected))


def test_nesting_without_end_is_refused_before_it_fills_the_memory(tmp_path):
    (tmp_path / "a.json").write_text('{"mp-1": ' + "[" * 20_000)
    with pytest.raises(DataError, match="nested 1,000 levels deep or more"):
        layouts.read(MpTrj(tmp_path / "a.json"))
