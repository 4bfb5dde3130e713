"""The page of what was run on a GPU, from the records beside it: benchmarks/results/gpu/index.html and README.md.

    python benchmarks/gpu_page.py

``runs.json`` names each run with its commit, card and what else was on it; ``records/`` holds what they wrote;
``times.json`` and the results of ``make gpu`` (``steps-*.json``), where there are any, the times of steps.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import steps

from equiscope.records import digest
from equiscope.report import chart
from equiscope.report.crossings import SKILL
from equiscope.report.curves import Curve, RunHistory, history
from equiscope.report.page import data_uri, page_environment
from equiscope.report.study import Point, Study, StudyRecord, draw
from equiscope.words import digits

PLACE = Path(__file__).parent / "results" / "gpu"

HEAD = ("probe", "step", "percent", "95 % interval", "R²", "skill")

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>equiscope on a GPU</title><style>{{ css }}</style></head><body><main>
<header><p class="eyebrow">equiscope · on a GPU</p>
<h1>The paper's sizes on one card: {{ hours }} GPU-hours so far</h1></header>
{% macro grid(head, rows) %}<div class="scroll" tabindex="0"><table class="wide"><thead><tr>
{% for name in head %}<th>{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody></table></div>{% endmacro %}
{% for text in intro %}<p>{{ text }}</p>{% endfor %}
{{ grid(summary.head, summary.rows) }}
{% for part in parts %}<section><h2>{{ part.title }}</h2>
{% for text in part.texts %}<p>{{ text }}</p>{% endfor %}
{% if part.picture is defined %}<figure><img class="wide" src="{{ part.picture }}" alt="Percent and R squared against training step">
<figcaption>Hollow marks: R² under 0.5.</figcaption></figure>{% endif %}
{% if part.picture is defined %}<details><summary>every measurement</summary>{{ grid(part.head, part.rows) }}</details>
{% else %}{{ grid(part.head, part.rows) }}{% endif %}</section>{% endfor %}
</main></body></html>
"""

PLAIN = """# The paper's sizes on one card: {{ hours }} GPU-hours so far

{% for text in intro %}
{{ text }}

{% endfor %}
| {{ summary.head|join(" | ") }} |
|{{ " --- |" * summary.head|length }}
{% for row in summary.rows %}
| {{ row|join(" | ") }} |
{% endfor %}
{% for part in parts %}

## {{ part.title }}
{% for text in part.texts %}

{{ text }}
{% endfor %}
{% if part.image is defined %}

![Percent and R² against training step]({{ part.image }})

Hollow marks: R² under 0.5.
{% endif %}

| {{ part.head|join(" | ") }} |
|{{ " --- |" * part.head|length }}
{% for row in part.rows %}
| {{ row|join(" | ") }} |
{% endfor %}
{% endfor %}
"""


def read(name: str) -> tuple[RunHistory, list[int]]:
    """A run, and the lines of its records whose checksum does not match what they say."""
    book = [json.loads(line) for line in (PLACE / "records" / f"{name}.jsonl").read_bytes().splitlines()]
    return history(book), [number for number, record in enumerate(book, 1) if record["sha"] != digest(record)]


def run_part(told: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """What the page shows of a run, and the seconds that it had the card."""
    run, changed = read(told["records"])
    assert run.headline is not None
    names = told.get("probes") or [run.headline.probe]
    points = tuple(Point(name, (replace(run, headline=run.curves[name]),), ()) for name in names)
    study = Study(StudyRecord(run.run.task, told["label"], "", ()), points)
    picture = chart.save({told["records"]: draw(study)}, PLACE)[told["records"]]
    seconds = run.times["train"] + run.times["track"]
    texts = [
        f"{run.run.parameters:,} parameters, {told['data']}. Step {run.last_step:,} of {run.planned_steps:,}; training "
        f"{run.times['train']:.0f} s, measurements {run.times['track']:.0f} s.",
        f"{told['card']}, commit {told['commit']}, {told['contention']}: seconds are upper bounds, and the learning rate "
        "was not annealed to its end.",
    ]
    if changed:
        lines = ", ".join(map(str, changed))
        texts.append(
            f"In this copy of the records the checksum of line {lines} (settings of the run) does not match its content: "
            "text was replaced after the run. The line is in the writer's own form to the byte, so no number was printed "
            "otherwise; no other character in any one place, and none left out, restores the checksum, so no bit flipped; "
            "the references in it are those of the commit. Of its entries only data.path names a place on a machine, and "
            "it stands in config.yaml in the same short form: that it was shortened for this copy is likely and cannot be "
            "shown. All other lines are as the run wrote them."
        )
    found = {name: _rows(name, run.curves[name]) for name in names}
    content = {
        "title": told["label"], "texts": texts, "picture": data_uri(picture), "image": picture.name, "head": HEAD,
        "rows": [row for own in found.values() for row in (own if len(found) == 1 else own[-8:])],
        "last": [(told["label"], *own[-1][:5]) for own in found.values()],
    }  # fmt: skip
    return content, seconds


def _rows(name: str, curve: Curve) -> list[tuple[str, ...]]:
    table = zip(curve.step, curve.percent, curve.low, curve.high, curve.r2, strict=True)
    return [
        (name, f"{step:,}", f"{percent:.3g} %", f"[{low:.2g}, {high:.2g}]", f"{r2:.3f}", "" if r2 >= SKILL else "under 0.5")
        for step, percent, low, high, r2 in table
    ]


def times_parts(times: dict[str, Any]) -> list[dict[str, Any]]:
    """Step times asked beside seen, and what rotations in one call take."""
    told = f"{times['machine']}, commit {times['commit']}. {times['note']}"
    paper_sizes = [
        (one["model"], one["seen_ms"], one["other"] or "–", str(one["counted_ms"] or "–"), str(one["asked_ms"] or "–"), "open")
        for one in times["steps"]
    ]
    found = []
    for file in sorted(PLACE.glob("steps-*.json")):
        book = json.loads(file.read_text())
        texts = [f"{book['hardware']}, {book['threads']} thread(s); commit {book['against']} and this one in turn, the "
                 "median of pairs with the lowest and the highest."]  # fmt: skip
        found.append({"title": f"Steps beside the code before, {book['device']}", "texts": texts,
                      "head": steps.HEAD, "rows": [steps.cells(row) for row in book["rows"]]})  # fmt: skip
    passes = [
        (one["model"], *(f"{ms:g} ({ms / count:.1f} each)" for ms, count in zip(one["ms"], one["rotations"], strict=True)))
        for one in times["passes"]
    ]
    return [
        {"title": "A training step", "texts": [told, "“Now” is open: no card was at hand since the steps were changed."],
         "head": ("model", "before, ms", "also before, ms", "by counting, ms", "asked, ms", "now, ms"), "rows": paper_sizes},
        *found,
        {"title": "A pass without gradients", "texts": ["Milliseconds of a call with so many rotations of the batch in it."],
         "head": ("model", "one", "4", "12", "24"), "rows": passes},
    ]  # fmt: skip


def main() -> None:
    """Write both pages and the pictures."""
    made = [run_part(told) for told in json.loads((PLACE / "runs.json").read_text())]
    hours = digits(sum(seconds for _, seconds in made) / 3600)
    intro = [
        "Runs of this project at the paper's sizes, as far as a lent card allowed. Each is named with its commit, its card and "
        "what else was on the card; hours of runs side by side all count. The ladder that goes on from here is the study "
        "paper_scale. The last measurement of each:",
    ]
    summary = {"head": ("run", *HEAD[:5]), "rows": [row for part, _ in made for row in part["last"]]}
    parts = [part for part, _ in made] + times_parts(json.loads((PLACE / "times.json").read_text()))
    content = {"hours": hours, "intro": intro, "parts": parts, "summary": summary}
    environment = page_environment()
    source, _, _ = environment.loader.get_source(environment, "report.css")
    (PLACE / "index.html").write_text(environment.from_string(PAGE).render(**content, css=source))
    plain = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    (PLACE / "README.md").write_text(plain.from_string(PLAIN).render(**content))
    print(PLACE / "index.html")


if __name__ == "__main__":
    main()
