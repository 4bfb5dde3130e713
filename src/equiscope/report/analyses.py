"""What `equiscope analyse` recorded, as sections of the page: sentences, tables and which figures go with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from equiscope.report import conditioning, curvature
from equiscope.report.curves import Record, number
from equiscope.report.text import Section, Table, Values, digits, interval, relation_table, share


def sections(entries: Iterable[Record]) -> list[Section]:
    """The sections there are records for, in the order of :data:`MAKERS`.

    Steps analysed with other settings than the last record of that analysis and probe are left out.
    """
    entries = [entry for entry in entries if entry["kind"] == "analysis"]
    made = []
    for name, (title, make) in MAKERS.items():
        for probe in dict.fromkeys(entry["probe"] for entry in entries if entry["analysis"] == name):
            mine = [entry for entry in entries if entry["analysis"] == name and entry["probe"] == probe]
            own = {e["step"]: e["values"] for e in mine if e["settings"] == mine[-1]["settings"]}
            own = dict(sorted(own.items()))
            related = {e["pair"]: e["values"] for e in entries if e["analysis"] == "relations" and e["probe"] == probe}
            lead, tables = make(own, related)
            made.append(Section(name, probe, title, lead, tables, own))
    return made


def summary(entries: Iterable[Record]) -> str:
    """The sections as text for the terminal."""
    lines: list[str] = []
    for section in sections(entries):
        lines += ["", f"{section.title} ({section.probe})", section.lead]
        for table in section.tables:
            widths = [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
            for row in (table.head, *table.rows):
                lines.append("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return "\n".join(lines).strip()


def _degrees(values: Values) -> list[str]:
    return [f"l = {degree}" for degree in values["degrees"]] + [f"l > {values['degrees'][-1]}"]


def _layers(steps: Mapping[int, Values], related: Values) -> tuple[str, list[Table]]:
    last = max(steps)
    found = [layer for layer in steps[last]["layers"] if layer["share"] is not None]
    head = ["layer", *_degrees(found[0]), "features"] if found else ["layer"]
    rows = []
    for layer in found:
        pairs = zip([*layer["share"], layer["remainder"]], [*layer["error"], layer["remainder_error"]], strict=True)
        rows.append([layer["name"], *(share(*pair) for pair in pairs), f"{layer['width']:,}"])
    lead = "No layer that was looked at varies."
    if found:
        turning = [layer for layer in found if not layer["name"].startswith("answer")]
        most = max(turning or found, key=lambda layer: 1 - layer["share"][0])
        turns = 1 - most["share"][0]
        lead = (
            f"At step {last:,} the features of every layer before the answer are invariant: less than 0.01 % of their "
            "variance turns with the sample (l ≥ 1)."
            if turning and turns < 1e-4
            else f"At step {last:,} the layer whose features depend most on the orientation is {most['name']}: "
            f"{share(turns, most['error'][0])} % of its variance turns with the sample (l ≥ 1); "
            "an invariant network has 0 % everywhere."
        )
    caption = (
        f"Percent of the layer’s variance at each Wigner degree at step {last:,}, ± standard error over independent "
        "samples; layers in order of execution."
    )
    return lead, [Table(head, rows, caption)]


def _spectrum(steps: Mapping[int, Values], related: Values) -> tuple[str, list[Table]]:
    rows = []
    for step, values in steps.items():
        pairs = zip([*values["share"], values["remainder"]], [*values["error"], values["remainder_error"]], strict=True)
        rows.append([f"{step:,}", digits(values["percent"]), *(share(*pair) for pair in pairs)])
    last = steps[max(steps)]
    shares = [*last["share"], last["remainder"]]
    most = _degrees(last)[shares.index(max(shares))]
    lead = f"At step {max(steps):,} most of the equivariance error, {share(max(shares))} %, is of Wigner degree {most}."
    head = ["step", "percent of the loss", *_degrees(last)]
    return lead, [Table(head, rows, "Percent of the equivariance error at each Wigner degree, ± standard error.")]


def _heads(steps: Mapping[int, Values], related: Values) -> tuple[str, list[Table]]:
    rows = [
        [f"{step:,}", digits(v["percent"]), digits(v["equivariance"], v["equivariance_error"]),
         *(digits(v["elsewhere"][key]) for key in ("form", "variance", "features", "alignment"))]
        for step, v in steps.items()
    ]  # fmt: skip
    head = ["step", "percent", "equivariance error", "exact form", "weight variance", "features", "alignment"]
    caption = (
        "Error as measured with rotations on the tracked samples; the form and its three factors (form = variance × "
        "features × alignment) on other samples."
    )
    tables = [Table(head, rows, caption)]
    if related:
        tables.append(relation_table(related, ("weight variance", "exact form", "features", "alignment")))
    return _head_verdict(steps, related), tables


def _head_verdict(steps: Mapping[int, Values], related: Values) -> str:
    """Whether the plain variance or the exact form explains the error once the trend is out, and what changed most."""
    positive = [values for values in steps.values() if (values["equivariance"] or 0) > 0]
    usable = [values for values in positive if values["elsewhere"]["alignment"]]
    sentences = []
    if len(usable) >= 2:
        first, last = usable[0], usable[-1]
        falls = {
            key: -math.log10(last["elsewhere"][key] / first["elsewhere"][key])
            for key in ("variance", "features", "alignment")
        }
        whole = sum(falls.values())
        parts = ", ".join(f"{name} {value:+.2f}".replace("-", "−") for name, value in falls.items())
        sentences.append(
            f"From the first to the last of these steps the form fell by {whole:.2f} powers of ten; its factors give "
            f"{parts} (+ lowers the error)."
        )
    names = ("equivariance error ~ weight variance", "equivariance error ~ exact form")
    if all(name in related for name in names):
        plain, form = (related[name] for name in names)
        told = [
            f"{what} correlates with the error by {interval(values['partial'])} given log step and by "
            f"{interval(values['differences'])} in first differences"
            for what, values in (("the plain weight variance", plain), ("the exact form", form))
        ]
        better = number(form["differences"]["low"]) > number(plain["differences"]["high"])
        ends = "the form explains the error, the variance does not" if better else "the two are not told apart"
        sentences.append(f"With the common trend taken out {told[0]}; {told[1]}: {ends}.")
    return " ".join(sentences) or "Too few steps were analysed for a verdict."


Maker = Callable[[Mapping[int, Values], Values], tuple[str, list[Table]]]
MAKERS: dict[str, tuple[str, Maker]] = {
    "gradients": ("Gradients of the two losses", curvature.gradients),
    "hessian": ("Curvature of the two losses", curvature.hessian),
    "landscape": ("Landscapes of the two losses", curvature.landscape),
    "conditioning": ("Condition numbers of the two losses in the head", conditioning.conditioning),
    "heads": ("The head: weights, features, and the error they cause", _heads),
    "layers": ("Inside the network: where symmetry is lost and won back", _layers),
    "spectrum": ("The equivariance error by Wigner degree", _spectrum),
}
