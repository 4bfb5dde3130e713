"""Gradients along training and of a trained run: the same records, in Adam's metric where there is one."""

import pytest

from equiscope import records
from equiscope.runs.analyse import analyse
from equiscope.runs.kinds.gradients import GRADIENTS, adam_state
from equiscope.runs.tracker import Tracking, affordable_points
from equiscope.runs.train import train
from tests.runs.toy import Toy, config


def test_only_adam_has_a_metric():
    assert adam_state({"state": {0: {"momentum_buffer": 1}}}) is None
    assert adam_state({"state": {}}) is None
    state = {"state": {0: {"exp_avg_sq": 1}}}
    assert adam_state(state) is state


def test_gradients_cost_points():
    probes = Toy(0, 8).probes("track")
    plain = affordable_points(probes, Tracking(), 8, 400)
    assert affordable_points(probes, Tracking(gradients=True), 8, 400) < plain


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return train(config(root, trainer__keep=[0, 12, 40], track__gradients=True, data={"dropout": 0.0}))


def test_gradients_are_tracked_with_the_weights_that_are_measured(run):
    book = records.read(run.records)
    found = [r for r in book if r["kind"] == "analysis"]
    measured = [r["step"] for r in book if r["kind"] == "measure" and r["part"] == "track"]
    assert [r["step"] for r in found] == measured
    last, loss = found[-1]["values"], next(r for r in book if r["kind"] == "measure" and r["step"] == 40)["result"]
    # The same samples and rotations: the losses agree with those of the measure.
    assert last["losses"]["equivariance"] == pytest.approx(loss["equivariance"], rel=1e-4)
    assert last["losses"]["twirled"] == pytest.approx(loss["twirled"], rel=1e-4)
    assert found[0]["values"]["adam"] is None
    assert last["adam"] is not None
    # An analysis at a tracked step has nothing left to do.
    before = run.records.read_bytes()
    analyse(run.path, ["gradients"], at=[0, 40])
    assert records.read(run.records)[len(book) :] == [] or all(
        r["analysis"] == "relations" for r in records.read(run.records)[len(book) :]
    )
    assert run.records.read_bytes().startswith(before)
    assert GRADIENTS.samples == 48
