import pytest
import torch

from equiscope.analysis.linear_head import linear_head
from equiscope.errors import InputError
from equiscope.tasks.forcefield.escaip import Escaip, EscaipConfig
from equiscope.tasks.forcefield.task import FORCES
from tests.analysis.networks import DECLARED, batches, network


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
        inputs = model.head_inputs(batch)
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
