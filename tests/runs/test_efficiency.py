"""Costs of a step: FLOPs against the closed form, seconds in turn, memory in a process of its own."""

import subprocess
import sys
import time

import torch
from torch import nn

from equiscope.runs.efficiency import FlopCount, peak_memory, profile, seconds
from tests.runs import toy


def test_flops_of_a_matrix_product_and_its_backward():
    layer, x = nn.Linear(5, 7, bias=False), torch.randn(11, 5, requires_grad=True)
    with FlopCount() as count:
        layer(x).sum().backward()
    assert count.total == 3 * 2 * 11 * 5 * 7


def test_flops_where_the_model_differentiates_itself():
    weight = torch.randn(5, 7, requires_grad=True)
    x = torch.randn(11, 5, requires_grad=True)
    with FlopCount() as count:
        (gradient,) = torch.autograd.grad((x @ weight).sum(), x, create_graph=True)
        gradient.square().sum().backward()
    assert count.total == 2 * 11 * 5 * 7 * 3


def test_models_are_timed_in_turn(monkeypatch):
    order = []

    class Sleeper:
        def __init__(self, name, duration):
            self.name, self.duration = name, duration

        def train_step(self):
            order.append(self.name)
            time.sleep(self.duration)

    taken = seconds([Sleeper("a", 0.01), Sleeper("b", 0.02)], "train_step", rounds=3, warmup=1)
    assert order == ["a", "b", "a", "b", "a", "b", "a", "b"]
    assert taken.shape == (3, 2)
    assert (taken[:, 1] > taken[:, 0]).all()


def test_profile_of_a_task(tmp_path):
    config = toy.config(tmp_path)
    found = profile({"mlp": config}, rounds=3)["mlp"]
    assert found["parameters"] == 3 * 32 + 32 + 32 * 3 + 3
    # Forward and the gradients of the weights of both layers, and of the hidden values; inputs need none.
    assert found["flops"] == 2 * 8 * 96 * (2 + 3)
    assert len(found["step_seconds"]) == len(found["infer_seconds"]) == 3
    assert found["peak_mib"] >= 0


def test_memory_is_that_of_the_steps(tmp_path):
    # In a new process, as always: in an old one the allocator may have the memory of earlier tests at hand.
    code = (
        "import time, torch\n"
        "from equiscope.runs import efficiency\n"
        "with efficiency._ResidentPeak() as resident:\n"
        "    held = torch.ones(8_000_000)\n"
        "    time.sleep(0.05)\n"
        "    del held\n"
        "print(resident.added)\n"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 28e6 < int(child.stdout) < 60e6
    assert peak_memory(toy.config(tmp_path)) < 200
