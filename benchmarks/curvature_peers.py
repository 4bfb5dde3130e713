"""Hessian products and largest eigenvalues beside curvlinops and hessian-eigenthings: right or wrong, and how fast.

    make curvature-peers

The loss is the plain supervised one that all three know: squared error on one batch. Ours is the total loss of samples
turned once each (or by a whole coset); the peers get the same samples, turned. References are central differences in
float64: of the gradient for the Hessian, of the predictions for the Gauss-Newton matrix, and the eigenvalue that
scipy's ``eigsh`` finds by products of such differences. Each peer gets torch's math kernel for attention, without which
neither runs. Seconds are CPU seconds of this process with one thread, which a busy machine does not inflate by waiting;
repeats are interleaved and compared pair by pair.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from curvature_networks import MIDDLES, Problem, math_attention, problems
from curvature_peers_page import CURVLINOPS, EIGENTHINGS, OURS, TOOLS, page
from curvlinops import KFACLinearOperator
from hessian_eigenthings import lanczos
from pages import keep
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from equiscope.analysis.hessian import CurvatureOperator, largest_eigenvalue
from equiscope.analysis.parts import KINDS

TOLERANCE = 1e-3


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


def accuracy(problem: Problem) -> dict[str, dict[str, Any]]:
    """Error of H v and G v of each tool relative to differences in float64, or the reason it gives for not running."""
    vector, found = problem.direction(), {}
    with sdpa_kernel(SDPBackend.MATH):
        references = {
            "hessian": problem.hessian_reference(vector), "gauss_newton": problem.gauss_newton_reference(vector)
        }  # fmt: skip
    for kind in KINDS:
        found[kind] = {}
        for tool in TOOLS:
            try:
                found[kind][tool] = relative(problem.product(tool, kind)(vector), references[kind])
            except (RuntimeError, NotImplementedError) as error:
                found[kind][tool] = str(error).splitlines()[0].split(" that does not")[0]
    problem.parts.release()
    return found


def eigenvalue_reference(problem: Problem) -> float:
    """Largest eigenvalue by products that are differences of gradients."""
    size = problem.parts.size

    def product(vector: np.ndarray) -> np.ndarray:
        v = torch.from_numpy(vector.ravel())
        return (v.norm() * problem.hessian_reference(v / v.norm())).numpy()

    with sdpa_kernel(SDPBackend.MATH):
        operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
        start = problem.direction(2).numpy()
        return float(eigsh(operator, k=1, which="LA", tol=1e-6, v0=start, return_eigenvectors=False)[0])


def clocked(call: Callable[[], Any]) -> tuple[Any, float]:
    before = time.process_time()
    answer = call()
    return answer, time.process_time() - before


def interleaved(calls: dict[str, Callable[[int], Any]], repeats: int) -> tuple[dict[str, list], dict[str, list[float]]]:
    """Answers and CPU seconds of every call, one after another in each repeat; a warm-up comes first."""
    answers: dict[str, list] = {name: [] for name in calls}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(-1, repeats):
        for name, call in calls.items():
            answer, own = clocked(lambda call=call, repeat=repeat: call(max(repeat, 0)))
            if repeat >= 0:
                answers[name].append(answer)
                seconds[name].append(own)
    return answers, seconds


def compared(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median seconds of each tool, and its median ratio to ours in the same repeat."""
    return {
        tool: {
            "seconds": statistics.median(own),
            "ratio": statistics.median(a / b for a, b in zip(own, seconds[OURS], strict=True)),
        }
        for tool, own in seconds.items()
    }


def product_times(problem: Problem, kind: str, tools: list[str], repeats: int) -> dict[str, dict[str, float]]:
    vector = problem.direction().to(problem.target.dtype)
    calls = {tool: problem.product(tool, kind) for tool in tools}
    with problem.parts.steady():
        _, seconds = interleaved({t: lambda _, c=call: c(vector) for t, call in calls.items()}, repeats)
    problem.parts.release()
    return compared(seconds)


def enough_steps(operator: Any, seed: int) -> int:
    """Fewest Lanczos steps after which hessian-eigenthings reaches the tolerance; it has no rule to stop by itself."""
    few, many = 1, 1
    while not converged(operator, many, seed):
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if converged(operator, middle, seed) else (middle, many)
    return many


def converged(operator: Any, steps: int, seed: int) -> bool:
    found = math_attention(lambda: lanczos(operator, k=1, max_iter=steps, tol=TOLERANCE, which="LA", seed=seed))()
    return bool(found.converged[0])


def eigenvalues(problem: Problem, tools: list[str], repeats: int, truth: float) -> dict[str, dict[str, Any]]:
    """Largest eigenvalue by every tool as its users would get it, at one tolerance on the residual."""
    products: dict[str, list[int]] = {tool: [] for tool in tools}
    operators = {tool: problem.operator(tool, "hessian") for tool in tools if tool != OURS}
    steps = (
        {seed: enough_steps(operators[EIGENTHINGS], seed) for seed in range(repeats)} if EIGENTHINGS in tools else {}
    )

    def ours(seed: int) -> float:
        # Graphs are made anew in every repeat, as they are in a user's one call.
        problem.parts.release()
        operator = CurvatureOperator(problem.parts, "total")
        found = largest_eigenvalue(operator, tolerance=TOLERANCE, steps=200, seed=seed)
        assert found["converged"]
        products[OURS].append(operator.products)
        return found["value"]

    def curvlinops(seed: int) -> float:
        scipy, counted = operators[CURVLINOPS].to_scipy(), [0]

        def product(vector: np.ndarray) -> np.ndarray:
            counted[0] += 1
            return scipy.matvec(vector)

        wrapped = LinearOperator(scipy.shape, matvec=product, dtype=np.float64)
        start = np.random.default_rng(seed).standard_normal(scipy.shape[0])
        value = eigsh(wrapped, k=1, which="LA", tol=TOLERANCE, v0=start, return_eigenvectors=False)[0]
        products[CURVLINOPS].append(counted[0])
        return float(value)

    def eigenthings(seed: int) -> float:
        found = lanczos(operators[EIGENTHINGS], k=1, max_iter=steps[seed], tol=TOLERANCE, which="LA", seed=seed)
        products[EIGENTHINGS].append(found.iterations)
        return float(found.eigenvalues[0])

    calls = {OURS: ours, CURVLINOPS: math_attention(curvlinops), EIGENTHINGS: math_attention(eigenthings)}
    answers, seconds = interleaved({tool: calls[tool] for tool in tools}, repeats)
    problem.parts.release()
    told = compared(seconds)
    for tool in tools:
        told[tool]["error"] = max(abs(value / truth - 1) for value in answers[tool])
        told[tool]["products"] = statistics.median(products[tool][1:])
    return told


def where_wrong(problem: Problem) -> dict[str, Any]:
    """curvlinops' Hessian of the LayerNorm network block by block, its Gauss-Newton matrix, and KFAC on one datum."""
    assert problem.name == "LayerNorm"
    operator, sizes = problem.operator(CURVLINOPS, "hessian"), [p.numel() for p in problem.parameters]
    # Of a direction in one layer's parameters, the part of H v that belongs to another layer's.
    owners = [name.removeprefix("net.") for name, _ in problem.rows.named_parameters()]
    found: dict[str, Any] = {"blocks": {}}
    for column, start in enumerate(np.cumsum([0, *sizes[:-1]])):
        vector = torch.zeros(problem.parts.size, dtype=torch.float64)
        vector[start : start + sizes[column]] = problem.direction()[start : start + sizes[column]]
        theirs, truth = operator @ vector, problem.hessian_reference(vector)
        pairs = zip(owners, theirs.split(sizes), truth.split(sizes), strict=True)
        found["blocks"][owners[column]] = {name: float((a - b).norm() / truth.norm()) for name, a, b in pairs}
    u, v = problem.direction(3), problem.direction(4)
    found["asymmetry"] = {
        tool: abs(float(u @ product(v)) - float(v @ product(u))) / float(product(v).norm() * u.norm())
        for tool, product in ((t, problem.product(t, "hessian")) for t in (OURS, CURVLINOPS))
    }
    found["layer_norm"] = layer_norm_alone()
    found["kfac"] = kfac_on_one_datum()
    return found


def layer_norm_alone() -> dict[str, float]:
    """Derivative along x of the gradient by the weight of layer_norm: forward mode over two kinds of reverse mode."""
    torch.manual_seed(0)
    x, weight, along = torch.randn(5, 6).double(), torch.randn(6).double(), torch.randn(5, 6).double()

    def value(x: Tensor, weight: Tensor) -> Tensor:
        return torch.tanh(F.layer_norm(x, (6,), weight)).square().sum()

    found = {}
    step = 1e-6
    for name, transform in (("jvp of grad", torch.func.grad), ("jvp of jacrev", torch.func.jacrev)):
        slope = transform(value, argnums=1)
        plain = torch.func.grad(value, argnums=1)
        truth = (plain(x + step * along, weight) - plain(x - step * along, weight)) / (2 * step)
        moved = torch.func.jvp(lambda x, slope=slope: slope(x, weight), (x,), (along,))[1]
        found[name] = relative(moved, truth)
    return found


def kfac_on_one_datum() -> dict[str, Any]:
    """On one datum KFAC of the linear layers is their exact Gauss-Newton blocks, whatever stands between them."""
    found: dict[str, Any] = {}
    for kind in ("LayerNorm", "RMSNorm"):
        torch.manual_seed(0)
        middle = MIDDLES[kind](8)
        net = nn.Sequential(nn.Linear(3, 8), middle, nn.Tanh(), nn.Linear(8, 3)).double()
        data = [(torch.randn(1, 3).double(), torch.randn(1, 3).double())]
        named = {n: p for n, p in net.named_parameters() if not n.startswith("1.")}
        settings = {"fisher_type": "type-2", "separate_weight_and_bias": False, "check_deterministic": False}
        linear = KFACLinearOperator(net, nn.MSELoss(), list(named.values()), data, **settings)
        dense = linear @ torch.eye(linear.shape[0]).double()

        def answer(*own: Tensor, net=net, named=named, data=data) -> Tensor:
            return torch.func.functional_call(net, dict(zip(named, own, strict=True)), (data[0][0],)).flatten()

        jacobian = torch.func.jacrev(answer, argnums=tuple(range(len(named))))(*named.values())
        slopes = torch.cat([j.reshape(3, -1) for j in jacobian], dim=1)
        blocks = [named[f"{i}.weight"].numel() + named[f"{i}.bias"].numel() for i in (0, 3)]
        exact = torch.block_diag(*[2 / 3 * s.T @ s for s in slopes.split(blocks, dim=1)])
        try:
            KFACLinearOperator(net, nn.MSELoss(), list(net.parameters()), data, **settings)
            refused = ""
        except NotImplementedError as error:
            refused = str(error)
        found[kind] = {"error": relative(dense, exact), "normalisation parameters": refused}
    return found


def measured(run: str, repeats: int) -> dict[str, Any]:
    load = [os.getloadavg()[0]]
    found: dict[str, Any] = {"cases": {}}
    exact = problems(run, torch.float64)
    found["where"] = where_wrong(next(p for p in exact if p.name == "LayerNorm"))
    for problem in exact:
        print(problem.name, flush=True)
        case = {"parameters": problem.parts.size, "samples": problem.parts.samples[0]}
        case |= {"passes": len(problem.batch["pos"]) // case["samples"], "accuracy": accuracy(problem)}
        case["lambda_max"] = eigenvalue_reference(problem)
        found["cases"][problem.name] = case
    for problem in problems(run, torch.float32):
        case = found["cases"][problem.name]
        runs = {
            kind: [tool for tool in TOOLS if not isinstance(case["accuracy"][kind][tool], str)] for kind in KINDS
        }
        large = problem.parts.size > 20_000
        case["times"] = {
            kind: product_times(problem, kind, runs[kind], 5 if large else 10 * repeats) for kind in KINDS
        }
        case["eigenvalues"] = eigenvalues(problem, runs["hessian"], 3 if large else repeats, case["lambda_max"])
        load.append(os.getloadavg()[0])
        print(problem.name, json.dumps(case, indent=1), flush=True)
    found |= {"load": load, "cores": os.cpu_count(), "repeats": repeats, "tolerance": TOLERANCE}
    return {**found, "torch": torch.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = measured(given.run, given.repeats)
    keep("curvature_peers", page, found)


if __name__ == "__main__":
    main()
