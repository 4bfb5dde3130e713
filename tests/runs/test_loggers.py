"""Dashboards hold what the records hold, also after a kill, and never change the run."""

import json
import os
import signal
import sys
import time
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from equiscope import records
from equiscope.errors import InputError, IntegrityError
from equiscope.runs import loggers
from equiscope.runs import train as runs
from equiscope.runs.checkpoint import load
from equiscope.runs.folder import RunFolder
from tests.runs import toy
from tests.runs.ends import same_bits

BOARD = {"name": "tensorboard"}


def _train(root, logger=BOARD, **changes):
    return runs.train(toy.config(root, logger=logger, **changes), show_progress=False)


def _expected(folder):
    """tag -> {step: value} of everything that the records say a dashboard must show."""
    found = {}
    for record in records.read(folder.records):
        for name, value in loggers.metrics_of(record).items():
            found.setdefault(name, {})[record["step"]] = value
    return found


REPEATED = 1


def _board(folder):
    events = EventAccumulator(str(folder.path / "tensorboard"), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    events.Reload()
    found = {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    # A kill between the dashboard and the note of it may show a few records twice; a restart must not show all again.
    assert all(len(events.Scalars(tag)) <= len(values) + REPEATED for tag, values in found.items())
    return found


def _assert_same(shown, expected):
    assert set(shown) == set(expected)
    for name, values in expected.items():
        assert shown[name] == pytest.approx(values, rel=1e-6), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return _train(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return _train(tmp_path_factory.mktemp("bare"), logger=None)


def test_tensorboard_shows_the_records(whole):
    shown = _board(whole)
    assert {"train/loss", "train/lr", "percent", "R2", "track/y/percent", "final/y/R2"} <= set(shown)
    assert list(shown["percent"]) == records.read(whole.records)[0]["measured_steps"]
    _assert_same(shown, _expected(whole))


def test_a_logger_changes_nothing_of_the_run(whole, bare):
    assert same_bits(load(whole.checkpoint)["state_dict"], load(bare.checkpoint)["state_dict"])
    assert _expected(whole) == _expected(bare)
    assert not list(bare.path.glob("*tensorboard*"))


@pytest.mark.parametrize("event", [20, 47, 70])
def test_killed_and_resumed_the_dashboard_has_everything(tmp_path, bare, event):
    child = os.fork()
    if child == 0:
        toy.kill_at(event)
        try:
            _train(tmp_path)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    folder = _train(tmp_path)
    assert same_bits(load(folder.checkpoint)["state_dict"], load(bare.checkpoint)["state_dict"])
    assert _expected(folder) == _expected(bare)
    _assert_same(_board(folder), _expected(folder))


def test_a_run_may_go_on_with_another_logger(tmp_path, bare):
    child = os.fork()
    if child == 0:
        toy.kill_at(40)
        try:
            _train(tmp_path, logger=None)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    folder = _train(tmp_path)
    _assert_same(_board(folder), _expected(bare))


def _wandb_entries(content):
    """The entries of wandb's file: LevelDB's log format (blocks of 32 KiB, headers of 7 bytes) after a header of 7."""
    place, parts = 7, b""
    while place < len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        if place + 7 > len(content):
            break
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        if place + 7 + length > len(content):
            break
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole entry, or the last part of one
            yield parts
            parts = b""


def test_wandb_offline_holds_the_records(tmp_path, monkeypatch):
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_SILENT", "true")
    section = {"name": "wandb", "project": "equiscope", "offline": True}
    folder = _train(tmp_path, logger=section)
    (file,) = folder.path.glob("wandb/offline-run-*/*.wandb")
    # wandb's own process may still be writing when its run is finished.
    end, shown = time.monotonic() + 30, {}
    while set(shown) != set(_expected(folder)) and time.monotonic() < end:
        time.sleep(0.2)
        shown = {}
        for data in _wandb_entries(file.read_bytes()):
            row = wandb_internal_pb2.Record.FromString(data).history.item
            values = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in row}
            for name, value in values.items():
                if name != "trainer/global_step" and not name.startswith("_"):
                    shown.setdefault(name, {})[values["trainer/global_step"]] = value
    _assert_same(shown, _expected(folder))


def test_trackio_behind_lightnings_interface(tmp_path, monkeypatch):
    calls = []
    run = types.SimpleNamespace(
        log=lambda metrics, step: calls.append((step, metrics)), finish=lambda: calls.append("finished")
    )
    fake = types.ModuleType("trackio")
    fake.__spec__ = types.SimpleNamespace(name="trackio")
    fake.init = lambda **settings: calls.append(settings) or run
    monkeypatch.setitem(sys.modules, "trackio", fake)
    folder = _train(tmp_path, logger={"name": "trackio", "project": "mine"})
    assert calls[0]["project"] == "mine"
    assert calls[0]["config"]["optimizer.lr"] == 0.01
    logged = {}
    for entry in calls:
        if isinstance(entry, tuple):
            for name, value in entry[1].items():
                logged.setdefault(name, {})[entry[0]] = value
    assert logged == _expected(folder)
    assert calls[-1] == "finished"


@pytest.mark.parametrize("name", loggers.PACKAGES)
def test_a_missing_package_names_its_install_line(tmp_path, monkeypatch, name):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(InputError, match=f"pip install {name}, or choose logger=none"):
        _train(tmp_path, logger={"name": name})
    assert not list(tmp_path.iterdir())


def test_unknown_logger(tmp_path):
    with pytest.raises(InputError, match="logger must be one of tensorboard, wandb, trackio, mlflow, none; got 'x'"):
        _train(tmp_path, logger={"name": "x"})


def test_what_is_unknown_is_left_out():
    record = {"kind": "measure", "part": "track", "probe": "y", "headline": True, "step": 1}
    result = {"percent": None, "r2": 0.5, "total": 2.0, "equivariance": None}
    assert loggers.metrics_of({**record, "result": result}) == {"track/y/R2": 0.5, "track/y/total": 2.0, "R2": 0.5}
    assert loggers.metrics_of({"kind": "end", "step": 1}) == {}


def test_plain_names_are_those_of_the_tracked_headline_alone():
    record = {"kind": "measure", "step": 1, "probe": "y", "result": {"percent": 2.0}}
    plain = {
        (part, headline): "percent" in loggers.metrics_of({**record, "part": part, "headline": headline})
        for part in ("track", "final")
        for headline in (True, False)
    }
    assert [key for key, there in plain.items() if there] == [("track", True)]


def test_a_damaged_position_says_what_to_do(tmp_path):
    folder = RunFolder(tmp_path, "toy", "a")
    folder.path.mkdir(parents=True)
    (folder.path / "logger-wandb.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"logger-wandb\.json is damaged: delete it"):
        loggers.read_state(folder, "wandb")
