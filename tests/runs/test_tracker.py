"""Which steps are measured, and the share of time they may take."""

import pytest
import torch

from equiscope.errors import InputError
from equiscope.runs import tracker
from equiscope.runs.clock import Clock
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
    probes, settings = Toy(0, 8).probes("track"), tracker.TrackSettings(share=0.2)
    cost = (24 + 2) * 16
    budget = 0.25 * 2 * 8 * 1000
    assert tracker.affordable_points(probes, settings, 8, 1000) == int(budget // cost)
    assert tracker.affordable_points(probes, settings, 8, 10) == 2
    assert tracker.affordable_points(probes, settings, 8, 10**6) <= 2 + 12 * 5


@pytest.mark.parametrize("change", [{"points": 1}, {"share": 0.0}, {"share": 1.0}, {"first": 0}])
def test_settings_refuse(change):
    with pytest.raises(InputError, match="track"):
        tracker.TrackSettings(**change)


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
