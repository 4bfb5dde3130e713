"""A default device that somebody set (`torch.set_default_device`) is for their tensors: ours name their own."""

import ast
import contextlib
from pathlib import Path

import pytest
import torch

import equiscope as eq

PACKAGE = Path(eq.__file__).parent
MAKERS = {"tensor", "zeros", "ones", "empty", "full", "eye", "arange", "linspace", "rand", "randn", "randperm",
          "randint"}  # fmt: skip
MEASURING = ("symmetry", "decomposition", "adapters", "analysis", "testing")


def nameless(source):
    """Lines of calls that make a tensor wherever the default device is."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MAKERS:
            named = {keyword.arg for keyword in node.keywords} & {"device", None}
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "torch" and not named:
                yield node.lineno


def test_every_tensor_of_ours_names_its_device():
    files = [file for room in MEASURING for file in sorted((PACKAGE / room).rglob("*.py"))]
    assert len(files) > 60
    assert {f"{file.name}:{line}" for file in files for line in nameless(file.read_text())} == set()
    assert list(nameless("torch.eye(3)\ntorch.eye(3, device=d)\nx.new_zeros(3)\ntorch.zeros(2, **like)")) == [1]


@contextlib.contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device("cpu")


def skewed(batch):
    """Answers of every kind, none of them symmetric: energy, forces, stress, a grid-free tensor of degree 2."""
    pos = batch["pos"]
    outer = pos[..., :, None] * pos[..., None, :].roll(1, -1)
    return {"energy": pos[..., 0].sum(-1, keepdim=True), "forces": pos + 0.1 * pos.roll(1, -1),
            "stress": outer.sum(1) + outer.sum(1).mT}  # fmt: skip


@pytest.mark.parametrize("settings", [
    {}, {"rotations": "D2", "group": "O3"}, {"rotations": "haar", "cosets": 4},
    {"spectrum": True}, {"center": "mean"}, {"symmetry": ("rotation", "permutation")},
])  # fmt: skip
def test_a_default_device_changes_no_figure(settings):
    draw = torch.Generator().manual_seed(0)
    batches = [{"pos": torch.randn(4, 5, 3, generator=draw), "forces": torch.randn(4, 5, 3, generator=draw)}
               for _ in range(3)]  # fmt: skip
    outputs = {"energy": eq.Output("0e", per="sample"), "forces": eq.Output("1o", "forces"),
               "stress": eq.Output("stress", per="sample")}  # fmt: skip

    def measured():
        return repr(eq.measure(skewed, batches, inputs={"pos": "1o"}, outputs=outputs,
                               forward=lambda model, batch: model(batch), **settings).to_dict())  # fmt: skip

    with default_device("meta"):
        there = measured()
    assert there == measured()
