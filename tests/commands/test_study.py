"""A study from the command line to its page: real runs, one that fails, started again, nothing trained twice."""

import json

import pytest

from equiscope import records
from equiscope.cli import main
from equiscope.runs.config import study_definition
from equiscope.runs.study import members
from equiscope.runs.sweep import answer_path, training_overrides

SMALL = (
    "task=proteinflow", "trainer.max_steps=2", "track.points=2", "track.times=[0.5]", "data.track_chains=2",
    "data.final_chains=2", "batch_size=2", "trainer.accelerator=cpu", "model.size=nano", "logger=none",
)  # fmt: skip


@pytest.fixture
def settings(tmp_path):
    return [*SMALL, f"root={tmp_path}"]


def test_runs_failure_page_and_second_start(settings, tmp_path, capsys):
    bad = "+study.points.proteinflow.bad=['optimizer.lr=nan']"
    given = [*settings, "hydra/launcher=basic", "study.seeds=[0]", bad]
    assert main(["study", "replicates", *given]) == 1
    told = capsys.readouterr().out
    assert "1 of 2 runs finished" in told
    assert "failed: bad, seed 0:" in told
    (study,) = records.read(tmp_path / "studies" / "proteinflow-replicates" / "records.jsonl")
    assert [run["status"] for run in study["runs"]] == ["finished", "failed"]
    page = (tmp_path / "studies" / "proteinflow.html").read_text()
    assert "Failed runs" in page
    assert "default" in page
    own = [bad, "study.seeds=[0]"]
    good = members(study_definition("replicates", own), "proteinflow", training_overrides(given))[0]
    before = good.folder.records.read_bytes()
    answer = answer_path(good, "replicates")
    assert json.loads(answer.read_text())["status"] == "finished"
    answered = answer.stat().st_mtime_ns
    assert main(["study", "replicates", *given]) == 1
    assert good.folder.records.read_bytes() == before
    # It was not even started.
    assert answer.stat().st_mtime_ns == answered


def test_bad_calls(settings, capsys):
    assert main(["study", "no_such_study", *settings]) == 2
    assert "no_such_study" in capsys.readouterr().err
    assert main(["study", "model_size", *settings, "--parallel", "0"]) == 2
    assert "--parallel must be at least 1" in capsys.readouterr().err
    assert main(["study", "model_size", "task=forcefield", "task=voxels"]) == 2
    assert "of one task" in capsys.readouterr().err
    for wrong, words in (
        ("study.seeds=[]", "study.seeds must be a list of integers >= 0, such as [0,1,2], got []"),
        ("study.seeds=ab", "study.seeds must be a list"),
        ("study.points=3", "study.points must be like"),
    ):
        assert main(["study", "replicates", *settings, wrong]) == 2
        assert words in capsys.readouterr().err


def test_a_root_of_any_name(tmp_path, capsys):
    root = tmp_path / "a,b=[c]{d}'e#ü (f)~"
    given = [*SMALL, f"root={root}", "hydra/launcher=basic", "study.seeds=[0]"]
    assert main(["study", "replicates", *given]) == 0
    assert "1 of 1 runs finished" in capsys.readouterr().out
    assert (root / "studies" / "proteinflow.html").exists()
    assert [path.name for path in tmp_path.iterdir()] == [root.name]
