"""Estimators of the equivariance error side by side on one trained force field: error against passes and seconds.

    python benchmarks/estimators.py runs/forcefield/demo

Designs, all through ``equiscope.measure`` on the same held-out samples and over several seeds:
independent rotations (the published way, 10 of them there), random cosets of D2, T, O, I, shifted super-Fibonacci sets
in replicates, Lebedev products; and MLIP Arena's recipe (1,201 fixed rotations: 12 angles about 100 axes and the
identity). The truth of each sample is 10 cosets of I (600 passes). Then the measure's own cost against bare passes of the
model, the memory of 8 and of 240 passes, and what ``e3nn.util.test`` reports. Results go to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from pages import RESULTS, keep, stored

import equiscope as eq
from equiscope.runs.trained import open_run

DESIGNS = [
    ("haar", 10), ("haar", 24), ("haar", 48),
    ("D2", 2), ("D2", 3),
    ("superfibonacci-12", 2),
    ("T", 2), ("O", 1.05), ("O", 1.25), ("O", 2),
]  # fmt: skip


def held_out(task, samples: int, batch: int = 64):
    """The first ``samples`` held-out samples of the run's final probe, in batches, with its declaration."""
    task.prepare(progress=False)
    probe = task.probes("final")[0]
    batches, left = [], samples
    for whole in probe.batches:
        take = min(left, len(whole["id"]))
        if take:
            batches.append({k: v[:take] for k, v in whole.items()})
        left -= take
    return probe, batches


def per_sample(model, probe, batches, rotations, cosets, seed, **more):
    """Per-sample equivariance error and the seconds it took."""
    begun = time.perf_counter()
    result = eq.measure(
        model, batches, probe.declaration, forward=probe.forward, rotations=rotations, cosets=cosets, seed=seed, **more
    )
    return result, result.per_sample.equivariance.numpy(), time.perf_counter() - begun


def errors(model, probe, batches, truth, rotations, cosets, repeats):
    """Relative root mean square error per sample and of the mean over samples."""
    values, seconds = [], []
    for seed in range(repeats):
        result, found, spent = per_sample(model, probe, batches, rotations, cosets, 100 + seed)
        values.append(found)
        seconds.append(spent)
    values = np.array(values)
    single = np.sqrt(((values - truth) ** 2).mean()) / truth.mean()
    whole = np.sqrt((((values.mean(1) - truth.mean()) / truth.mean()) ** 2).mean())
    return {
        "design": f"{cosets} x {rotations}",
        "passes": result.passes,
        "seconds": float(np.median(seconds)),
        "per_sample": float(single),
        "data_set": float(whole),
        "bias": float(values.mean() / truth.mean() - 1),
    }


def mlip_arena(model, probe, batches, truth):
    """The fixed recipe: 12 angles 30, 60, ..., 360 degrees about 100 random axes, compared with the un-rotated answer.

    Returns the mean square change of the forces relative to frame 0 over 2, which is the equivariance error only if
    frame 0 is no different from the others and the rotations were Haar distributed.
    """
    from equiscope.decomposition.batches import as_batch
    from equiscope.decomposition.orbit import twisted

    normals = torch.randn(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    axes = normals / normals.norm(dim=-1, keepdim=True)
    angles = torch.arange(1, 13, dtype=torch.float64) * np.pi / 6
    cross = torch.zeros(100, 3, 3, dtype=torch.float64)
    for i, j, k, sign in ((0, 1, 2, -1), (0, 2, 1, 1), (1, 2, 0, -1)):
        cross[:, i, j], cross[:, j, i] = sign * axes[:, k], -sign * axes[:, k]
    eye = torch.eye(3, dtype=torch.float64)
    elements = [eye + a.sin() * c + (1 - a.cos()) * (c @ c) for c in cross for a in angles]
    found, begun = [], time.perf_counter()
    with torch.no_grad():
        for native in batches:
            batch = as_batch(native)
            rows = batch.rows("forces", "atom", "mask")
            size = batch.size
            first = twisted(model, batch, eye.expand(size, 3, 3), probe.declaration, probe.forward)["forces"]
            change = torch.zeros(size, dtype=torch.float64)
            for g in elements:
                p = twisted(model, batch, g.expand(size, 3, 3), probe.declaration, probe.forward)["forces"]
                change += rows.sum((p - first).square().flatten(1).mean(1)) / rows.counts
            found.append(change / len(elements) / 2)
    values = torch.cat(found).numpy()
    truth = truth[: len(values)]
    return {
        "design": "MLIP Arena's 1,201 fixed rotations",
        "passes": 1201,
        "seconds": time.perf_counter() - begun,
        "per_sample": float(np.sqrt(((values - truth) ** 2).mean()) / truth.mean()),
        "data_set": float(abs(values.mean() / truth.mean() - 1)),
        "bias": float(values.mean() / truth.mean() - 1),
        "samples": len(values),
    }


def own_cost(probe, batches, size="1M", repeats=9):
    """Seconds of ``eq.measure`` over seconds of as many bare passes of a 1M model, pass by pass the same batches.

    Bare passes before and after each measurement are averaged, so that a machine that drifts treats both alike.
    """
    from equiscope.tasks.forcefield.models import build

    model = build("edge_transformer", size).eval()
    result = per_sample(model, probe, batches, "T", 2, 0, noise_samples=1)[0]
    per_batch = [result.model_calls // len(batches)] * len(batches)
    per_batch[0] += result.model_calls - sum(per_batch)

    def bare():
        begun = time.perf_counter()
        with torch.no_grad():
            for batch, calls in zip(batches, per_batch, strict=True):
                for _ in range(calls):
                    model(batch)
        return time.perf_counter() - begun

    ratios, before = [], bare()
    for _ in range(repeats):
        spent = per_sample(model, probe, batches, "T", 2, 0, noise_samples=1)[2]
        after = bare()
        ratios.append(2 * spent / (before + after))
        before = after
    parameters = sum(p.numel() for p in model.parameters())
    return {
        "parameters": parameters,
        "model_calls": result.model_calls,
        "samples": sum(len(batch["id"]) for batch in batches),
        "ratios": ratios,
        "median": float(np.median(ratios)),
        "load": os.getloadavg(),
    }


def memory(run: str):
    """Peak memory (MB) of processes that measure with 8 and with 240 passes."""
    peaks = {}
    for passes, rotations, cosets in ((8, "D2", 2), (240, "T", 20)):
        command = [sys.executable, __file__, run, "--memory-of", rotations, str(cosets)]
        answer = subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        peaks[passes] = float(answer.stdout.strip().splitlines()[-1])
    return peaks


def e3nn_test(model, batches, truth_relative):
    """What ``e3nn.util.test.equivariance_error`` says of the same model: a maximum over one random rotation."""
    from e3nn.util.test import equivariance_error

    batch = {k: v[:1] for k, v in batches[0].items()}

    def forces(flat):
        return model({**batch, "pos": flat.reshape(1, -1, 3)})["forces"].reshape(-1)

    count = batch["pos"].shape[1]
    found = []
    for _ in range(8):
        answer = equivariance_error(
            forces,
            args_in=[batch["pos"].reshape(-1)],
            irreps_in=[f"{count}x1o"],
            irreps_out=[f"{count}x1o"],
            ntrials=1,
            do_parity=False,
            do_translation=False,
        )
        found.append(float(next(iter(answer.values())).max()))
    return {
        "max_abs_error_per_trial": found,
        "note": "maximum over one random rotation: a lower bound, no loss, no interval",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--memory-of", nargs=2)
    parser.add_argument("--only", choices=["cost"], help="measure this part alone and put it into the last results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    opened = open_run(options.run)
    model = opened.model
    if options.memory_of:
        probe, batches = held_out(opened.task, 64)
        per_sample(model, probe, batches, options.memory_of[0], int(options.memory_of[1]), 0)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    probe, batches = held_out(opened.task, options.samples)
    if options.only == "cost":
        report = stored("estimators")
        report["own_cost"] = own_cost(probe, batches[:1])
        write(report)
        return
    whole, truth, spent = per_sample(model, probe, batches, "I", 10, 9)
    print(f"truth: {whole.equivariance:.6g} from {whole.passes} passes in {spent:.0f} s", flush=True)
    table = []
    for rotations, cosets in DESIGNS:
        table.append(errors(model, probe, batches, truth, rotations, cosets, options.repeats))
        print(table[-1], flush=True)
    table.append(mlip_arena(model, probe, [{k: v[:32] for k, v in batches[0].items()}], truth))
    print(table[-1], flush=True)
    spectrum = per_sample(model, probe, batches, "O", 2, 0, spectrum=2)[0].spectrum
    report = {
        "machine": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": 1,
            "load": os.getloadavg(),
        },
        "samples": len(truth),
        "repeats": options.repeats,
        "parameters": sum(p.numel() for p in model.parameters()),
        "step": opened.step,
        "percent": whole.percent,
        "r2": whole.r2,
        "spectrum": spectrum,
        "designs": table,
        "own_cost": own_cost(probe, batches[:1]),
        "peak_memory_mb": memory(options.run),
        "e3nn": e3nn_test(model, batches, whole.relative_equivariance),
    }
    write(report)


def write(report) -> None:
    """The three files of results."""
    keep("estimators", as_markdown, report)
    plot(report)


def as_markdown(report) -> str:
    """The table a reader wants."""
    base = next(r for r in report["designs"] if r["design"] == "24 x haar")
    lines = [
        "# Estimators side by side",
        "",
        f"One trained force field ({report['parameters']:,} parameters, step {report['step']}, percent "
        f"{report['percent']:.3g}, R² {report['r2']:.3f}), {report['samples']} held-out samples, {report['repeats']} seeds, "
        "one thread. Errors are root mean squares relative to the mean equivariance error.",
        "",
        "| design | passes | seconds | error per sample | error over the data set | bias | per-sample gain over 24 haar |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in report["designs"]:
        lines.append(
            f"| {row['design']} | {row['passes']:g} | {row['seconds']:.1f} | {row['per_sample']:.4f} | "
            f"{row['data_set']:.4f} | {row['bias']:+.4f} | {base['per_sample'] / row['per_sample']:.1f} |"
        )
    cost = report["own_cost"]
    # Numbers as keys are text once they have been read back.
    peaks = {int(passes): value for passes, value in report["peak_memory_mb"].items()}
    shares = ", ".join(
        f"l = {d}: {100 * s:.1f} %"
        for d, s in zip(report["spectrum"]["degrees"], report["spectrum"]["share"], strict=True)
    )
    lines += [
        "",
        "The default is two T cosets: the fewest passes with which rotations do not widen the interval (designs.md), no",
        "least number of samples, a figure for each sample and a spectrum. Where the error lies at low degrees, one O",
        "coset of every sample and a second of a part (`rotations=\"O\", cosets=1.25`) is far more exact for its passes;",
        "the single values of such a design are not meant to be read.",
        "",
        f"Spectrum of the equivariance error: {shares}, above {100 * report['spectrum']['remainder']:.1f} %.",
        "",
        f"Cost of the measure itself, {cost['parameters']:,} parameters, {cost['samples']} samples: {cost['median']:.3f} x "
        "the seconds of as many bare passes "
        f"(runs: {', '.join(f'{r:.3f}' for r in cost['ratios'])}; load {cost['load'][0]:.1f}).",
        "",
        f"Peak memory: {peaks[8]:.0f} MB at 8 passes, {peaks[240]:.0f} MB at 240.",
        "",
        "`e3nn.util.test.equivariance_error` on one sample, eight single trials (largest absolute component, eV/Å): "
        + ", ".join(f"{v:.2f}" for v in report["e3nn"]["max_abs_error_per_trial"]) + ".",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def plot(report) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 4.2))
    for row in report["designs"]:
        name = row["design"].split(" x ")[-1] if " x " in row["design"] else "MLIP Arena"
        family = "independent" if name == "haar" else "ours"
        axis.loglog(row["passes"], row["per_sample"], "o" if family == "ours" else "s",
                    color="#0072B2" if family == "ours" else "#D55E00")  # fmt: skip
        axis.annotate(row["design"].replace("superfibonacci", "sF"), (row["passes"], row["per_sample"]), fontsize=7,
                      xytext=(4, 3), textcoords="offset points")  # fmt: skip
    axis.set_xlabel("model passes per sample")
    axis.set_ylabel("relative error of the equivariance error, per sample")
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(RESULTS / "estimators.png", dpi=150)


if __name__ == "__main__":
    main()
