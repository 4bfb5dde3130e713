"""``equiscope sample``: chains from a tiny trained run; clear words for a run of another task."""

import json

import pytest

from equiscope.cli import main

TINY = ["task=proteinflow", "run=tiny", "model.size=nano", "trainer.max_steps=2", "batch_size=2", "threads=1",
        "data.longest=48", "data.track_chains=2", "data.final_chains=2", "track.points=2",
        "track.times=[0.5]"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    assert main(["train", f"root={root}", *TINY]) == 0
    return root / "proteinflow" / "tiny"


def test_chains_files_and_figures_are_written(run, capsys):
    assert main(["sample", str(run), "--length", "20", "--number", "2", "--steps", "3", "--twirl", "D2"]) == 0
    printed = capsys.readouterr().out
    assert "twirling moves a chain" in printed
    folder = run / "samples"
    assert {f"drawn_00{i}.{e}" for i in (1, 2) for e in ("cif", "pdb")} <= {p.name for p in folder.iterdir()}
    assert set(json.loads((folder / "quality.json").read_text())["quality"]) >= {"real chains", "drawn"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "leapfrog"], "leapfrog"),
        (["--length", "1"], "at least 2"),
        (["--twirl", "Q"], "unknown rotations"),
        (["--format", "xyz"], "xyz"),
    ],
)
def test_bad_arguments_are_explained_in_one_line(run, capsys, arguments, words):
    assert main(["sample", str(run), "--number", "1", "--steps", "1", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "\n" not in error


def test_what_is_no_run_is_said(tmp_path, capsys):
    assert main(["sample", str(tmp_path / "none")]) == 2
    assert "no run folder" in capsys.readouterr().err
