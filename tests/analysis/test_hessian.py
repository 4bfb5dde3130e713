import math

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh

from equiscope.analysis.hessian import (
    CurvatureOperator,
    _density,
    _probed,
    _rademacher,
    _spectrum,
    hessian,
    largest_eigenvalue,
)
from equiscope.analysis.krylov import lanczos, smoothed
from equiscope.analysis.pairs import around
from equiscope.analysis.parts import KINDS, PARTS, Parts
from equiscope.errors import InputError
from tests.analysis import pooled
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


@pytest.mark.parametrize("matrix", ["hessian", "one eigenvalue"])
def test_trace_frobenius_and_density_within_their_intervals(small, matrix):
    matrix = small[1]["total", "hessian"] if matrix == "hessian" else _one_eigenvalue(60)
    values = np.linalg.eigvalsh(matrix)
    truths = {"trace": np.trace(matrix), "frobenius_square": (matrix**2).sum()}
    given = torch.from_numpy(matrix)
    inside = {"trace": [], "frobenius_square": [], "density": []}
    for seed in range(250):
        found = _intervals(given, probes=2 + 2 * (seed % 2), depth=8, seed=seed)
        for name, truth in truths.items():
            low, high = found[name]["interval"]
            inside[name].append(low <= truth <= high)
        density = found["density"]
        grid = np.array(density["grid"])
        true = smoothed(values, np.full(len(values), 1 / len(values)), grid, density["width"])
        inside["density"].append(np.abs(np.array(density["value"]) - true) <= 1.96 * np.array(density["error"]))
        assert density["width"] <= np.ptp(values) / 5
    for name, hits in inside.items():
        assert np.mean(hits, axis=0).min() >= 0.95, (name, np.mean(hits, axis=0).min())


def test_the_interval_of_the_trace_shrinks_with_the_probes(small):
    given = torch.from_numpy(small[1]["total", "hessian"])
    found = _intervals(given, probes=64, depth=8, seed=0)["trace"]["interval"]
    off = given - torch.diag(given.diagonal())
    least = 1.96 * math.sqrt(2 * float(off.square().sum()) / 64)
    assert 2 * least * 0.8 <= found[1] - found[0] <= 2 * least * 2


def _one_eigenvalue(size):
    v = np.random.default_rng(0).standard_normal(size)
    return np.outer(v, v) / (v @ v)


def _intervals(matrix, probes, depth, seed):
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (probes, len(matrix)), generator=generator).double() * 2 - 1
    runs = [lanczos(matrix.mv, z, depth) for z in signs]
    return {
        "trace": around(*_probed(runs, len(matrix), np.copy)),
        "frobenius_square": around(*_probed(runs, len(matrix), np.square)),
        "density": _density(runs, len(matrix), depth),
    }


def test_the_figures_come_with_these_intervals(small):
    parts, matrices = small
    matrix = torch.from_numpy(matrices["equivariance", "hessian"])
    found = _spectrum(CurvatureOperator(parts, "equivariance"), 0.01, 20, 3, 8, 0)
    runs = [lanczos(matrix.mv, _rademacher(parts, 0, 0), found["lambda_max"]["steps"])]
    runs += [lanczos(matrix.mv, _rademacher(parts, 0, probe), 8) for probe in (1, 2)]
    trace, squares = (around(*_probed(runs, parts.size, power)) for power in (np.copy, np.square))
    assert found["trace"]["value"] == pytest.approx(trace["value"], rel=1e-8)
    assert found["trace"]["interval"] == pytest.approx(trace["interval"], rel=1e-8)
    assert found["frobenius_square"]["interval"] == pytest.approx(squares["interval"], rel=1e-8)
    inner, outer = found["trace"]["interval"], found["trace"]["interval_samples"]
    assert outer[0] < inner[0]
    assert inner[1] < outer[1]


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


def test_halves_and_gradients_against_the_dense_matrices_of_each_batch():
    data = batches(4)
    settings = dict(rotations="D2", cosets=1, memory="all")
    found = hessian(
        network("GELU", width=3), data, DECLARED, which=("total",), kinds=("hessian",), probes=2, depth=5,
        tolerance=1e-6, steps=200, **settings,
    )["parts"]["total"]["hessian"]  # fmt: skip
    parts = Parts(network("GELU", width=3), data, DECLARED, **settings)
    eye = torch.eye(parts.size, dtype=torch.float64)

    def matrix(places):
        operator = CurvatureOperator(parts, "total", "hessian", places)
        return torch.stack([operator.apply(row) for row in eye]).numpy()

    halves = [np.linalg.eigh(matrix(places)) for places in ([0, 2], [1, 3])]
    assert found["lambda_max"]["bias"]["halves"] == pytest.approx(np.mean([v[-1] for v, _ in halves]), rel=1e-5)
    vectors = [u[:, -1] for _, u in halves]
    cross = (vectors[0] @ matrix([1, 3]) @ vectors[0] + vectors[1] @ matrix([0, 2]) @ vectors[1]) / 2
    assert found["lambda_max"]["bias"]["cross"] == pytest.approx(cross, rel=1e-4)
    slope = parts.gradient(("total",))["total"].numpy()
    along = slope @ matrix(None) @ slope / (slope @ slope)
    assert found["along_gradient"]["own"]["value"] == pytest.approx(along, rel=1e-9)
    assert found["along_gradient"]["total"]["value"] == pytest.approx(along, rel=1e-9)


@pytest.mark.parametrize("arguments", [{"probes": 1}, {"tolerance": 0}, {"steps": 0}, {"which": ("mean",)}])
def test_bad_arguments(arguments):
    with pytest.raises(InputError):
        hessian(network("GELU"), batches(), DECLARED, **arguments)


@pytest.mark.parametrize("weighting", ["sample", "component"])
def test_the_curvature_of_a_batch_is_its_own_mean(weighting):
    """v^T H_b v = 2 M_b / 9 (|V|^2 - (tr V)^2 / 3) in a linear map, M_b the batch's own mean of |x|^2."""
    model, data = pooled.TwoMaps(), pooled.dealt(4)
    parts = Parts(model, data, pooled.declared(weighting, both=False), parameters=["a"])
    v = torch.randn(9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    operator = CurvatureOperator(parts, "equivariance", "gauss_newton", [0, 2])
    image = operator.apply(v)
    form = 2 * pooled.broken(v.reshape(3, 3))
    for index in (0, 2):
        expected = float(form * pooled.moment([data[index]], "mask", weighting))
        assert operator.calls[-1][index] == pytest.approx(expected, rel=1e-10)
    both = float(form * pooled.moment([data[0], data[2]], "mask", weighting))
    assert float(v @ image) == pytest.approx(both, rel=1e-10)
