"""Curvature of a trained run: matrices and vectors as asked for."""

import pytest

from equiscope.errors import InputError
from equiscope.runs.analyse import analyse
from equiscope.runs.train import train
from tests.runs.toy import config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(config(tmp_path_factory.mktemp("runs"), trainer__keep=[40], data={"dropout": 0.0}))


def test_curvature_of_the_matrices_and_vectors_asked_for(run):
    changes = {"matrices": ("gauss_newton",), "vectors": 3, "samples": 8}
    (made, *_) = analyse(run.path, ["hessian"], at=[40], changes=changes)
    assert made["settings"]["matrices"] == ["gauss_newton"]
    assert made["settings"]["vectors"] == made["values"]["probes"] == 3
    found = made["values"]["parts"]["equivariance"]
    assert set(found) == {"gauss_newton"}
    # Positive semidefinite, so a trace is above every eigenvalue.
    assert found["gauss_newton"]["trace"]["value"] > 0
    with pytest.raises(InputError, match="probes"):
        analyse(run.path, ["hessian"], at=[40], changes={"vectors": 1})
    with pytest.raises(InputError, match="vectors=3 means nothing to layers"):
        analyse(run.path, ["layers"], at=[40], changes={"vectors": 3})
