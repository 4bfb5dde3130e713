"""Recording layers: names, repeated calls, nested answers, and that nothing stays behind."""

import pytest
import torch
from torch import nn

from equiscope.analysis.activations import Recorder, default_layers, find_layers, rows_of_features
from equiscope.errors import InputError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)) for _ in range(2))
        self.trunk = nn.Module()
        self.trunk.parts = nn.ModuleList([nn.Linear(4, 4)])
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = self.norm(block(x))
        return {"y": x, "pair": (x, torch.zeros(2, dtype=torch.int64)), "none": None}


def test_blocks_are_items_of_module_lists_and_what_stands_beside_them():
    assert default_layers(Net()) == ["first", "blocks.0", "blocks.1", "trunk.parts.0", "norm", ""]
    assert default_layers(nn.Linear(2, 2)) == [""]


def test_patterns_and_a_name_that_does_not_exist():
    assert find_layers(Net(), ["blocks.*.0", "answer"]) == ["", "blocks.0.0", "blocks.1.0"]
    with pytest.raises(InputError, match=r"no layer of Net is named 'block\.0'; its blocks are first, blocks\.0"):
        find_layers(Net(), ["block.0"])


def test_every_call_is_kept_once_and_hooks_are_gone_afterwards():
    net, x = Net(), torch.randn(5, 3)
    recorder = Recorder(net, ["norm", "", "blocks.0.0"])
    with recorder.recording():
        answer = net(x)
        assert list(recorder.calls) == ["blocks.0.0", "norm", "norm #2", "answer[y]", "answer[pair][0]"]
        assert torch.equal(recorder.calls["norm #2"], answer["y"])
        # As the layer answered it, before the next one worked in place.
        assert (recorder.calls["blocks.0.0"] < 0).any()
        assert recorder.silent() == []
        recorder.clear()
        assert recorder.silent() == ["norm", "answer", "blocks.0.0"]
    net(x)
    assert recorder.calls == {}
    assert not any(module._forward_hooks for module in net.modules())


def test_rows_are_all_axes_but_the_last_and_evenly_thinned():
    value = torch.arange(24.0).reshape(2, 3, 4)
    rows = rows_of_features(value, 100)
    assert rows.shape == (6, 1, 4)
    assert rows.dtype == torch.float64
    assert torch.equal(rows[4, 0], value[1, 1].double())
    assert torch.equal(rows_of_features(value, 3)[:, 0], value.reshape(6, 4)[[0, 2, 4]].double())
    assert rows_of_features(torch.arange(3.0), 5).shape == (3, 1, 1)
