"""The theory's predictions against what runs did: one table, failures named.

    equiscope study dynamics task=forcefield data.final_frames=64 data.track_frames=24 logger=none
    equiscope study dynamics task=proteinflow logger=none
    equiscope analyse RUN dynamics --at 600                  # of each: the end of the constant rate (0 for plain descent)
    python benchmarks/dynamics.py collect RUN ... --late FLOW_RUN records.jsonl
    python benchmarks/dynamics.py                            # writes results/dynamics.md from results/dynamics.json

``collect`` keeps of each run its settings, tracked curve and analyses. From the checkpoints it computes what no analysis
records: the step of 2 % foretold by the first checkpoint under Adam, and for ``--late`` the gradients of both parts, of the
weights and of their average (a minute a run). The table is made from that small file alone.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from equiscope import records
from equiscope.words import digits, ranged, text

RESULTS = Path(__file__).parent / "results"
DATA, TABLE = RESULTS / "dynamics.json", RESULTS / "dynamics.md"
# A prediction held where it is right within this factor.
WITHIN = 1.5
# Minus the logarithm of it is where 2 % of the loss is, in units of the rest: 0.02 / 0.98.
TWO = 0.02 / 0.98
MINIBATCHES = 16
# Flow time and samples an independent batch of the gradients in the late rise.
RISING, DEALT = "t=0.4", 4
LATE = """\
The candidates: (a) the total falls while L_E stays at a floor of noise; (b) new features break symmetry; (c) the learning
rate. **(a) is refuted**: L_E itself grows, in {above} of {nano} nano runs with its whole interval above one at t = 0.4, and there
far more than the total falls. **(c) is refuted as a change of the rate, and as noise of the rate at the time where the rate falls**:
under the cosine L_E grows while the rate falls, and the run ends, annealed to a hundredth of its rate, with the error of its
peak; at a held rate it grows as well, and in {back} of {held} runs it falls again at that same rate, before any annealing. That
a lower rate from the start would avoid the rise is not decided: a nano run at a quarter of the rate did not learn the
structure within 800 steps. **(b) is what is left, and what is seen is its course**: L_E grows where R² does, and in most
held runs falls again once the new structure is learned, as where broken directions arrange themselves. The gradients bear it out in part: under
the cosine they are orthogonal before the rise and oppose each other in it, so that what lowers the twirled loss raises the
error; yet the net gradient at the kept checkpoints lowers the error or is not told from zero, so how the growth comes about,
by drift between checkpoints or by noise in new directions, is not decided.
{noise}Networks of 34,248 parameters, and one run of 60M that was stopped at step 940.
"""


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
    """A flow run's curves by flow time, its learning rate, and from its checkpoints the gradients of both parts."""
    place = path if path.suffix else path / "records.jsonl"
    entries = [json.loads(line) for line in place.read_text().splitlines()]
    config = entries[0]["config"]
    probes = dict.fromkeys(e["probe"] for e in entries if e["kind"] == "measure" and e["part"] == "track")
    rates = {e["step"]: e["lr"] for e in entries if e["kind"] == "train"}
    return {
        "name": f"{entries[0]['model']} {config['model'].get('size', '')}", "parameters": entries[0]["parameters"],
        "seed": config["seed"], "lr": config["optimizer"]["lr"], "steps": config["trainer"]["max_steps"],
        "clip": config["trainer"]["clip"], "hold": config["schedule"].get("hold", 0.0),
        "curves": {p: curve(entries, p) for p in probes if p.startswith("t=")},
        "rates": [[s, rates[s]] for s in sorted(rates)], "gradients": {} if path.suffix else pulls(path),
    }  # fmt: skip


def pulls(folder: Path) -> dict[str, Any]:
    """Cosine of the gradients of both parts, and their rates along the whole one, at each kept step after the first."""
    from equiscope.analysis.gradients import gradients
    from equiscope.decomposition.plan import make_plan
    from equiscope.runs.deal import dealt
    from equiscope.runs.trained import available_steps, open_run

    found: dict[str, Any] = {}
    for name, averaged in (("averaged weights", True), ("weights", False)):
        for step in (s for s in available_steps(open_run(folder).folder) if s):
            run = open_run(folder, averaged=averaged, step=step)
            run.task.prepare(progress=False)
            held = [p for part in ("track", "final") for p in run.task.probes(part) if p.name == RISING]
            plan = make_plan(held[0].declaration, held[0].forward, "D2", 2, 0)
            batches = [batch for p in held for batch in dealt(p.batches, p.declaration, DEALT, 0)]
            whole = gradients(run.model, batches, plan, groups=4 * DEALT)["whole"]
            found.setdefault(f"{RISING}, {name}", {})[str(step)] = {key: whole[key] for key in ("cosine", "rate")}
    return found


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


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *("| " + " | ".join(r) + " |" for r in rows), ""]


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


def ends(points: list[list[float]]) -> tuple[list[float], list[float]]:
    """The measurement of the lowest percent after the start, and that of the highest after it."""
    steps = [p for p in points if p[0] > 0]
    dip = min(range(len(steps)), key=lambda i: steps[i][1])
    return steps[dip], max(steps[dip:], key=lambda p: p[1])


def growth(low: list[float], high: list[float]) -> list[float]:
    """L_E at the second over that at the first, and the widest interval that theirs allow."""
    (a, b), (c, d) = ([p[i] * p[5] / 100 for i in (2, 3)] for p in (low, high))
    return [high[4] / low[4], c / b, d / a]


def said_of_the_rise(data: dict[str, Any]) -> str:
    """The words on the late rise, with what they count."""
    nano = [run for run in data["late"] if RISING in run["curves"] and run["parameters"] < 1e6]
    held = [run for run in nano if run["hold"]]
    back = [run for run in held for peak in [ends(run["curves"][RISING])[1]]
            if any(peak[0] < p[0] <= run["hold"] * run["steps"] and p[4] < peak[4] for p in run["curves"][RISING])]  # fmt: skip
    shares = [found["noise"]["equivariance"]["averaged"]["value"] / found["annealing"]["averaged"]["equivariance"]
              for run in data["runs"] if run["model"] == "proteina"
              for found in tested(run).values() if "equivariance" in found["noise"]]  # fmt: skip
    share = " and ".join(f"{100 * one:.0f} %" for one in shares)
    noise = f"By the Krylov solution the optimiser's noise makes {share} of the error of the averaged weights at step 600. " if shares else ""
    above = sum(growth(*ends(run["curves"][RISING]))[1] > 1 for run in nano)
    return LATE.format(above=above, nano=len(nano), back=len(back), held=len(held), noise=noise)


def late_rise(late: list[dict[str, Any]]) -> list[str]:
    """The error and the total apart, from the lowest percent on."""
    lines: list[str] = []
    for run in late:
        rows = []
        for probe, points in run["curves"].items():
            (low, high), last = ends(points), points[-1]
            grown, *reach = growth(low, high)
            rows.append([probe, f"{ranged(low[1], low[2:4])} at {low[0]}", f"{ranged(high[1], high[2:4])} at {high[0]}",
                         "{:.2f} ({:.2f} to {:.2f})".format(grown, *reach), f"{high[5] / low[5]:.2f}",
                         f"{low[6]:.2f} to {high[6]:.2f}", f"{ranged(last[1], last[2:4])}, L_E {last[4] / high[4]:.2f} of its peak",
                         _rate(run, low[0], high[0])])  # fmt: skip
        lines += [f"{run['name']} ({run['parameters']:,} parameters, highest rate {run['lr']:g}, {run['steps']:,} steps, "
                  f"{'constant, then annealed' if run['hold'] else 'warm-up and cosine'}, seed {run['seed']}):", ""]  # fmt: skip
        head = ["flow time", "lowest percent", "highest after it", "L_E times", "total times", "R²", "at the end", "learning rate"]
        lines += markdown(head, rows)
        table = [[probe, step, ranged(g["cosine"]["value"], g["cosine"]["interval"]),
                  *(ranged(g["rate"][part]["value"], g["rate"][part]["interval"]) for part in ("twirled", "equivariance"))]
                 for probe, steps in run["gradients"].items() for step, g in steps.items()]  # fmt: skip
        if table:
            lines += markdown(["flow time", "step", "cosine of the two gradients", "rate of the twirled loss", "of the error"], table)
    return lines


def _rate(run: dict[str, Any], first: float, last: float) -> str:
    if not run["rates"]:
        return "–"
    steps, rates = np.array(run["rates"]).T
    a, b = np.interp([first, last], steps, rates)
    return f"{a:.2g} to {b:.2g}"


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
        "## The late rise of the flow", "", said_of_the_rise(data), *late_rise(data["late"]),
    ]).rstrip() + "\n"  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("collect", "table"), default="table")
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--late", nargs="*", default=[], help="flow runs, or the records of one without checkpoints")
    options = parser.parse_args()
    if options.what == "collect":
        DATA.write_text(json.dumps(_short(collect(options.runs, options.late)), separators=(",", ":")) + "\n")
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
