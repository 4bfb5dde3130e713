"""The measure against brute force and against e3nn's own test, on trained models.

    python benchmarks/agreement.py runs/forcefield/demo runs/forcefield/escaip runs/proteinflow/first

Brute force: one held-out sample, 100,000 independent Haar rotations, the plain variance of the twisted predictions with
its standard error, beside `equiscope.measure` with T x 2 (the default, over 200 seeds) and I x 10.
e3nn: `e3nn.util.test.equivariance_error` gives max |f(g x) - g f(x)| for a rotation g of torch's global generator; with
the same g our twisted predictions must give the same number, max |g (p_g - p_1)|.
Results go to benchmarks/results/agreement.json; without a run the page is written from there again.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np
import torch
from e3nn import o3
from e3nn.util.test import equivariance_error
from pages import keep, table
from predicted_gain import headline

import equiscope as eq
from equiscope.decomposition.batches import as_batch
from equiscope.decomposition.orbit import twisted
from equiscope.runs.trained import open_run
from equiscope.symmetry.rotations import haar

OURS = (("T", 2, 200), ("I", 10, 8))
AT_ONCE = 500


def repeated(native, count: int):
    """The sample ``count`` times, as samples of their own."""
    return {k: v.repeat(count, *[1] * (v.ndim - 1)) for k, v in native.items()}


def brute_force(model, probe, native, rotations: int) -> tuple[float, float]:
    """Variance of the twisted prediction per component, and its standard error."""
    name, spec = next(iter(probe.declaration.outputs.items()))
    generator = torch.Generator().manual_seed(11)
    batch = as_batch(repeated(native, AT_ONCE))
    found = []
    with torch.no_grad():
        for _ in range(rotations // AT_ONCE):
            turns = haar(AT_ONCE, generator)
            rows = twisted(model, batch, turns, probe.declaration, probe.forward)[name]
            found.append(spec.action.canonical(rows).reshape(AT_ONCE, -1))
    passes = torch.cat(found)
    square = (passes - passes.mean(0)).square().mean(1)
    count = len(passes)
    return float(square.sum() / (count - 1)), float(square.std() / count**0.5)


def ours(model, probe, native, rotations: str, cosets: int, seeds: int) -> tuple[float, float]:
    """Mean and standard error over seeds: the sample under as many ids."""
    copies = {**repeated(native, seeds), probe.declaration.ids: torch.arange(seeds)}
    result = eq.measure(
        model, [copies], probe.declaration, forward=probe.forward, rotations=rotations, cosets=cosets, noise_samples=1
    )
    values = result.per_sample.equivariance.numpy()
    return float(values.mean()), float(values.std(ddof=1) / seeds**0.5)


def against_e3nn(model, probe, native, trials: int = 8) -> float:
    """Largest relative difference between e3nn's number and ours over trials with the same rotations."""
    name, spec = next(iter(probe.declaration.outputs.items()))
    fields = list(probe.declaration.inputs)
    counts = [native[f].shape[1] for f in fields]

    def call(*flat):
        turned = {f: value.reshape(1, -1, 3) for f, value in zip(fields, flat, strict=True)}
        full = {**native, **turned}
        answer = probe.forward(model, full) if probe.forward else model(full)
        return answer[name].reshape(-1)

    irreps = [f"{count}x1o" for count in counts]
    batch, worst = as_batch(native), 0.0
    for seed in range(trials):
        torch.manual_seed(seed)
        answer = equivariance_error(
            call, args_in=[native[f].reshape(-1) for f in fields], irreps_in=irreps,
            irreps_out=[f"{native[spec.target].shape[1]}x1o"], ntrials=1, do_parity=False, do_translation=False,
        )  # fmt: skip
        theirs = float(next(iter(answer.values())).max())
        torch.manual_seed(seed)
        turn = o3.rand_matrix(dtype=torch.float64)
        with torch.no_grad():
            at, plain = (
                twisted(model, batch, g[None], probe.declaration, probe.forward)[name]
                for g in (turn, torch.eye(3, dtype=torch.float64))
            )
        mine = float(spec.action.act(turn.expand(len(at), 3, 3), at - plain).abs().max())
        worst = max(worst, abs(mine / theirs - 1))
    return worst


def compared(run: str, rotations: int) -> dict[str, Any]:
    """One run: brute force, the measure with two designs, and e3nn's test."""
    opened = open_run(run)
    opened.task.prepare(progress=False)
    probe, (native,) = headline(opened.task, 1)
    truth, error = brute_force(opened.model, probe, native, rotations)
    found = []
    for name, cosets, seeds in OURS:
        value, own = ours(opened.model, probe, native, name, cosets, seeds)
        z = float((value - truth) / np.hypot(error, own))
        found.append({"design": f"{cosets} x {name}", "seeds": seeds, "value": value, "error": own, "z": z})
    kept = {"model": f"{opened.task.name}, {type(opened.model).__name__}", "brute": truth, "error": error, "ours": found,
            "e3nn": against_e3nn(opened.model, probe, native)}  # fmt: skip
    print(kept, flush=True)
    return kept


def page(record: dict[str, Any]) -> str:
    """A row a run."""
    rows = [
        (run["model"], f"{run['brute']:.5e} ± {run['error']:.0e}",
         *(f"{one['value']:.5e} ± {one['error']:.0e} (z {one['z']:+.1f})" for one in run["ours"]), f"{run['e3nn']:.0e}")
        for run in record["runs"]
    ]  # fmt: skip
    designs = [f"{one['design']}, mean of {one['seeds']} seeds" for one in record["runs"][0]["ours"]]
    return "\n".join([
        "# Brute force and e3nn's own test",
        "",
        "`python benchmarks/agreement.py RUN …`: the equivariance error of one held-out sample of each run, per component,",
        f"from {record['rotations']:,} independent rotations, and from the measure; z is in joint standard errors. Last column:",
        "largest relative difference to `e3nn.util.test.equivariance_error` for the same eight rotations.",
        "",
        *table(("model", "brute force", *designs, "e3nn"), rows),
        "",
        f"One thread, load {', '.join(f'{v:.1f}' for v in record['load'])}.",
        "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--rotations", type=int, default=100_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = [compared(run, options.rotations) for run in options.runs]
    keep("agreement", page, {"rotations": options.rotations, "load": os.getloadavg(), "runs": runs} if runs else None)


if __name__ == "__main__":
    main()
