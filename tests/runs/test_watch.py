"""The states of runs from their folders, while another process may be writing."""

import io
import os
import time

from equiscope.records import Records
from equiscope.runs.study import Member, State, Watch, state, table


def _member(root, name="a"):
    config = {"root": str(root), "task": "toy", "run": name, "trainer": {"max_steps": 40}}
    return Member("point", 0, (), config)


def _write(member, finished=False):
    member.folder.path.mkdir(parents=True, exist_ok=True)
    with Records(member.folder.records) as records:
        records.append("train", step=20, seconds=61.0)
        records.append("measure", step=20, headline=True, result={"percent": 1.25, "r2": 0.5})
        if finished:
            records.append("end", step=40)


def test_waiting_running_finished(tmp_path):
    member, begun = _member(tmp_path), time.time() - 5
    assert state(member, begun) == State("waiting", 0, 40, 0.0)
    _write(member)
    assert state(member, begun) == State("running", 20, 40, 61.0, 1.25, 0.5)
    assert state(member, time.time() + 5).status == "waiting"
    with open(member.folder.records, "ab") as file:
        file.write(b'{"n": 9, "kind": "tr')
    assert state(member, begun).status == "running"
    _write(_member(tmp_path, "b"), finished=True)
    assert state(_member(tmp_path, "b"), begun).status == "finished"


def test_a_finished_run_stays_so_under_long_analyses(tmp_path):
    """The end is then far from the last bytes of the file; a study that missed it would start the run for ever."""
    member = _member(tmp_path)
    _write(member, finished=True)
    with Records(member.folder.records) as records:
        for step in range(4):
            records.append("analysis", step=step, values=["x" * 1000] * 200)
    assert state(member) == State("finished", 40, 40, 61.0, 1.25, 0.5)


def test_table_tells_what_how_far_how_long(tmp_path):
    text = table([_member(tmp_path)], [State("running", 20, 40, 61.0, 1.25, 0.5)])
    assert "point" in text
    assert "20/40" in text
    assert "1:01" in text
    assert "1.2 %" in text
    assert text.endswith("0 of 1 runs finished")


def test_a_table_fits_the_terminal_that_it_is_drawn_into_again_and_again(tmp_path):
    """The cursor goes back no further than the first line of the screen."""
    members = [_member(tmp_path, f"run{i}") for i in range(30)]
    states = [State("running" if i % 10 == 7 else "waiting", i, 40, 61.0) for i in range(30)]
    shown = table(members, states, os.terminal_size((80, 24))).splitlines()
    assert [line.split()[3] for line in shown[1:-1]] == ["7/40", "17/40", "27/40"]
    assert shown[-1] == "0 of 30 runs finished"
    assert len(table(members, states, os.terminal_size((80, 33))).splitlines()) == 32
    busy = table(members, [State("running", 0, 40, 0.0)] * 30, os.terminal_size((40, 24))).splitlines()
    assert len(busy) == 23
    assert max(map(len, busy)) == 39


def test_a_log_gets_a_line_a_change_and_a_terminal_a_table_in_place(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    member = _member(tmp_path)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    log, terminal = io.StringIO(), Terminal()
    with Watch([member], log, every=0.01), Watch([member], terminal, every=0.01):
        time.sleep(0.05)
        _write(member, finished=True)
        time.sleep(0.05)
    assert log.getvalue().splitlines()[-1] == "point, seed 0: finished"
    assert len(log.getvalue().splitlines()) <= 2
    assert "\x1b[" in terminal.getvalue()
    assert terminal.getvalue().rstrip().endswith("1 of 1 runs finished")
