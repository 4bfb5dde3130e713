"""Run folders: the lock, and the refusal of another configuration."""

import os
import signal
import time

import pytest

from equiscope.errors import InputError, IntegrityError, RunError
from equiscope.records import Records
from equiscope.runs.folder import RunFolder

CONFIG = {"task": "toy", "seed": 0, "trainer": {"max_steps": 10}, "root": "runs", "threads": None}


def _child_that_holds(folder: RunFolder) -> int:
    ready, say = os.pipe()
    child = os.fork()
    if child == 0:
        folder.open(CONFIG)
        os.write(say, b"!")
        time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    os.close(ready)
    os.close(say)
    return child


def test_second_process_is_refused_until_the_first_dies(tmp_path):
    folder = RunFolder(tmp_path, "toy", "a")
    child = _child_that_holds(folder)
    try:
        with pytest.raises(RunError, match=f"in use by process {child}"):
            folder.open(CONFIG)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert folder.open(CONFIG) is False
    folder.release()


def test_second_opening_in_one_process_is_refused(tmp_path):
    first, second = RunFolder(tmp_path, "toy", "a"), RunFolder(tmp_path, "toy", "a")
    assert first.open(CONFIG) is True
    with pytest.raises(RunError, match="already in use by this process"):
        second.open(CONFIG)
    first.release()
    assert second.open(CONFIG) is False
    second.release()


def test_other_configuration_is_refused_by_key(tmp_path):
    folder = RunFolder(tmp_path, "toy", "a")
    folder.open(CONFIG)
    folder.compare({**CONFIG, "threads": 4, "root": "elsewhere"})
    with pytest.raises(RunError) as caught:
        folder.compare({**CONFIG, "trainer": {"max_steps": 20}, "extra": 1})
    folder.release()
    assert "trainer.max_steps (was 10, now 20)" in str(caught.value)
    assert "extra (was 'unset', now 1)" in str(caught.value)
    assert "seed" not in str(caught.value)


def test_a_run_from_before_the_data_had_a_seed_does_not_go_on_with_another_split(tmp_path):
    folder = RunFolder(tmp_path, "toy", "a")
    folder.open({**CONFIG, "seed": 3, "data": {"fraction": 1.0}})
    folder.release()
    with pytest.raises(RunError, match=r"data\.seed \(was 3, now 0\)"):
        folder.compare({**CONFIG, "seed": 3, "data": {"fraction": 1.0, "seed": 0}})
    # Its own, by number or left to the run.
    for seed in (3, None):
        folder.compare({**CONFIG, "seed": 3, "data": {"fraction": 1.0, "seed": seed}})


def test_a_folder_without_records_takes_other_settings(tmp_path):
    folder = RunFolder(tmp_path, "toy", "a")
    folder.open(CONFIG)
    folder.release()
    assert folder.open({**CONFIG, "seed": 1}) is True
    assert folder.stored_config()["seed"] == 1
    folder.release()
    with Records(folder.records, folder.lock) as book:
        book.append("run", config=folder.stored_config())
    with pytest.raises(RunError, match="seed"):
        folder.open(CONFIG)
    folder.release()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: [1", b"just text", b""])
def test_damaged_configuration(tmp_path, content):
    folder = RunFolder(tmp_path, "toy", "a")
    folder.open(CONFIG)
    folder.release()
    folder.config.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"config\.yaml"):
        folder.open(CONFIG)
    folder.release()


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "toy").write_text("a file where the folder should be")
    with pytest.raises(RunError, match="cannot write the run folder"):
        RunFolder(tmp_path, "toy", "a").open(CONFIG)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\0"])
def test_names_that_are_no_folder(tmp_path, name):
    with pytest.raises(InputError, match="no folder name"):
        RunFolder(tmp_path, "toy", name)


def test_settings_that_an_older_version_did_not_have(tmp_path):
    folder = RunFolder(tmp_path, "toy", "a")
    folder.open(CONFIG)
    folder.compare({**CONFIG, "trainer": {**CONFIG["trainer"], "keep": 8, "new": False}})
    with pytest.raises(RunError, match=r"trainer\.new \(was 'unset', now True\)"):
        folder.compare({**CONFIG, "trainer": {**CONFIG["trainer"], "new": True}})
    folder.release()
