"""Analyses call a model as the measure does: with the batch, or with the fields that its signature names."""

import copy

import pytest
import torch

from equiscope.analysis.brute import brute_force
from equiscope.analysis.gradients import gradients
from equiscope.analysis.heads import heads
from equiscope.analysis.hessian import hessian
from equiscope.analysis.landscape import landscape
from equiscope.analysis.layers import layers
from equiscope.analysis.parts import Parts
from equiscope.analysis.tangent import tangent_form
from tests.analysis.networks import DECLARED, Net, batches, network

CURVATURE = dict(which=["total"], kinds=["hessian"], probes=2, depth=4)
LINE = dict(directions=["random:0"], plane=False, points=7)
ANALYSES = {
    "gradients": lambda model, data: gradients(model, data, DECLARED, rotations="D2"),
    "hessian": lambda model, data: hessian(model, data, DECLARED, rotations="D2", **CURVATURE),
    "landscape": lambda model, data: landscape(model, data, DECLARED, rotations="D2", **LINE),
    "heads": lambda model, data: heads(model, data, DECLARED, rotations="D2", cosets=2),
    "layers": lambda model, data: layers(model, data, DECLARED, rotations="D2"),
    "brute": lambda model, data: brute_force(model, data, DECLARED, count=8, repeats=2, rotations="D2"),
    "parts": lambda model, data: Parts(model, data, DECLARED, rotations="D2").values,
    "tangent": lambda model, data: tangent_form(model, trained(model), data, DECLARED, rotations="D2"),
}


class Named(Net):
    def forward(self, pos, species):
        return super().forward({"pos": pos * (1 + species[..., None])})


class Whole(Named):
    def forward(self, batch):
        return super().forward(batch["pos"], batch["species"])


def trained(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.01)
    return other.state_dict()


@pytest.mark.parametrize("name", ANALYSES)
def test_a_model_of_two_fields_is_analysed_as_one_of_the_batch(name):
    named = network("LayerNorm")
    whole = copy.deepcopy(named)
    named.__class__, whole.__class__ = Named, Whole
    data = [b | {"species": torch.arange(len(b["pos"]))[:, None] % 3} for b in batches(3)]
    answers = [ANALYSES[name](model, data) for model in (named, whole)]
    assert repr(answers[0]) == repr(answers[1])
