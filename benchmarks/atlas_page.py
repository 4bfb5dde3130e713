"""The atlas as a page: what atlas.py stored, and how to measure the models that could not be fetched."""

from __future__ import annotations

from typing import Any

KINDS = ("weights from a package index", "weights at random", "trained here")
POTENTIALS = {"energy", "forces", "stress"}
# Model, what to install, the command or program, what must be known of it.
RECIPES = (
    (
        "MACE-MP-0",
        "pip install mace-torch equiscope[ase]",
        "equiscope measure --calculator mace.calculators:mace_mp --set model=small --set device=cpu structures.extxyz",
        "The weights come from GitHub at the first call. mace-torch pins e3nn 0.4.4, so an environment of its own; the "
        "architecture at random weights is in the table above.",
    ),
    (
        "Orb v3",
        "pip install orb-models equiscope[ase]",
        "from orb_models.forcefield import pretrained\n"
        "from orb_models.forcefield.inference.calculator import ORBCalculator\n\n"
        "def make(device=\"cpu\"):\n"
        "    model, adapter = pretrained.orb_v3_direct_20_omat(device=device)\n"
        "    return ORBCalculator(model, adapter, device=device)",
        "Python 3.12 or later. Forces are direct; the architecture at random weights is in the table above. The "
        "calculator is measured through torch-sim, many structures a call, where that is installed too.",
    ),
    (
        "UMA",
        "pip install fairchem-core equiscope[ase]",
        "from fairchem.core import FAIRChemCalculator, pretrained_mlip\n\n"
        "def make(device=\"cpu\", task=\"omol\"):\n"
        "    unit = pretrained_mlip.get_predict_unit(\"uma-s-1p1\", device=device)\n"
        "    return FAIRChemCalculator(unit, task_name=task)",
        "The weights need an account at Hugging Face that has accepted their licence. With task omol, structures need "
        "charge and spin in their info.",
    ),
    (
        "MatterSim",
        "pip install mattersim equiscope[ase]",
        "equiscope measure --calculator mattersim.forcefield:MatterSimCalculator --set device=cpu structures.extxyz",
        "The weights are fetched at the first call.",
    ),
    (
        "PET-MAD",
        "pip install upet equiscope[ase]",
        "equiscope measure --calculator upet.calculator:UPETCalculator --set model=pet-mad-s --set version=1.5.0 "
        "--set device=cpu structures.extxyz",
        "The weights come from Hugging Face. Its forces are gradients by default; its direct forces, where a model has "
        "them, are the ones with the larger error.",
    ),
    (
        "SevenNet MF-ompa, OMat, Omni",
        "pip install sevenn equiscope[ase]",
        "equiscope measure --calculator sevenn.calculator:SevenNetCalculator --set model=7net-mf-ompa --set modal=mpa "
        "--set device=cpu structures.extxyz",
        "The weights are not in the wheel and are fetched at the first call.",
    ),
)


def page(stored: dict[str, Any]) -> str:
    """The page in Markdown."""
    models = stored["models"]
    potentials = {name: m for name, m in models.items() if {r["output"] for r in m["rows"]} <= POTENTIALS}
    others = {name: m for name, m in models.items() if name not in potentials}
    return "\n".join([
        "# Atlas: how symmetric are the models that people run?",
        "",
        "Made by `make atlas` from `benchmarks/results/atlas.json`; nothing on this page is written by hand.",
        f"Measured on {stored['machine']}.",
        "",
        "A relative error is the root mean square, over rotations, of what an output changes when its input is turned "
        "and the answer turned back, beside the root mean square of the output; in brackets its 95 % interval over "
        "structures (or *under*, where only an upper limit is known). *Noise* marks what is not distinguishable from "
        "rounding. The floor is what rounding alone shows for the same output. An energy's error is small beside the "
        "energy because most of an energy is a constant of its atoms.",
        "",
        "## Potentials",
        "",
        "On six displaced molecules (CHGNet in a periodic box, as it needs one) and six strained, displaced crystals; "
        "trained models on held-out molecules of their own data.",
        "",
        "| model | weights | energy | forces | forces of crystals | stress | floor of forces | passes | CPU s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_potential(name, model) for name, model in potentials.items()),
        "",
        "## Other networks",
        "",
        "| model | weights | output | relative error | floor | passes | CPU s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(line for name, model in others.items() for line in _other(name, model)),
        "",
        *_findings(models),
        *_missing(stored),
        "## Where the errors lie",
        "",
        "Share of the squared error at each Wigner degree, of potentials that of the forces of molecules, for models "
        "whose error is more than rounding; percent of the loss where there are labels.",
        "",
        "| model | l = 1 | l = 2 | above | percent of the loss | R² |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_spectrum(name, model) for name, model in models.items() if _visible(model)),
        "",
        "## Versions",
        "",
        *(f"- {line}" for line in _versions(models)),
        "",
        "## Models whose weights must be fetched",
        "",
        "Not run here: this machine reaches package indexes only. The commands follow each package's documentation and "
        "are **untested**. A program goes into a file `my_model.py` and is called with "
        "`equiscope measure --calculator my_model:make structures.extxyz`.",
        "",
        *(line for recipe in RECIPES for line in _recipe(*recipe)),
    ])  # fmt: skip


def value(row: dict[str, Any] | None) -> str:
    """A relative error with its interval and whether it is more than rounding."""
    if row is None:
        return "–"
    shown = f"{row['relative']:.1e}" if row["relative"] < 0.01 else f"{row['relative']:.3f}"
    if row["interval"]:
        low, high = (f"{v:.1e}" if v < 0.01 else f"{v:.3f}" for v in row["interval"])
        shown += f" (under {high})" if row["kind"] == "upper limit" else f" ({low}–{high})"
    return shown if row["distinguishable"] else f"{shown} noise"


def find(model: dict[str, Any], output: str, on: str | None = None) -> dict[str, Any] | None:
    """The row of an output; ``on`` a set of structures, or the first that is no crystal."""
    return next((r for r in model["rows"] if r["output"] == output and (on or r["on"]) == r["on"] and
                 (on or r["on"] != "crystals")), None)  # fmt: skip


def _potential(name: str, model: dict[str, Any]) -> str:
    forces = find(model, "forces")
    cells = [find(model, "energy"), forces, find(model, "forces", "crystals"), find(model, "stress", "crystals")]
    floor = f"{forces['floor']:.0e}" if forces else "–"
    shown = " | ".join(map(value, cells))
    return f"| {name} | {model['kind']} | {shown} | {floor} | {model['passes']:g} | {model['seconds']:.0f} |"


def _other(name: str, model: dict[str, Any]) -> list[str]:
    end = f"{model['passes']:g} | {model['seconds']:.0f} |"
    return [
        f"| {name} | {model['kind']} | {r['output']} ({r['on']}) | {value(r)} | {r['floor']:.0e} | {end}"
        for r in model["rows"]
    ]


def _visible(model: dict[str, Any]) -> bool:
    return any(r["distinguishable"] for r in model["rows"]) and bool(model.get("spectrum") or model.get("percent"))


def _spectrum(name: str, model: dict[str, Any]) -> str:
    found = model.get("spectrum")
    shares = [f"{100 * v:.0f} %" for v in (*found["share"][:2], 1 - sum(found["share"][:2]))] if found else ["–"] * 3
    percent = model.get("percent")
    said = ["{:.2g} ({:.2g}–{:.2g})".format(*percent[:3]), f"{percent[3]:.2f}"] if percent else ["–", "–"]
    return f"| {name} | {' | '.join([*shares, *said])} |"


def _missing(stored: dict[str, Any]) -> list[str]:
    missing = [name for name in stored.get("known", ()) if name not in stored["models"]]
    return [f"In `make atlas` but not run here: {', '.join(missing)}.", ""] if missing else []


def _findings(models: dict[str, Any]) -> list[str]:
    """PocketNet in words, where it was measured."""
    rows = [r["relative"] for r in models.get("PocketNet", {}).get("rows", [])]
    if len(rows) < 3:
        return []
    return [
        "PocketNet claims invariance and is not invariant: the network answers alike to "
        f"{rows[0]:.0e} for descriptors that are given, but the descriptors and the grid of candidate points are made "
        f"with fixed directions in space; end to end the score of a residue changes by {100 * rows[2]:.1f} % with the "
        "orientation of the protein.",
        "",
    ]


def _versions(models: dict[str, Any]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for name, model in models.items():
        groups.setdefault(", ".join(f"{k} {v}" for k, v in model["versions"].items()), []).append(name)
    return [f"{'; '.join(names)}: {said}" for said, names in groups.items()]


def _recipe(model: str, install: str, how: str, note: str) -> list[str]:
    kind = "python" if how.startswith("from") else "console"
    code = how if kind == "python" else f"$ {how}"
    return [f"**{model}**. {note}", "", "```{code-block} console", f"$ {install}", "```", "",
            f"```{{code-block}} {kind}", code, "```", ""]  # fmt: skip
