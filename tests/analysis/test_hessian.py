import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh

from equiscope.analysis.hessian import CurvatureOperator, hessian, largest_eigenvalue
from equiscope.analysis.parts import KINDS, PARTS, Parts
from equiscope.errors import InputError
from tests.analysis.networks import DECLARED, batches, network


def dense(parts, part, kind):
    eye = torch.eye(parts.size, dtype=torch.float64)
    return torch.stack([parts.product(part, row, kind) for row in eye]).numpy()


@pytest.fixture(scope="module")
def small():
    parts = Parts(network("LayerNorm", width=4), batches(), DECLARED, rotations="D2", memory="all")
    return parts, {(p, k): dense(parts, p, k) for p in PARTS for k in KINDS if (p, k) != ("total", "gauss_newton")}


def test_largest_eigenvalues_equal_the_dense_ones(small):
    parts, matrices = small
    for (part, kind), matrix in matrices.items():
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-9 * np.abs(matrix).max())
        truth = np.linalg.eigvalsh(matrix)[-1]
        operator = CurvatureOperator(parts, part, kind)
        found = largest_eigenvalue(operator, tolerance=1e-9, steps=60)
        assert found["value"] == pytest.approx(truth, rel=1e-8)
        assert eigsh(operator, k=1, which="LA", tol=1e-10)[0][0] == pytest.approx(truth, rel=1e-8)


def test_trace_frobenius_and_density_within_their_intervals(small):
    parts, matrices = small
    from equiscope.analysis import hessian as module

    operator = CurvatureOperator(parts, "equivariance")
    matrix = matrices["equivariance", "hessian"]
    operator.apply = lambda v: _apply(operator, torch.from_numpy(matrix), v)
    values = np.linalg.eigvalsh(matrix)
    truths = {"trace": np.trace(matrix), "frobenius_square": (matrix**2).sum()}
    covered, inside, repeats = dict.fromkeys(truths, 0), [], 150
    for seed in range(repeats):
        found = module._spectrum(operator, 0.01, 60, 16, 12, seed)
        for name, truth in truths.items():
            low, high = found[name]["interval"]
            covered[name] += low <= truth <= high
        grid, width = np.array(found["density"]["grid"]), found["density"]["width"]
        true = module.smoothed(values, np.full(len(values), 1 / len(values)), grid, width)
        inside.append(np.abs(np.array(found["density"]["value"]) - true) <= 2.13 * np.array(found["density"]["error"]))
    for name, count in covered.items():
        assert count / repeats >= 0.9, (name, count)
    middle = np.stack(inside)[:, 30:70]
    assert middle.mean() > 0.9


def _apply(operator, matrix, vector):
    image = matrix @ vector.double()
    operator.quadratics = dict.fromkeys(operator.batches, float(vector.double() @ image))
    return image


def test_the_dictionary_and_the_halves():
    found = hessian(
        network("GELU", width=3), batches(), DECLARED, rotations="D2", cosets=1, which=("equivariance",), probes=2,
        depth=5, memory="all", kinds=("hessian",),
    )
    figures = found["parts"]["equivariance"]["hessian"]
    top = figures["lambda_max"]
    assert top["converged"]
    assert top["bias"]["cross"] <= top["value"] * (1 + 1e-6)
    assert top["bias"]["halves"] >= top["value"] * (1 - 0.02)
    assert figures["over_loss"]["lambda_max"] == pytest.approx(top["value"] / found["losses"]["equivariance"])


@pytest.mark.parametrize("arguments", [{"probes": 1}, {"tolerance": 0}, {"steps": 0}, {"which": ("mean",)}])
def test_bad_arguments(arguments):
    with pytest.raises(InputError):
        hessian(network("GELU"), batches(), DECLARED, **arguments)
