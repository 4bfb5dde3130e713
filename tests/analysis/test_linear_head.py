import math

import numpy as np
import pytest
import torch
from scipy import stats

import equiscope as eq
from equiscope.analysis.linear_head import linear_head
from equiscope.errors import InputError
from equiscope.tasks.forcefield.escaip import Escaip, EscaipConfig
from equiscope.tasks.forcefield.task import FORCES
from tests.analysis.networks import DECLARED, batches, network
from tests.tasks.forcefield.closed_form import head_inputs


def molecules(samples=4, atoms=5):
    generator = torch.Generator().manual_seed(0)
    pos = 1.3 * torch.randn(samples, atoms, 3, generator=generator, dtype=torch.float64)
    return {
        "pos": pos,
        "forces": torch.randn(samples, atoms, 3, generator=generator, dtype=torch.float64),
        "species": torch.tensor([6, 1, 8, 7, 1]).expand(samples, atoms).clone(),
        "mask": torch.ones(samples, atoms, dtype=torch.bool),
        "energy": torch.zeros(samples, dtype=torch.float64),
        "molecule": torch.arange(samples),
        "id": torch.arange(samples),
    }


def test_escaip_has_one_matrix_for_both_losses_each_on_its_own_subspace():
    torch.manual_seed(0)
    width = 4
    model = Escaip(EscaipConfig(width=width, layers=1, heads=2, radial=6, degree=2)).double()
    batch = molecules()
    found = linear_head(model, [batch], FORCES, "force_head", cosets=1)["parts"]
    with torch.no_grad():
        inputs = head_inputs(model, batch)
        v = inputs.magnitude[:, None, None] * torch.einsum("ajh,ajx->ahx", inputs.features, inputs.unit)
        # Per-component mean of each sample, then over samples: all have five atoms.
        q = 2 / 3 * torch.einsum("ahx,akx->hk", v, v) / len(v) / 3
    mean = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    rest = torch.eye(3, dtype=torch.float64) - mean
    for part, rows in (("twirled", mean), ("equivariance", rest)):
        expected = torch.kron(rows, q)
        assert (found[part]["matrix"] - expected).norm() <= 1e-6 * expected.norm()
    assert found["twirled"]["rank"] * 2 == found["equivariance"]["rank"]
    assert found["twirled"]["condition"] == pytest.approx(found["equivariance"]["condition"], rel=1e-6)


def test_a_layer_that_is_not_linear_is_refused_by_name():
    with pytest.raises(InputError, match=r"not linear in layer 'first'"):
        linear_head(network("GELU"), batches(1), DECLARED, "first")


def test_condition_numbers_and_their_intervals_by_hand():
    declared = eq.Declaration({"pos": "1o"}, {"forces": eq.Output("1o", target="y")}, ids="id")
    data = [{**batch, "id": torch.arange(2) + 2 * place} for place, batch in enumerate(batches(4))]
    net, design = network("GELU", width=3), {"rotations": "D2", "cosets": 1}
    found = linear_head(net, data, declared, "last", **design)

    # The mean of the bias over the rotations of D2 vanishes.
    ranks = {"twirled": 9, "equivariance": 12}

    def condition(parts, part):
        values = np.linalg.eigvalsh(parts[part]["matrix"].numpy())
        return math.log(values[-1] / values[-ranks[part]])

    rest = [linear_head(net, data[:i] + data[i + 1 :], declared, "last", **design)["parts"] for i in range(4)]
    logs = {}
    for part in ("twirled", "equivariance"):
        assert found["parts"][part]["rank"] == ranks[part]
        logs[part] = np.array([condition(parts, part) for parts in (found["parts"], *rest)])
        assert math.log(found["parts"][part]["condition"]) == pytest.approx(logs[part][0], rel=1e-9)
    for told, replicates in (
        (found["parts"]["twirled"]["interval"], logs["twirled"]),
        (found["ratio"]["interval"], logs["equivariance"] - logs["twirled"]),
    ):
        error = math.sqrt(3 / 4 * ((replicates[1:] - replicates[1:].mean()) ** 2).sum())
        reach = stats.t.ppf(0.975, 3) * error
        assert [math.log(v) for v in told] == pytest.approx([replicates[0] - reach, replicates[0] + reach], rel=1e-7)
    assert math.log(found["ratio"]["value"]) == pytest.approx(logs["equivariance"][0] - logs["twirled"][0], rel=1e-7)


def test_what_one_batch_or_no_label_leaves_unknown(monkeypatch):
    found = linear_head(network("GELU", width=3), batches(1), DECLARED, "last", cosets=1)
    assert all(math.isnan(bound) for bound in found["ratio"]["interval"])
    unlabelled = eq.Declaration({"pos": "1o"}, {"forces": "1o"}, fixed=["y"])
    found = linear_head(network("GELU", width=3), batches(2), unlabelled, "last", cosets=1)
    assert found["ratio"] is None
    assert list(found["parts"]) == ["equivariance"]
    monkeypatch.setattr("equiscope.analysis.linear_head.MOST", 11)
    with pytest.raises(InputError, match=r"'last' has 12 parameters.*use hessian\(parameters=\['last'\]\)"):
        linear_head(network("GELU", width=3), batches(1), DECLARED, "last")
