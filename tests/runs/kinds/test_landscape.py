"""Curvature and landscapes at kept steps, with the points asked for."""

import pytest

from equiscope.runs.analyse import analyse
from equiscope.runs.train import train
from tests.runs.toy import config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(config(tmp_path_factory.mktemp("runs"), trainer__keep=[12, 40], data={"dropout": 0.0}))


def test_curvature_and_landscape_at_kept_steps(run):
    changes = {"samples": 8, "points": 7, "plane_points": 5}
    made = analyse(run.path, ["hessian", "landscape"], at=[12, 40], changes=changes)
    hessian, landscape = made[1]["values"], made[3]["values"]
    assert made[3]["settings"]["points"] == len(landscape["t"]) == 7
    assert "points" not in made[1]["settings"]
    for part in ("twirled", "equivariance"):
        assert hessian["parts"][part]["hessian"]["lambda_max"]["value"] > 0
        assert len(landscape["plane"]["parts"][part]["value"]) == 5
