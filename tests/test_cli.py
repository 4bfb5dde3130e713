"""The command line: one-line errors with exit code 2, and the commands end to end on a toy task."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from equiscope import cli, records, report
from equiscope.errors import DataError
from equiscope.runs import config as conf
from equiscope.runs import doctor
from tests.absent import without
from tests.runs import toy


def _fails(capsys, *arguments):
    assert cli.main(list(arguments)) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith("equiscope: ")
    assert out.err.count("\n") == 1
    assert "Traceback" not in out.err
    return out.err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["run=a", "trainer.max_step=3"], "no setting 'trainer.max_step'; did you mean 'trainer.max_steps'?"),
        (["run=a", "modle=escaip"], "no setting 'modle'; did you mean 'model'?"),
        (["run=a", "model=transformer"], "there is no model 'transformer', did you mean 'edge_transformer'?"),
        (["run=a", "task=nope"], "there is no task 'nope', there are "),
        (["run=null"], "give run=NAME"),
        (["run=a", "seed=abc"], "seed must be like 0, got 'abc'"),
        (["run=a", "trainer.max_steps=1.5"], "trainer.max_steps must be like 2400, got 1.5"),
        (["run=a", "optimizer.lr=true"], "optimizer.lr must be like 0.003, got True"),
        (["run=a", "trainer=3"], "trainer is a group of settings"),
        (["run=a", "novalue"], "the settings cannot be read"),
        (["run=a", "model.size=9M"], "no size '9M'"),
        (["run=a", "+model.depth=9"], "has no setting ['depth']"),
        (["run=a", "loss.name=l3"], "loss.name must be one of squared, escaip for task 'forcefield', got 'l3'"),
        (["run=a", "loss=flow"], "loss.name must be one of squared, escaip for task 'forcefield', got 'flow'"),
        (["run=a", "task=voxels", "loss=escaip"], "one of voxels for task 'voxels', got 'escaip'"),
        (["run=a", "task=proteinflow", "loss=squared"], "one of flow for task 'proteinflow', got 'squared'"),
        (["run=a", "+loss.power=3"], "loss 'squared' has no setting 'power': it has forces, energy"),
        (["run=a", "model=unet"], "for task 'forcefield', got 'unet'"),
        (["run=a", "task=voxels", "model=escaip"], "unet_tied, voxmol, steerable for task 'voxels', got 'escaip'"),
        (["run=a", "task=proteinflow", "model=unet"], "proteina_equivariant for task 'proteinflow', got 'unet'"),
        (["run=a", "task=voxels", "data=spice", "data.path=x"], "unknown data settings"),
        (["run=a", "task=proteinflow", "data=spice", "data.path=x"], "for task 'proteinflow'; the known ones"),
        (["run=a", "data.probe_batch=0"], "data.probe_batch must be at least 1, got 0"),
        (["run=a", "data.final_frames=-2"], "data.final_frames must be at least 1, got -2"),
        (["run=a", "optimizer.lr=-1"], "optimizer.lr must be a finite number >= 0, got -1"),
        (["run=a", "optimizer.weight_decay=-1"], "optimizer.weight_decay must be a finite number >= 0, got -1"),
        (["run=a", "optimizer.betas=[1,2]"], "optimizer.betas must be two numbers in [0, 1), such as [0.9,0.99]"),
        (["run=a", "optimizer=sgd", "optimizer.momentum=1.5"], "optimizer.momentum must be in [0, 1), got 1.5"),
        (["run=a", "+optimizer.nesterov=true"], "optimizer has no setting 'nesterov'"),
        (["run=a", "schedule.min_factor=-1"], "schedule.min_factor is a factor of the learning rate"),
        (["run=a", "+schedule.shape=1"], "schedule has no setting 'shape': it has hold, min_factor, warmup, warm"),
        (["run=a", "trainer.max_steps=0"], "trainer.max_steps must be at least 1, got 0"),
        (["run=a", "trainer.clip=-1"], "trainer.clip must be at least 0, got -1"),
        (["run=a", "threads=0"], "threads must be at least 1"),
        (["run=a", "final.rotations=Q"], "unknown rotations 'Q'"),
        (["run=a", "track.cosets=0"], "cosets must be an integer >= 1"),
        (["run=a/b"], "run='a/b' is no folder name"),
    ],
)
def test_bad_settings_in_one_line(capsys, tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    assert message in _fails(capsys, "train", *settings)
    assert not list(tmp_path.iterdir())


def test_settings_reach_their_place():
    assert conf.configuration([])["run"] == "first"
    made = conf.configuration(["run=7", "model=escaip", "model.size=1M", "loss=escaip", "augment=0.5"])
    assert made["run"] == "7"
    assert made["model"] == {"name": "escaip", "size": "1M"}
    assert made["loss"] == {"name": "escaip", "forces": 100.0, "energy": 4.0}
    assert made["augment"] == 0.5
    assert made["task"] == "forcefield"
    assert conf.configuration(["run=a", "trainer.devices=auto"])["trainer"]["devices"] == "auto"


def test_readers_of_a_missing_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no run folder forcefield/none" in _fails(capsys, "report", "forcefield/none")


def _toy_run(monkeypatch, tmp_path, **changes):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(conf, "configuration", lambda settings: toy.config(tmp_path / "runs", **changes))


def test_train_prints_the_headline(capsys, tmp_path, monkeypatch):
    _toy_run(monkeypatch, tmp_path)
    assert cli.main(["train", "run=a"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "% of the loss is equivariance error (95 % CI " in out[0]
    assert "R² 0.9" in out[0]
    assert out[1] == f"records: {tmp_path / 'runs' / 'toy' / 'a' / 'records.jsonl'}"
    assert records.read(out[1].removeprefix("records: "))[-1]["kind"] == "end"
    assert out[2:] == [f"its page: equiscope report {tmp_path / 'runs' / 'toy' / 'a'}"]


def test_nan_loss_is_one_line(capsys, tmp_path, monkeypatch):
    _toy_run(monkeypatch, tmp_path, data={"nan_at": 3})
    assert "infinite at step 3" in _fails(capsys, "train", "run=a")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/a"), 2, "runs/a: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/locked/x"), 2, "/locked/x: Permission denied"),
        (ModuleNotFoundError("no", name="hydra"), 2, "pip install 'equiscope[train]'"),
        (KeyError("step"), 3, "KeyError: 'step' (test_cli.py:"),
    ],
)
def test_nothing_comes_raw(capsys, monkeypatch, error, status, words):
    def fails(settings):
        raise error

    monkeypatch.setattr(conf, "configuration", fails)
    assert cli.main(["train", "run=a"]) == status
    told = capsys.readouterr().err
    assert words in told
    assert told.startswith("equiscope: ")
    assert told.count("\n") == 1
    with pytest.raises(type(error)):
        cli.main(["--traceback", "train", "run=a"])


def test_a_reader_that_has_seen_enough_is_no_error():
    command = "from equiscope.cli import main; import sys; sys.exit(main(['completion', 'bash']))"
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "{sys.executable}" -c "{command}" | head -1'], capture_output=True, text=True
    )
    assert done.returncode in (0, 141)
    assert "BrokenPipe" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("package", ["plotly", "jinja2"])
def test_without_the_packages_of_the_report_everything_else_is_done(capsys, tmp_path, monkeypatch, package):
    """Train, analyse and demo leave the page out; report, whose only work it is, says what it needs."""
    _toy_run(monkeypatch, tmp_path, trainer__keep=[0, 40], data={"dropout": 0.0})
    with without(package):
        assert cli.main(["demo", "--threads", "1"]) == 0
        told = capsys.readouterr()
        assert "no page was made, the records are whole: this needs the package" in told.err
        assert "pip install 'equiscope[report]'" in told.err
        run = str(tmp_path / "runs" / "toy" / "a")
        assert cli.main(["analyse", run, "layers", "--at", "40", "--samples", "4", "--rotations", "T"]) == 0
        told = capsys.readouterr()
        assert "Inside the network" in told.out
        assert "pip install 'equiscope[report]'" in told.err
        assert cli.main(["report", run]) == 2
        assert "pip install 'equiscope[report]'" in capsys.readouterr().err


def test_without_matplotlib_the_page_is_made_without_files_of_figures(capsys, tmp_path, monkeypatch):
    _toy_run(monkeypatch, tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["demo", "--threads", "1"]) == 0
    told = capsys.readouterr()
    page = Path(told.out.split("report: ")[1].strip())
    assert "plotly" in page.read_text().lower()
    assert not list((page.parent / "figures").glob("*"))
    assert "pip install matplotlib" in told.err


def test_options_of_another_page_and_runs_that_are_not_there_are_refused_before_the_work(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "build", None)
    for given in (["--out", "x"], ["--paper", "--beside", "toy/a"]):
        assert "leave one out" in _fails(capsys, "report", *given)
    (tmp_path / "runs" / "toy" / "b").mkdir(parents=True)
    assert "no run folder toy/c" in _fails(capsys, "report", "toy/b", "--beside", "toy/c")


def test_threads_of_the_demo(capsys, tmp_path, monkeypatch):
    import torch

    _toy_run(monkeypatch, tmp_path, threads=None)
    monkeypatch.setattr(report, "build", lambda folder: folder)
    before = torch.get_num_threads()
    seen = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    monkeypatch.setattr(doctor, "available_cores", lambda: 7)
    monkeypatch.setattr(doctor, "_timings", lambda threads: {1: 1.0, threads: next(fast)})
    fast = iter([0.4, 9.0])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cli.main(["demo"]) == 0
    assert seen == []
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert cli.main(["demo"]) == 0
    # Seven threads that are slower than one, as on a busy machine, are not taken.
    assert cli.main(["demo"]) == 0
    assert cli.main(["demo", "--threads", "3"]) == 0
    assert seen == [7, 1, 3]
    assert torch.get_num_threads() == before
    capsys.readouterr()
    assert "--threads must be at least 1" in _fails(capsys, "demo", "--threads", "0")


def test_ctrl_c(capsys, monkeypatch):
    def stopped(settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(conf, "configuration", stopped)
    assert cli.main(["train", "run=a"]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


def test_demo_builds_the_report(capsys, tmp_path, monkeypatch):
    _toy_run(monkeypatch, tmp_path)
    built = []
    monkeypatch.setattr(report, "build", lambda folder: built.append(folder) or folder / "report.html")
    assert cli.main(["demo", "--threads", "1"]) == 0
    assert built == [tmp_path / "runs" / "toy" / "a"]
    assert f"report: {built[0] / 'report.html'}" in capsys.readouterr().out


def test_the_demo_has_many_molecules_unless_its_data_are_chosen(monkeypatch):
    """Of 40 held-out molecules three carried the interval; settings of the data that are given stand alone."""
    asked = []

    def stopped(settings):
        asked.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(conf, "configuration", stopped)
    for given in ([], ["trainer.max_steps=3"], ["data.frames=60"], ["data=spice", "data.path=x"]):
        cli.main(["demo", *given])
    many = [[s for s in settings if s.startswith("data.frames")] for settings in asked]
    assert many == [["data.frames=3800", "data.frames_per_molecule=4"]] * 2 + [["data.frames=60"], []]


def test_data_command(capsys, monkeypatch):
    seen = {}

    def generate(config, workers, progress):
        seen.update(config=config, workers=workers)
        raise DataError("stop here")

    monkeypatch.setattr("equiscope.tasks.forcefield.data.generate", generate)
    arguments = ["--frames", "60", "--seed", "3", "--sampler", "langevin", "--out", "x.npz", "--workers", "2"]
    assert "stop here" in _fails(capsys, "data", "forcefield", *arguments)
    made = seen["config"]
    assert (made.frames, made.seed, made.sampler, made.path, seen["workers"]) == (60, 3, "langevin", "x.npz", 2)


def test_the_command_is_installed():
    command = Path(sys.executable).with_name("equiscope")
    shown = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    for name in ("demo", "train", "data", "report"):
        assert name in shown
