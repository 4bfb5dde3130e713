"""Opening a run: the weights that were measured, and clear words where there is no run."""

import pytest
import torch

from equiscope import records
from equiscope.errors import IntegrityError, RunError
from equiscope.runs.train import train
from equiscope.runs.trained import open_run

from .toy import config


def test_the_opened_model_is_the_one_that_was_measured(tmp_path):
    folder = train(config(tmp_path))
    opened = open_run(folder.path)
    book = records.read(folder.records)
    final = next(r for r in book if r["kind"] == "measure" and r["part"] == "final")
    opened.task.prepare(progress=False)
    from equiscope.runs.tracker import Settings, measure_probe

    result = measure_probe(opened.model, opened.task.probes("final")[0], Settings(seed=opened.config["final"]["seed"]))
    assert result.percent == final["result"]["percent"]
    assert opened.step == opened.config["trainer"]["max_steps"]
    trained = open_run(folder.path, averaged=False).model
    assert any(not torch.equal(a, b) for a, b in zip(trained.parameters(), opened.model.parameters(), strict=True))


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(RunError, match="no run's folder"):
        open_run(tmp_path / "a" / "b")


def test_damage_is_said(tmp_path):
    folder = train(config(tmp_path))
    data = bytearray(folder.checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    folder.checkpoint.write_bytes(data)
    with pytest.raises(IntegrityError, match="damaged"):
        open_run(folder.path)
