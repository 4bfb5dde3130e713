"""Which design should be the default: designs side by side on several trained models, from one pool of passes.

    python benchmarks/designs.py runs/forcefield/demo runs/forcefield/demo@42 runs/proteinflow/bench --samples 64

Of every sample, ``--cosets`` independent cosets O u of the octahedral group are run once and kept. O holds T and D2, so
the same predictions serve every design: independent rotations (one of each coset), cosets of D2, T and O, and one coset
of all samples with a second of a part. A design is drawn from the pool many times; its error is that of the data set's
figure against the whole pool's, relative, times the square root of the number of samples: as an error per sample it can
be set beside the relative spread of the samples themselves, which no design removes. ``RUN@STEP`` takes a kept
checkpoint. Results go to benchmarks/results/designs.json; without a run the page is written from there again.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np
import torch
from pages import keep, table
from predicted_gain import headline
from torch import Tensor

from equiscope.decomposition.batches import as_batch
from equiscope.decomposition.orbit import twisted
from equiscope.runs.trained import open_run
from equiscope.symmetry.rotations import haar_keyed, rotation_set

DESIGNS = (("haar", 10), ("haar", 24), ("D2", 2), ("T", 2), ("O", 1.05), ("O", 1.25), ("O", 1.5), ("O", 2))
# An interval wider by this much is not worth more passes.
ENOUGH = 0.01
OCTAHEDRAL = rotation_set("O").matrices


def pool(model, probe, batches, cosets: int) -> list[Tensor]:
    """Of each sample, its twisted predictions (cosets, 24, components) over sqrt(components), float64."""
    name, spec = next(iter(probe.declaration.outputs.items()))
    found = []
    for native in batches:
        batch = as_batch(native)
        rows = batch.rows(name, spec.per, spec.mask)
        ids = native[probe.declaration.ids].tolist()
        passes = []
        with torch.no_grad():
            for coset in range(cosets):
                shift = haar_keyed(11, ids, coset)
                for g in OCTAHEDRAL:
                    answer = twisted(model, batch, g @ shift, probe.declaration, probe.forward)[name]
                    passes.append(spec.action.canonical(answer).flatten(1))
        stacked = torch.stack(passes, 1)
        for sample in range(batch.size):
            mine = stacked[rows.sample == sample].transpose(0, 1).flatten(1)
            mine = mine - mine.mean(0)
            found.append(mine.reshape(cosets, len(OCTAHEDRAL), -1) / mine.shape[1] ** 0.5)
    return found


def cosets_of(name: str) -> Tensor:
    """Members of O that make a coset of the subgroup ``name``, its elements times each of O's, (24, k)."""
    product = torch.einsum("kij,ojl->okil", rotation_set(name).matrices, OCTAHEDRAL)
    return (product[:, :, None] - OCTAHEDRAL).abs().amax((-1, -2)).argmin(-1)


def moments(passes: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Of each coset of ``name`` in the pool: variance within, (cosets, choices), and mean, (…, components).

    Coset j's choices are the cosets of the subgroup in its O coset: for "haar" its 24 members, for "O" one.
    """
    members = {"haar": torch.arange(24)[:, None], "O": torch.arange(24)[None]}.get(name)
    members = cosets_of(name) if members is None else members
    chosen = passes[:, members]
    means = chosen.mean(2)
    return (chosen - means[:, :, None]).square().sum(-1).mean(-1), means


def draws(passes: Tensor, name: str, cosets: float, repeats: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(within, between) of ``repeats`` random choices of cosets of one sample; a partial design draws two cosets."""
    count = max(2, int(np.ceil(cosets)))
    within, means = moments(passes, name)
    at = torch.tensor(np.array([rng.permutation(len(passes))[:count] for _ in range(repeats)]))
    choice = torch.tensor(rng.integers(within.shape[1], size=at.shape))
    some = means[at, choice]
    between = (some - some.mean(1, keepdim=True)).square().sum((1, 2)) / (count - 1)
    return within[at, choice], between


def whole(passes: Tensor) -> Tensor:
    """The equivariance error of one sample from all cosets of its pool."""
    within, means = moments(passes, "O")
    return within.mean() + means[:, 0].var(0).sum()


def errors(samples: list[Tensor], truth: Tensor, name: str, cosets: float, repeats: int) -> tuple[float, float]:
    """Root mean square error of the data set's figure, relative and per sample, and its standard error."""
    rng = np.random.default_rng(5)
    pairs = [draws(passes, name, cosets, repeats, rng) for passes in samples]
    if float(cosets).is_integer():
        figure = torch.stack([within.mean(1) + between for within, between in pairs]).mean(0)
    else:
        second = torch.tensor(rng.random((len(samples), repeats)) < cosets - 1)
        within = torch.stack([torch.where(s, w.mean(1), w[:, 0]) for (w, _), s in zip(pairs, second, strict=True)])
        between = torch.stack([b for _, b in pairs])
        figure = within.mean(0) + (between * second).sum(0) / second.sum(0)
        figure = figure[second.any(0)]
    square = (figure / truth.mean() - 1).square() * len(samples)
    return float(square.mean().sqrt()), float(square.std() / square.mean().sqrt() / 2 / len(square) ** 0.5)


def measured(run: str, samples: int, cosets: int, repeats: int) -> dict[str, Any]:
    """One trained model: the relative spread of its samples; of each design the error, relative and per sample."""
    path, _, step = run.partition("@")
    opened = open_run(path, step=int(step)) if step else open_run(path)
    opened.task.prepare(progress=False)
    probe, batches = headline(opened.task, samples)
    kept = pool(opened.model, probe, batches, cosets)
    truth = torch.stack([whole(passes) for passes in kept])
    spread, designs = float(truth.std() / truth.mean()), []
    for design, count in DESIGNS:
        error, standard = errors(kept, truth, design, count, repeats)
        size = 1 if design == "haar" else len(rotation_set(design))
        designs.append({"design": f"{count} x {design}", "passes": count * size, "error": error, "standard": standard,
                        "wider": wider(error, spread)})  # fmt: skip
        print(designs[-1], flush=True)
    return {"task": opened.task.name, "model": opened.config["model"]["name"], "step": opened.step, "spread": spread,
            "designs": designs}  # fmt: skip


def wider(error: float, spread: float) -> float:
    """How much wider than with exact figures of every sample an interval over samples is, relative."""
    return float(np.sqrt(1 + (error / spread) ** 2) - 1)


def worst(record: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """(passes, widening on the model that it suits least) of every design."""
    found: dict[str, tuple[float, float]] = {}
    for run in record["runs"]:
        for row in run["designs"]:
            most = max(found.get(row["design"], (0, 0))[1], row["wider"])
            found[row["design"]] = row["passes"], most
    return found


def page(record: dict[str, Any]) -> str:
    """All rows, and for each design the model on which it does worst."""
    rows = [
        (f"{run['task']}, {run['model']}, step {run['step']}", row["design"], f"{row['passes']:g}",
         f"{row['error']:.2g} ± {row['standard']:.1g}", f"{run['spread']:.2f}",
         f"{100 * row['wider']:.2g} %")
        for run in record["runs"] for row in run["designs"]
    ]  # fmt: skip
    summed = worst(record)
    enough = min((design for design, (_, most) in summed.items() if most < ENOUGH), key=lambda one: summed[one][0])
    lines = [
        "# Designs side by side on trained models",
        "",
        f"{record['samples']} held-out samples, {record['cosets']} octahedral cosets of each, {record['repeats']} draws of",
        f"every design, load {record['load']:.1f}. Error: of the data set's equivariance error, relative, times",
        "the square root of the number of samples. Spread: of the samples themselves. Wider: how much an interval over",
        "samples gains from the design's own error.",
        "",
        *table(("model", "design", "passes", "error", "spread", "wider by"), rows),
        "",
        *table(("design", "passes", "wider by, on the model it suits least"),
               [(design, f"{passes:g}", f"{100 * most:.2g} %") for design, (passes, most) in summed.items()]),
        "",
        "The default is the design of fewest passes that widens an interval by less than "
        f"{100 * ENOUGH:g} % on every model: **{enough}**.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--cosets", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = {"samples": options.samples, "cosets": options.cosets, "repeats": options.repeats,
              "load": os.getloadavg()[0],
              "runs": [measured(run, options.samples, options.cosets, options.repeats) for run in options.runs]}  # fmt: skip
    keep("designs", page, record if options.runs else None)


if __name__ == "__main__":
    main()
