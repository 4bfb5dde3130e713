"""Tests of drawing into a folder."""

import json
import sys

import numpy as np
import pytest
import torch

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets.structures import read_structures
from equiscope.tasks.proteinflow.sample_run import real_chains, sample_run, write_trace
from equiscope.tasks.proteinflow.sampling import Sampling
from tests.tasks.datasets.test_protein_chains import helix
from tests.tasks.proteinflow.common import make, small_task


def test_a_folder_holds_traces_figures_and_pictures_of_both_ways_of_drawing(tmp_path):
    task = small_task()
    settings = Sampling(length=45, number=2, steps=3)
    drawn = sample_run(make("proteina"), task, tmp_path / "out", settings, twirl="T")
    assert set(drawn.traces) == {"drawn", "drawn, twirled"}
    assert set(drawn.quality) == {"real chains", "drawn", "drawn, twirled"}
    assert drawn.moved > 0.1
    assert "twirling moves" in str(drawn)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in drawn.files}
    assert {"drawn_001.cif", "drawn_002.pdb", "drawn_twirled_002.cif", "quality.png", "quality.json"} <= names
    table = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert table["settings"]["twirl"] == "T"
    assert table["quality"]["drawn"]["chains"] == 2


def test_traces_are_in_angstrom_and_those_that_were_drawn(tmp_path):
    settings = Sampling(length=45, number=1, steps=200)
    task = small_task()
    target = 0.1 * np.asarray(task.data.chains.ca[0][:45])

    class Known(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def forward(self, batch):
            goal = torch.from_numpy(target)[None].to(batch["x_t"])
            return {"velocity": (goal - batch["x_t"]) / (1 - batch["t"])[:, None, None]}

    drawn = sample_run(Known(), task, tmp_path / "out", settings, formats=("cif",))
    expected = 10 * (target - target.mean(0))
    assert np.abs(drawn.traces["drawn"][0] - expected).max() < 1e-3
    back = read_structures(tmp_path / "out")
    assert np.abs(back.ca[0] - expected).max() < 2e-3
    assert drawn.quality["drawn"].step_share > 0.95
    assert drawn.moved is None


def test_real_chains_of_similar_length_are_compared_with(tmp_path):
    task = small_task(data={"longest": 96})
    near = real_chains(task, 90)
    assert all(81 <= len(ca) <= 99 for ca in near.traces)
    assert len(real_chains(task, 500).traces) == len(task.data.chains)
    with pytest.raises(InputError, match="format"):
        sample_run(make("proteina"), task, tmp_path, Sampling(length=5, number=1, steps=1), formats=())


def test_what_cannot_be_written_is_said_before_anything_is_drawn(tmp_path, monkeypatch):
    # Drawing would fail: a model without parameters lies on no device.
    task, model, settings = small_task(), torch.nn.Identity(), Sampling(length=5, number=1, steps=1)
    with pytest.raises(InputError, match="format must be one of cif, pdb, got 'xyz'"):
        sample_run(model, task, tmp_path / "out", settings, formats=("cif", "xyz"))
    monkeypatch.setitem(sys.modules, "gemmi", None)
    with pytest.raises(DataError, match="gemmi is needed here and not installed"):
        sample_run(model, task, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ending", ["cif", "pdb"])
def test_a_written_trace_is_read_back(tmp_path, ending):
    ca = helix(50) - 20
    write_trace(ca, tmp_path / f"a.{ending}", "drawn")
    chains = read_structures(tmp_path)
    assert np.abs(chains.ca[0] - (ca - ca.mean(0))).max() < 2e-3
    assert chains.sequences == ("G" * 50,)


def test_atoms_are_numbered_ca_of_glycine_in_chain_a(tmp_path):
    import gemmi

    write_trace(helix(5), tmp_path / "a.pdb")
    (chain,) = gemmi.read_structure(str(tmp_path / "a.pdb"))[0]
    assert chain.name == "A"
    assert [(r.name, r.seqid.num, [a.name for a in r]) for r in chain] == [("GLY", i, ["CA"]) for i in range(1, 6)]
    assert chain[2][0].pos.tolist() == pytest.approx(helix(5)[2].tolist(), abs=1e-3)


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(InputError, match="cif or pdb"):
        write_trace(helix(5), tmp_path / "a.xyz")
    with pytest.raises(InputError, match=r"\(L, 3\)"):
        write_trace(helix(5)[:, :2], tmp_path / "a.cif")
    with pytest.raises(DataError, match="not finite"):
        write_trace(np.full((5, 3), np.nan), tmp_path / "a.cif")
    with pytest.raises(DataError, match="write mmCIF"):
        write_trace(helix(5) + 2000, tmp_path / "a.pdb")
    write_trace(helix(5) + 2000, tmp_path / "a.cif")
