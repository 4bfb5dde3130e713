"""Tests of drawing into a folder."""

import json

import numpy as np
import pytest

from equiscope.errors import InputError
from equiscope.tasks.datasets.structures import read_structures
from equiscope.tasks.proteinflow.sample_run import real_chains, sample_run
from equiscope.tasks.proteinflow.sampling import Sampling
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

    import torch

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
