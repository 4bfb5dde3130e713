"""Condition numbers of a trained run's head, in float64."""

import pytest
import torch
from torch import nn

from equiscope.errors import InputError
from equiscope.runs.analyse import analyse
from equiscope.runs.kinds.handed import doubled
from equiscope.runs.train import train
from tests.runs.toy import config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(config(tmp_path_factory.mktemp("runs"), trainer__keep=[40], data={"dropout": 0.0}))


def test_condition_numbers_of_the_head(run):
    made = analyse(run.path, ["conditioning"], at=[40])[0]
    found = made["values"]
    assert made["settings"]["batch"] == 4
    assert (found["layer"], found["parameters"], found["samples"]) == ("3", 99, 16)
    for part in found["parts"].values():
        assert "matrix" not in part
        assert part["eigenvalues"] == sorted(part["eigenvalues"])
        assert part["condition"] == pytest.approx(part["eigenvalues"][-1] / part["eigenvalues"][-part["rank"]])
    low, high = found["ratio"]["interval"]
    assert low < found["ratio"]["value"] < high
    # More than single precision could tell.
    assert found["parts"]["equivariance"]["condition"] > 1e5
    assert analyse(run.path, ["conditioning"], at=[40])[0]["n"] == made["n"]


class Single(nn.Linear):
    def forward(self, x):
        return super().forward(x.float())


class Potential(nn.Linear):
    """Forces of an energy, which need gradients."""

    def forward(self, x):
        x = x.requires_grad_()
        return -torch.autograd.grad(super().forward(x).square().sum(), x)[0]


def test_forces_of_an_energy_run_in_float64():
    exact, _ = doubled(Potential(3, 1), [{"x": torch.ones(2, 3)}], lambda m, batch: m(batch["x"]))
    assert exact.weight.dtype == torch.float64


def test_a_copy_in_float64():
    batches = [{"x": torch.ones(2, 3), "id": torch.arange(2)}]
    model = nn.Linear(3, 3)
    exact, made = doubled(model, batches, lambda m, batch: m(batch["x"]))
    assert made[0]["x"].dtype == exact.weight.dtype == torch.float64
    assert made[0]["id"].dtype == torch.int64
    assert model.weight.dtype == torch.float32
    assert exact.weight.requires_grad
    with pytest.raises(InputError, match="Single does not run in float64"):
        doubled(Single(3, 3), batches, lambda m, batch: m(batch["x"]))
