"""Which steps are measured, and the share of time they may take."""

from types import SimpleNamespace

import pytest
import torch

from equiscope.errors import InputError
from equiscope.records import Records
from equiscope.runs import tracker
from equiscope.runs.clock import Clock
from equiscope.runs.module import TaskModule
from tests.runs.toy import Toy


@pytest.mark.parametrize(("max_steps", "points"), [(2400, 25), (40, 7), (1, 5), (5, 2), (100_000, 40)])
def test_measured_steps(max_steps, points):
    steps = tracker.measured_steps(max_steps, points, 10)
    assert steps[0] == 0
    assert steps[-1] == max_steps
    assert steps == sorted(set(steps))
    assert len(steps) <= points
    assert all(step >= min(10, max_steps) for step in steps[1:])


def test_measured_steps_are_log_spaced():
    steps = tracker.measured_steps(10_000, 8, 10)
    assert steps == [0, 10, 32, 100, 316, 1000, 3162, 10_000]


def test_affordable_points_follow_the_budget():
    probes, settings = Toy(0, 8).probes("track"), tracker.Tracking(share=0.2)
    cost = (24 + 2) * 16
    budget = 0.25 * 2 * 8 * 1000
    assert tracker.affordable_points(probes, settings, 8, 1000) == int(budget // cost)
    assert tracker.affordable_points(probes, settings, 8, 10) == 2
    assert tracker.affordable_points(probes, settings, 8, 10**6) <= 2 + 12 * 5


@pytest.mark.parametrize("change", [{"points": 1}, {"share": 0.0}, {"share": 1.0}, {"first": 0}])
def test_settings_refuse(change):
    with pytest.raises(InputError, match="track"):
        tracker.Tracking(**change)


def test_clock_separates_training_from_tracking(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("equiscope.runs.clock.time.perf_counter", lambda: now[0])
    clock = Clock()
    now[0] += 5
    clock.start()
    now[0] += 8
    with clock.tracking(torch.device("cpu")):
        now[0] += 2
    now[0] += 1
    clock.stop()
    now[0] += 4
    assert (clock.train, clock.track, clock.wall) == (9, 2, 20)
    assert clock.share == pytest.approx(2 / 11)
    later = Clock()
    later.load_state_dict(clock.state_dict())
    later.start()
    now[0] += 3
    assert (later.train, later.track, later.wall) == (12, 2, 23)


def test_tracking_time_survives_a_restart_once(tmp_path):
    """Measured before the checkpoint: counted in its clock. Measured after it: found on disk and counted then."""
    task = Toy(0, 8)
    module = TaskModule(task, {"name": "sgd", "lr": 0.1}, {}, max_steps=40)
    trainer = SimpleNamespace(global_step=0, strategy=SimpleNamespace(barrier=lambda name: None))
    with Records(tmp_path / "records.jsonl") as records:

        def started(state):
            clock = Clock()
            made = tracker.Tracker(records, task.probes("track"), tracker.Tracking(points=3), clock, 40, 10)
            if state:
                made.load_state_dict(state)
            made.on_train_start(trainer, module)
            return made, clock

        fresh, clock = started(None)
        before = {**fresh.state_dict(), "clock": Clock().state_dict(), "measured": -1}
        seconds = records.find("measure", step=0, part="track")["seconds"]
        assert clock.track >= seconds > 0
        again, resumed = started(fresh.state_dict())
        assert resumed.track == clock.track
        assert again.latest["step"] == 0
        _, replayed = started(before)
        assert replayed.track >= seconds
        assert [r["kind"] for r in records.entries] == ["measure"]
