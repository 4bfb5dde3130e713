"""The theory's predictions against what runs did: one table, failures named.

    equiscope study dynamics task=forcefield data.final_frames=64 data.track_frames=24 logger=none
    equiscope study dynamics task=proteinflow logger=none
    equiscope analyse RUN dynamics --at 600                  # of each: the end of the constant rate (0 for plain descent)
    python benchmarks/dynamics.py collect RUN ... --late FLOW_RUN records.jsonl
    python benchmarks/dynamics.py                            # writes results/dynamics.md from results/dynamics.json

``collect`` keeps of each run its settings, tracked curve and analyses. From the checkpoints it computes what no analysis
records: the step of 2 % foretold by the first checkpoint under Adam, and for ``--late`` the gradients of both parts, of the
weights and of their average (a minute a run). `late_rise.py` adds the twins. The table is made from that file alone.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from late_rise import DATA, curve, late_rise, markdown, rise, said_of_the_rise, short
from pages import store
from scipy import stats

from equiscope import records
from equiscope.words import digits, ranged, text

TABLE = DATA.with_suffix(".md")
# A prediction held where it is right within this factor.
WITHIN = 1.5
# Minus the logarithm of it is where 2 % of the loss is, in units of the rest: 0.02 / 0.98.
TWO = 0.02 / 0.98
MINIBATCHES = 16


def collect(folders: list[str], late: list[str]) -> dict[str, Any]:
    """What is kept of the runs."""
    runs = [kept(Path(folder)) for folder in folders if (Path(folder) / "records.jsonl").exists()]
    return {"runs": [run for run in runs if run], "late": [rise(Path(one)) for one in late]}


def kept(folder: Path) -> dict[str, Any] | None:
    """A finished run: settings, curve, analyses."""
    entries = records.read(folder / "records.jsonl")
    if not any(entry["kind"] == "end" for entry in entries):
        return None
    config = entries[0]["config"]
    optimizer, trainer = config["optimizer"], config["trainer"]
    run: dict[str, Any] = {
        "model": entries[0]["model"], "parameters": entries[0]["parameters"], "seed": config["seed"],
        "optimizer": optimizer["name"], "lr": optimizer["lr"], "momentum": optimizer.get("momentum", 0.0),
        "weight_decay": optimizer.get("weight_decay", 0.0),
        "batch": config["batch_size"], "clip": trainer["clip"], "steps": trainer["max_steps"], "ema": trainer["ema"],
        "hold": config["schedule"].get("hold", 0.0), "warmup": config["schedule"]["warmup"],
        "labels": config["data"].get("labels", 1.0),
        "held_out": [config["data"].get(f"{part}_frames", config["data"].get(f"{part}_chains")) for part in ("track", "final")],
        "curve": curve(entries, next(e["probe"] for e in entries if e["kind"] == "measure" and e["headline"])),
        "analyses": {str(e["step"]): analysed(e) for e in entries
                     if e["kind"] == "analysis" and e["analysis"] == "dynamics"},
    }  # fmt: skip
    if run["optimizer"] == "adam" and run["labels"] == 1 and not run["ema"]:
        run["start"] = start_under_adam(folder)
    return run


def analysed(entry: dict[str, Any]) -> dict[str, Any]:
    """The newest analysis of a step, without the spectrum of the noise, which no table shows."""
    noise = {key: value for key, value in entry["values"]["noise"].items() if key not in ("kappa", "share")}
    return {**entry["values"], "noise": {**noise, "draws": entry["settings"]["draws"]}}


def start_under_adam(folder: Path) -> dict[str, float]:
    """Step of 2 % from the first checkpoint alone: rate <grad L_E, P grad L> / L_E with P = 1 / sqrt(E_b g_b^2)."""
    import torch

    from equiscope.analysis.dynamics import Objective
    from equiscope.analysis.parts import Parts
    from equiscope.decomposition.plan import make_plan
    from equiscope.runs.trained import open_run

    run = open_run(folder, averaged=False, step=0)
    run.task.prepare(progress=False)
    probe = next(p for p in run.task.probes("track") if p.headline)
    parts = Parts(run.model, probe.batches, make_plan(probe.declaration, probe.forward, "T", 1, 0, alone=True))
    objective = Objective(parts, lambda model, batch: run.task.training_loss(model, batch)["loss"], [])
    slope = parts.gradient(("equivariance",))["equivariance"]
    with parts.steady():
        pulls = torch.stack([objective.gradient(run.task.training_batch(step)) for step in range(MINIBATCHES)])
    mean = pulls.mean(0)
    square = pulls.square().mean(0)
    rate = float((slope * mean / square.sqrt().clamp(min=1e-12)).sum()) / parts.values["equivariance"]
    zero = float(sum((b["forces"][b["mask"]].square().mean(-1).mean()) for b in probe.batches)) / len(probe.batches)
    left = TWO * zero / parts.values["equivariance"]
    eta = float(run.config["optimizer"]["lr"])
    return {"linear": 2 / rate * (1 - math.sqrt(left)) / eta, "exponential": -math.log(left) / rate / eta}


def factor(predicted: float, measured: float) -> float:
    """How far off, at least 1."""
    return max(predicted / measured, measured / predicted) if predicted > 0 and measured > 0 else math.inf


def verdict(off: float, within: float = WITHIN) -> str:
    far = f"{off:.2f} times off" if math.isfinite(off) else "no factor between them"
    return f"{'held' if off <= within else '**failed**'}, {far}"


def named(run: dict[str, Any]) -> str:
    labels = "" if run["labels"] == 1 else f", labels × {run['labels']:g}"
    clip = f", clip {run['clip']:g}" if run["clip"] else ""
    schedule = "" if run["hold"] else ", warm-up and cosine"
    return (f"{run['model']}, {run['optimizer']} {run['lr']:g}, batch {run['batch']}{clip}{schedule}{labels}, "
            f"{run['steps']} steps, seed {run['seed']}")  # fmt: skip


def summary(offs: list[float], within: float = WITHIN, what: str = "runs") -> str:
    """"held in 5 of 6 runs, within 1.22" of those that held."""
    good = [off for off in offs if off <= within]
    if not offs:
        return "not tested"
    most = f", within {max(good):.2f}" if good else ""
    far = [off for off in offs if within < off < math.inf]
    worst = f"; off by up to {max(far):.1f} times" if far else ""
    lost = f"; {offs.count(math.inf)} without any factor" if math.inf in offs else ""
    return f"held (within {within:g}) in {len(good)} of {len(offs)} {what}{most}{worst}{lost}"


def mean_ratio(ratios: list[float]) -> str:
    """Geometric mean of positive ratios with Student's 95 % interval over runs; empty for fewer than three."""
    logs = np.log([ratio for ratio in ratios if ratio > 0])
    if len(logs) < 3:
        return ""
    reach = float(stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs)))
    middle = float(logs.mean())
    mean = ranged(math.exp(middle), [math.exp(middle - reach), math.exp(middle + reach)])
    return f"; measured over foretold {mean} in the geometric mean of {len(logs)} runs"


def tested(run: dict[str, Any]) -> dict[str, Any]:
    """The analyses between the start and the end."""
    return {step: found for step, found in run["analyses"].items() if 0 < int(step) < run["steps"]}


def what_was_run(runs: list[dict[str, Any]], late: list[dict[str, Any]]) -> list[str]:
    """Every kind of run with its seeds, and the held-out samples and draws behind the numbers."""
    kinds = {named({**run, "seed": 0}).removesuffix(", seed 0"): run for run in runs}
    seeds = {name: sorted(r["seed"] for r in runs if named({**r, "seed": 0}) == f"{name}, seed 0") for name in kinds}
    rows = []
    for name, run in kinds.items():
        held = f"constant to step {run['hold'] * run['steps']:g}, then a cosine" if run["hold"] else f"warm-up of {run['warmup']:g}, cosine"
        draws = Counter(str(found["noise"]["draws"]) for found in tested(run).values())
        rows.append([name, ", ".join(map(str, seeds[name])), held, f"{run['ema']:g}" if run["ema"] else "none",
                     "{} and {}".format(*run["held_out"]), ", ".join(draws) or "–"])  # fmt: skip
    head = ["run", "seeds", "learning rate", "average of weights", "held-out samples: curve and final", "draws of noise"]
    flows = "; ".join(f"{one['name']} at {one['lr']:g}, {one['steps']:,} steps, clip {one['clip']:g}, "
                      f"{'held rate' if one['hold'] else 'warm-up and cosine'}, seed {one['seed']}" for one in late)  # fmt: skip
    return [*markdown(head, rows), f"For the late rise: {flows}.", ""]


def krylov(runs: list[dict[str, Any]]) -> list[float]:
    """The optimiser's noise as a share of the error of the averaged weights, of the flow's runs at their highest rate."""
    flows = [run for run in runs if run["model"] == "proteina"]
    highest = max((run["lr"] for run in flows), default=0.0)
    return [found["noise"]["equivariance"]["averaged"]["value"] / found["annealing"]["averaged"]["equivariance"]
            for run in flows if run["lr"] == highest
            for found in tested(run).values() if "equivariance" in found["noise"]]  # fmt: skip


def annealing(runs: list[dict[str, Any]]) -> tuple[list[str], str]:
    """Percent of the averaged weights at the end of the constant rate against that after annealing."""
    rows, offs = [], []
    for run in runs:
        for found in tested(run).values():
            averaged = found["annealing"].get("averaged")
            if averaged is None:
                continue
            last = run["curve"][-1]
            off = factor(averaged["value"], last[1])
            offs.append(off)
            rows.append([named(run), f"{digits(found['annealing']['weights']['value'])} %",
                         f"{ranged(averaged['value'], averaged['interval'])} %", f"{ranged(last[1], last[2:4])} %", verdict(off)])
    return markdown(["run", "weights at the constant rate", "their average (foretold)", "after annealing", ""], rows), summary(offs)


def noise(runs: list[dict[str, Any]]) -> tuple[list[str], str]:
    """What averaging took from the error against what the Krylov solution says it takes, one checkpoint and their mean."""
    rows, offs, ratios = [], [], []
    for run in runs:
        for step, found in tested(run).items():
            excess = found["noise"].get("equivariance")
            if excess is None:
                rows.append([named(run), step, *["–"] * 4, f"withheld: {found['noise']['refused']}", "–", "–"])
                continue
            now, rest = (found["annealing"][which]["equivariance"] for which in ("weights", "averaged"))
            due, seen = excess["weights"]["value"] - excess["averaged"]["value"], now - rest
            share = found["noise"]["of_error"]
            told = "undetermined: the draws do not tell it from zero"
            if share["interval"][0] > 0:
                offs.append(factor(due, seen))
                ratios.append(seen / due)
                told = verdict(offs[-1])
            rows.append([named(run), step, digits(now), digits(rest), digits(seen), digits(due), told,
                         ranged(100 * share["value"], [100 * end for end in share["interval"]]) + " %",
                         f"{found['noise']['kappa_max']:.1f} of {found['noise']['edge']:.0f}"])  # fmt: skip
    head = ["run", "step", "L_E of the weights", "of their average", "difference", "foretold", "", "noise in L_E", "κ_max of edge"]
    return markdown(head, rows), summary(offs) + mean_ratio(ratios)


def scaling(runs: list[dict[str, Any]]) -> tuple[list[str], str]:
    """Whether the measured noise goes as eta sqrt(L / B), as the closed form for Adam has it."""
    base, rows, offs = [], [], []
    for run in (r for r in runs if r["optimizer"] == "adam" and r["model"] == "edge_transformer"):
        for found in tested(run).values():
            now, averaged = found["annealing"]["weights"], found["annealing"]["averaged"]
            seen = now["equivariance"] - averaged["equivariance"]
            rows.append((run, seen, run["lr"] * math.sqrt(now["total"] / run["batch"])))
            if (run["lr"], run["batch"], run["steps"]) == (3e-3, 8, 800):
                base.append((seen, rows[-1][2]))
    if not base:
        return ["No run to compare with.", ""], "not tested"
    seen_of, due_of = np.mean(base, axis=0)
    told = []
    for run, seen, due in rows:
        own = (run["lr"], run["batch"], run["steps"]) == (3e-3, 8, 800)
        off = factor(due / due_of, seen / seen_of)
        if not own:
            offs.append(off)
        told.append([named(run), digits(seen), f"{due / due_of:.2f}", f"{seen / seen_of:.2f}", "of the reference" if own else verdict(off)])
    head = ["run", "L_E of the weights less that of their average", "η √(L / B), relative", "measured, relative", ""]
    return markdown(head, told), summary(offs)


def crossings(runs: list[dict[str, Any]]) -> tuple[list[str], str, str]:
    """The step of 2 %: by an exponential through the first measurements, and under Adam from the first checkpoint."""
    from equiscope.analysis.forecast import crossing
    from equiscope.errors import InputError

    rows, offs, starts = [], [], []
    for run in runs:
        points = [row for row in run["curve"] if row[0] > 0]
        seen = next((row for row in points if row[1] <= 2), None)
        if run["labels"] != 1 or seen is None:
            continue
        place = points.index(seen)
        bracket = (points[place - 1][0] if place else 0, seen[0])
        middle = math.sqrt(max(bracket[0], 1) * bracket[1])
        try:
            found = crossing([r[0] for r in points], [r[1] for r in points])
            off = factor(found["step"], middle) if math.isfinite(found["step"]) else math.inf
            offs.append(off)
            fit = f"{digits(found['step'])} ({digits(found['low'])} to {text(found['high'])})"
            fitted = verdict(off)
        except InputError as error:
            fit, fitted = "withheld", str(error).split(":")[0]
        start, told = run.get("start"), "–"
        if start:
            starts.append(factor(start["linear"], middle))
            told = f"{digits(start['linear'])} (exponential {digits(start['exponential'])}): {verdict(starts[-1])}"
        rows.append([named(run), f"{bracket[0]}–{bracket[1]}, R² {seen[6]:.2f}", fit, fitted, told])
    head = ["run", "measured", "exponential through early measurements", "", "from step 0 under Adam"]
    return markdown(head, rows), summary(offs), summary(starts)


def decays(runs: list[dict[str, Any]]) -> tuple[list[str], str]:
    """Plain descent: the measured error against the prediction of five Lanczos products at step 0."""
    rows, offs = [], []
    plain = [run for run in runs if run["optimizer"] == "sgd" and not run["momentum"] and not run["clip"]]
    for run in plain:
        of_seed = [r["analyses"]["0"]["spectrum"] for r in plain if r["seed"] == run["seed"] and "0" in r["analyses"]]
        spectrum = next((s for s in of_seed if "decay" in s), None)
        if spectrum is None:
            rows.append([named(run), "–", "–", f"withheld: {of_seed[0]['refused']}" if of_seed else "not analysed"])
            continue
        course = np.interp([row[0] for row in run["curve"]], [0, *spectrum["steps"]], [run["curve"][0][4], *spectrum["decay"]])
        pairs = [(row[0], row[4], float(due)) for row, due in zip(run["curve"], course, strict=True) if row[0]]
        own = [factor(due, seen) for _, seen, due in pairs]
        offs += own
        rows.append([named(run), ", ".join(f"{step}: {digits(seen)}" for step, seen, _ in pairs),
                     ", ".join(f"{seen / due:.2f}" for _, seen, due in pairs), verdict(max(own))])  # fmt: skip
    return markdown(["run", "L_E by step", "over that foretold at step 0", "worst"], rows), summary(offs, what="points")


def labels(runs: list[dict[str, Any]]) -> tuple[list[str], dict[str, str]]:
    """How the error of the first hundred steps notices labels scaled by 0 and 3."""
    rows, offs = [], {}
    first = [run for run in runs if run["steps"] == 100]
    for run in (r for r in first if r["labels"] == 1):
        for scale in (0, 3):
            other = next((r for r in first if r["labels"] == scale and all(r[k] == run[k] for k in ("model", "optimizer", "seed"))), None)
            if other:
                ratios = [[a[0], b[4] / a[4]] for a, b in zip(run["curve"], other["curve"], strict=True) if a[0]]
                told = ", ".join(f"{step:g}: {ratio:.2f}" for step, ratio in ratios)
                worst = max(max(r, 1 / r) for _, r in ratios)
                offs.setdefault(f"{run['model']} under {run['optimizer']}", []).append(worst)
                rows.append([f"{run['model']}, {run['optimizer']}, seed {run['seed']}", f"× {scale}", told, verdict(worst)])
    head = ["network and optimiser", "labels", "L_E over that of labels × 1, by step", "1 foretold"]
    return markdown(head, rows), {name: summary(found, what="pairs") for name, found in offs.items()}


def fared(data: dict[str, Any]) -> dict[str, str]:
    """How each prediction fared, in the words of the report, of docs/theory.md and of the table."""
    runs = ordered(data)
    return {
        "annealing": annealing(runs)[1], "noise": noise(runs)[1], "closed form": scaling(runs)[1],
        "crossing": crossings(runs)[1], "start": crossings(runs)[2], "decay": decays(runs)[1], **labels(runs)[1],
    }  # fmt: skip


def ordered(data: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(data["runs"], key=lambda r: (r["model"], r["optimizer"], r["lr"], r["batch"], r["steps"], r["labels"], r["seed"]))


def page(data: dict[str, Any]) -> str:
    """The whole table."""
    runs, said = ordered(data), fared(data)
    return "\n".join([
        "# Predicted against measured: the dynamics of learned symmetry", "",
        f"Written by `benchmarks/dynamics.py` from `dynamics.json`: {len(runs)} runs of `equiscope study dynamics` with the "
        "changes below, on one thread. A prediction held where it is within "
        f"{WITHIN:g} times. Derivations: `docs/theory.md`.", "",
        "## What was run", "", *what_was_run(runs, data["late"]),
        "## What annealing leaves", "", f"The average of the weights foretells it: {said['annealing']}.", "", *annealing(runs)[0],
        "## The optimiser's noise", "",
        f"What averaging takes from the error, by the Krylov solution, nothing fitted: {said['noise']}. The weights of one "
        "checkpoint are one draw of a state whose mean is foretold; the mean over runs is the better test. A share whose "
        "interval, over draws of the noise, holds zero counts neither way.", "", *noise(runs)[0],
        "### The closed form for Adam", "",
        "A floor of η √(L / B), against the measured difference, both over their means at rate 0.003, batch 8, 800 steps: "
        f"{said['closed form']}.", "", *scaling(runs)[0],
        "## The step of 2 %", "",
        f"An exponential through early measurements: {said['crossing']}. The prediction of step 0 under Adam: {said['start']}.", "",
        *crossings(runs)[0],
        "## The decay under plain descent", "", f"By five Lanczos products at step 0: {said['decay']}.", "", *decays(runs)[0],
        "## Labels scaled by 0, 1 and 3", "",
        *(f"- {name}: {told}" for name, told in labels(runs)[1].items()), "", *labels(runs)[0],
        "## The late rise of the flow", "", said_of_the_rise(data, krylov(runs)), *late_rise(data),
    ]).rstrip() + "\n"  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("collect", "table"), default="table")
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--late", nargs="*", default=[], help="flow runs, or the records of one without checkpoints")
    options = parser.parse_args()
    if options.what == "collect":
        twins = json.loads(DATA.read_text()).get("twins", []) if DATA.exists() else []
        store(DATA, short(collect(options.runs, options.late) | {"twins": twins}), separators=(",", ":"))
    TABLE.write_text(page(json.loads(DATA.read_text())))


if __name__ == "__main__":
    main()
