"""The theory's predictions against what runs did: one table, failures named.

    equiscope study dynamics task=forcefield
    equiscope analyse runs/forcefield/NAME dynamics          # of each of its runs, at the end of the constant rate
    python benchmarks/dynamics.py collect runs/forcefield/* --late runs/proteinflow/NAME records.jsonl
    python benchmarks/dynamics.py                            # writes results/dynamics.md from results/dynamics.json

``collect`` keeps of each run its settings, tracked curve and analyses, and adds the step of 2 % foretold from the first
checkpoint under Adam; the table is made from that small file alone.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from equiscope import records
from equiscope.words import digits, ranged, text

RESULTS = Path(__file__).parent / "results"
DATA, TABLE = RESULTS / "dynamics.json", RESULTS / "dynamics.md"
# A prediction held where it is right within this factor.
WITHIN = 1.5
# Minus the logarithm of it is where 2 % of the loss is, in units of the rest: 0.02 / 0.98.
TWO = 0.02 / 0.98
MINIBATCHES = 16
LATE = (
    "The candidates: (a) the total falls while L_E stays at a floor of noise; (b) new features break symmetry; (c) the",
    "learning rate. **(a) is refuted**: L_E itself grows, with its whole interval above one, and far more than the total",
    "falls. **(c) is refuted as noise of the rate at the time**: L_E grows while the rate falls, and the nano run ends,",
    "annealed to a hundredth of its rate, with the error of its peak. That a lower rate from the start would avoid the",
    "rise is not decided: a nano run at a quarter of the rate did not learn the structure within 800 steps. **(b) is what",
    "is left, and the gradients bear it out in part**: they are orthogonal before the rise and oppose each other in it,",
    "so that what lowers the twirled loss raises the error; yet the net gradient at these checkpoints still lowers the",
    "error (its rate is above zero), so how the growth comes about, by drift between them or by noise in new directions,",
    "is not decided. One network of one seed, and one run of 60M parameters that was stopped at step 940.",
)


def collect(folders: list[str], late: list[str], checkpoints: bool) -> dict[str, Any]:
    """What is kept of the runs; ``checkpoints``: also what is computed from those of runs that were not analysed."""
    runs = [kept(Path(folder), checkpoints) for folder in folders if (Path(folder) / "records.jsonl").exists()]
    return {"runs": [run for run in runs if run], "late": [rise(Path(one)) for one in late]}


def kept(folder: Path, checkpoints: bool) -> dict[str, Any] | None:
    """A finished run: settings, curve, analyses."""
    entries = records.read(folder / "records.jsonl")
    if entries[-1]["kind"] not in ("end", "analysis"):
        return None
    config = entries[0]["config"]
    optimizer, trainer = config["optimizer"], config["trainer"]
    run: dict[str, Any] = {
        "model": entries[0]["model"], "parameters": entries[0]["parameters"], "seed": config["seed"],
        "optimizer": optimizer["name"], "lr": optimizer["lr"], "momentum": optimizer.get("momentum", 0.0),
        "batch": config["batch_size"], "clip": trainer["clip"], "steps": trainer["max_steps"], "ema": trainer["ema"],
        "hold": config["schedule"].get("hold", 0.0), "labels": config["data"].get("labels", 1.0),
        "curve": curve(entries, next(e["probe"] for e in entries if e["kind"] == "measure" and e["headline"])),
        "analyses": {str(e["step"]): e["values"] for e in entries
                     if e["kind"] == "analysis" and e["analysis"] == "dynamics"},
    }  # fmt: skip
    if not checkpoints:
        return run
    if optimizer["name"] != "sgd" and run["labels"]:
        run["start"] = start_under_adam(folder)
    if run["hold"] < 1 and run["ema"] and not any(0 < int(step) < run["steps"] for step in run["analyses"]):
        run["analyses"] |= averaged_alone(folder)
    return run


def averaged_alone(folder: Path) -> dict[str, Any]:
    """The weights and their average at the last checkpoint before the end, of a run that was not analysed."""
    from equiscope.runs.kinds import dynamics
    from equiscope.runs.trained import available_steps, open_run

    steps = available_steps(open_run(folder).folder)[:-1]
    if not steps or not steps[-1]:
        return {}
    run, raw = (open_run(folder, averaged=which, step=steps[-1]) for which in (True, False))
    run.task.prepare(progress=False)
    probe = next(p for p in run.task.probes("track") if p.headline)
    found = dynamics._annealing(run, raw.model, True, probe, dynamics.DynamicsSettings())
    return {str(steps[-1]): {"annealing": found, "noise": {}, "spectrum": {}}}


def curve(entries: list[dict[str, Any]], probe: str) -> list[list[float]]:
    """[step, percent, low, high, equivariance error, total, R²] of each tracked measurement."""
    found = [(e["step"], e["result"]) for e in entries if e["kind"] == "measure" and e["part"] == "track" and e["probe"] == probe]
    return [[step, r["percent"], *r["percent_interval"], r["equivariance"], r["total"], r["r2"]] for step, r in found]


def start_under_adam(folder: Path) -> dict[str, float]:
    """Step of 2 % from the first checkpoint alone: rate <grad L_E, P grad L> / L_E with P = 1 / sqrt(E_b g_b^2)."""
    import torch

    from equiscope.analysis.objective import Objective
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


def rise(path: Path) -> dict[str, Any]:
    """A flow run's curves by flow time, its learning rate at each measured step, and the gradients at kept checkpoints."""
    place = path if path.suffix else path / "records.jsonl"
    entries = [json.loads(line) for line in place.read_text().splitlines()]
    config = entries[0]["config"]
    probes = dict.fromkeys(e["probe"] for e in entries if e["kind"] == "measure" and e["part"] == "track")
    rates = {e["step"]: e["lr"] for e in entries if e["kind"] == "train"}
    gradients = {
        probe: {str(e["step"]): {"cosine": e["values"]["whole"]["cosine"], "rate": e["values"]["whole"]["rate"]}
                for e in entries if e["kind"] == "analysis" and e["analysis"] == "gradients" and e["probe"] == probe}
        for probe in probes
    }  # fmt: skip
    return {
        "name": f"{entries[0]['model']} {config['model'].get('size', '')}", "parameters": entries[0]["parameters"],
        "lr": config["optimizer"]["lr"], "steps": config["trainer"]["max_steps"],
        "hold": config["schedule"].get("hold", 0.0), "curves": {p: curve(entries, p) for p in probes if p.startswith("t=")},
        "rates": [[s, rates[s]] for s in sorted(rates)], "gradients": {p: g for p, g in gradients.items() if g},
    }  # fmt: skip


def factor(predicted: float, measured: float) -> float:
    """How far off, at least 1."""
    return max(predicted / measured, measured / predicted) if predicted > 0 and measured > 0 else math.inf


def verdict(off: float, within: float = WITHIN) -> str:
    return f"{'held' if off <= within else '**failed**'}, {off:.2f} times off"


def named(run: dict[str, Any]) -> str:
    labels = "" if run["labels"] == 1 else f", labels × {run['labels']:g}"
    clip = f", clip {run['clip']:g}" if run["clip"] else ""
    return f"{run['model']}, {run['optimizer']} {run['lr']:g}, batch {run['batch']}{clip}{labels}, {run['steps']} steps, seed {run['seed']}"


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *("| " + " | ".join(r) + " |" for r in rows), ""]


def summary(offs: list[float], within: float = WITHIN, what: str = "runs") -> str:
    """"held in 5 of 6 runs, within 1.22" of those that held."""
    good = [off for off in offs if off <= within]
    if not offs:
        return "not tested"
    most = f", within {max(good):.2f}" if good else ""
    worst = f"; off by up to {max(offs):.1f} times" if len(good) < len(offs) else ""
    return f"held (within {within:g}) in {len(good)} of {len(offs)} {what}{most}{worst}"


def annealing(runs: list[dict[str, Any]]) -> tuple[list[str], str]:
    """Percent of the averaged weights at the end of the constant rate against that after annealing."""
    rows, offs = [], []
    for run in runs:
        for step, found in run["analyses"].items():
            averaged = found["annealing"].get("averaged")
            if averaged is None or not 0 < int(step) < run["steps"]:
                continue
            last = run["curve"][-1]
            off = factor(averaged["value"], last[1])
            offs.append(off)
            rows.append([named(run), f"{digits(found['annealing']['weights']['value'])} %",
                         f"{ranged(averaged['value'], averaged['interval'])} %", f"{ranged(last[1], last[2:4])} %", verdict(off)])
    return markdown(["run", "weights at the constant rate", "their average (foretold)", "after annealing", ""], rows), summary(offs)


def noise(runs: list[dict[str, Any]]) -> tuple[list[str], str]:
    """What averaging took from the error against what the Krylov solution says it takes."""
    rows, offs = [], []
    for run in runs:
        for step, found in run["analyses"].items():
            excess = found["noise"].get("equivariance")
            if excess is None or excess["averaged"] is None:
                continue
            now, rest = (found["annealing"][which]["equivariance"] for which in ("weights", "averaged"))
            due, seen = excess["weights"]["value"] - excess["averaged"]["value"], now - rest
            off = factor(due, seen)
            offs.append(off)
            share = found["noise"]["of_error"]
            rows.append([named(run), step, digits(now), digits(rest), digits(seen), digits(due), verdict(off),
                         ranged(100 * share["value"], [100 * end for end in share["interval"]]) + " %",
                         f"{found['noise']['kappa_max']:.1f} of {found['noise']['edge']:.0f}"])  # fmt: skip
    head = ["run", "step", "L_E of the weights", "of their average", "difference", "foretold", "", "noise in L_E", "κ_max of edge"]
    return markdown(head, rows), summary(offs)


def scaling(runs: list[dict[str, Any]]) -> list[str]:
    """Whether the measured noise goes as eta sqrt(L), as the closed form for Adam has it."""
    rows = []
    for run in runs:
        for step, found in run["analyses"].items():
            averaged = found["annealing"].get("averaged")
            if run["optimizer"] != "adam" or averaged is None or int(step) == 0 or run["model"] != "edge_transformer":
                continue
            now = found["annealing"]["weights"]
            rows.append((run["batch"], run["lr"], now["equivariance"] - averaged["equivariance"], now["total"], named(run)))
    if not rows:
        return ["No run has both.", ""]
    base = min(rows, key=lambda row: row[1])
    told = []
    for _, rate, seen, loss, name in sorted(rows):
        due = rate / base[1] * math.sqrt(loss / base[3]) * math.sqrt(base[0] / _)
        off = factor(due, seen / base[2]) if seen > 0 and base[2] > 0 else math.inf
        told.append([name, digits(seen), f"{due:.2f}", f"{seen / base[2]:.2f}", verdict(off) if name != base[4] else "–"])
    return markdown(["run", "L_E of the weights less that of their average", "η √(L / B), relative", "measured, relative", ""], told)


def crossings(runs: list[dict[str, Any]]) -> tuple[list[str], str, str]:
    """The step of 2 %: by an exponential through the first measurements, and under Adam from the first checkpoint."""
    from equiscope.analysis.forecast import crossing
    from equiscope.errors import InputError

    rows, offs, starts = [], [], []
    for run in runs:
        if run["labels"] != 1:
            continue
        points = [row for row in run["curve"] if row[0] > 0]
        seen = next((row for row in points if row[1] <= 2), None)
        if seen is None:
            continue
        place = points.index(seen)
        bracket = (points[place - 1][0] if place else 0, seen[0])
        middle = math.sqrt(max(bracket[0], 1) * bracket[1])
        try:
            found = crossing([r[0] for r in points], [r[1] for r in points])
            off = factor(found["step"], middle)
            offs.append(off)
            fit = f"{digits(found['step'])} ({digits(found['low'])} to {text(found['high'])})"
            fitted = verdict(off)
        except InputError as error:
            fit, fitted = "withheld", str(error).split(":")[0]
        start, told = run.get("start"), "–"
        if start and run["ema"] == 0:
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
        source = next((r for r in plain if r["seed"] == run["seed"] and "decay" in r["analyses"].get("0", {}).get("spectrum", {})), None)
        if source is None:
            reasons = [r["analyses"]["0"]["spectrum"]["refused"] for r in plain if "0" in r["analyses"]]
            rows.append([named(run), "–", "–", "–", f"withheld: {reasons[0]}" if reasons else "not analysed"])
            continue
        spectrum = source["analyses"]["0"]["spectrum"]
        course = np.interp([row[0] for row in run["curve"]], [0, *spectrum["steps"]], [source["curve"][0][4], *spectrum["decay"]])
        for row, due in zip(run["curve"], course, strict=True):
            if row[0]:
                off = factor(float(due), row[4])
                offs.append(off)
                rows.append([named(run), str(row[0]), digits(row[4]), digits(float(due)), verdict(off)])
    return markdown(["run", "step", "L_E", "foretold at step 0", ""], rows), summary(offs, what="points")


def labels(runs: list[dict[str, Any]]) -> list[str]:
    """How the error of the first hundred steps notices labels scaled by 0 and 3."""
    rows = []
    first = [run for run in runs if run["steps"] == 100]
    for run in first:
        if run["labels"] != 1:
            continue
        for factor_of in (0, 3):
            other = next((r for r in first if r["labels"] == factor_of and all(r[k] == run[k] for k in ("model", "optimizer", "seed"))), None)
            if other:
                ratios = [[a[0], b[4] / a[4]] for a, b in zip(run["curve"], other["curve"], strict=True) if a[0]]
                told = ", ".join(f"{step:g}: {ratio:.2f}" for step, ratio in ratios)
                worst = max(max(r, 1 / r) for _, r in ratios)
                rows.append([f"{run['model']}, {run['optimizer']}, seed {run['seed']}", f"× {factor_of}", told, verdict(worst)])
    return markdown(["network and optimiser", "labels", "L_E over that of labels × 1, by step", "1 foretold"], rows)


def late_rise(late: list[dict[str, Any]]) -> list[str]:
    """The error and the total apart, from the lowest percent at R² of the learned structure on."""
    lines: list[str] = []
    for run in late:
        rows = []
        for probe, points in run["curves"].items():
            steps = [p for p in points if p[0] > 0]
            dip = min(range(len(steps)), key=lambda i: steps[i][1])
            peak = max(range(dip, len(steps)), key=lambda i: steps[i][1])
            low, high = steps[dip], steps[peak]
            ends = [[p[i] * p[5] / 100 for i in (2, 3)] for p in (low, high)]
            grown = high[4] / low[4]
            rows.append([probe, f"{ranged(low[1], low[2:4])} at {low[0]}", f"{ranged(high[1], high[2:4])} at {high[0]}",
                         f"{grown:.2f} ({ends[1][0] / ends[0][1]:.2f} to {ends[1][1] / ends[0][0]:.2f})", f"{high[5] / low[5]:.2f}",
                         f"{low[6]:.2f} to {high[6]:.2f}", _rate(run, low[0], high[0])])  # fmt: skip
        lines += [f"{run['name']} ({run['parameters']:,} parameters, highest rate {run['lr']:g}, {run['steps']:,} steps):", ""]
        lines += markdown(["flow time", "lowest percent", "highest after it", "L_E times", "total times", "R²", "learning rate"], rows)
        pulls = [[probe, step, ranged(g["cosine"]["value"], g["cosine"]["interval"]),
                  *(ranged(g["rate"][part]["value"], g["rate"][part]["interval"]) for part in ("twirled", "equivariance"))]
                 for probe, steps in run["gradients"].items() for step, g in steps.items()]  # fmt: skip
        if pulls:
            lines += markdown(["flow time", "step", "cosine of the two gradients", "rate of the twirled loss", "of the error"], pulls)
    return lines


def _rate(run: dict[str, Any], first: float, last: float) -> str:
    if not run["rates"]:
        return "–"
    steps, rates = np.array(run["rates"]).T
    a, b = np.interp([first, last], steps, rates)
    return f"{a:.2g} to {b:.2g}"


def page(data: dict[str, Any]) -> str:
    """The whole table."""
    runs = sorted(data["runs"], key=lambda r: (r["model"], r["optimizer"], r["lr"], r["batch"], r["labels"], r["seed"]))
    anneal, annealed = annealing(runs)
    floor, floors = noise(runs)
    cross, crossed, started = crossings(runs)
    decay, decayed = decays(runs)
    return "\n".join([
        "# Predicted against measured: the dynamics of learned symmetry", "",
        f"Written by `benchmarks/dynamics.py` from `dynamics.json`, {len(runs)} runs of `equiscope study dynamics`. A "
        f"prediction held where it is within {WITHIN:g} times. Derivations: `docs/theory.md`.", "",
        "## What annealing leaves", "", f"The average of the weights foretells it: {annealed}.", "", *anneal,
        "## The optimiser's noise", "",
        f"What averaging takes from the error, by the Krylov solution, nothing fitted: {floors}.", "", *floor,
        "### The closed form for Adam", "", "A floor of η √(L / B), against the measured difference:", "", *scaling(runs),
        "## The step of 2 %", "",
        f"An exponential through early measurements: {crossed}. The prediction of step 0 under Adam: {started}.", "", *cross,
        "## The decay under plain descent", "", f"By five Lanczos products at step 0: {decayed}.", "", *decay,
        "## Labels scaled by 0, 1 and 3", "", *labels(runs),
        "## The late rise of the flow", "", *LATE, "", *late_rise(data["late"]),
    ]).rstrip() + "\n"  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("collect", "table"), default="table")
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--checkpoints", action="store_true", help="compute from them what was not analysed (minutes)")
    parser.add_argument("--late", nargs="*", default=[])
    options = parser.parse_args()
    if options.what == "collect":
        DATA.write_text(json.dumps(_short(collect(options.runs, options.late, options.checkpoints)), separators=(",", ":")) + "\n")
    TABLE.write_text(page(json.loads(DATA.read_text())))


def _short(value: Any) -> Any:
    """Numbers to five digits."""
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
