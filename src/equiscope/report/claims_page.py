"""The paper's report: one page through the claims of its abstract, our numbers beside its numbers, a plain verdict."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from equiscope import records as record_files
from equiscope import tasks
from equiscope.report import authors, paper, paper_figures
from equiscope.report.claims import Claim, claims
from equiscope.report.evidence import AGREES, DIFFERS, EQUAL, MISSING, UNDECIDED, Evidence, Row, gather
from equiscope.report.page import data_uri, page_environment
from equiscope.report.sentences import share_text
from equiscope.words import as_csv, r2

#: How each verdict looks on the page.
CLASSES = {AGREES: "agrees", DIFFERS: "differs", EQUAL: "equal", UNDECIDED: "open", MISSING: "missing"}
RUN_COLUMNS = ("task", "run", "model", "parameters", "steps", "share of the loss at the end", "R²", "symmetric")
_CURVE = ("percent", "low", "high", "r2", "total", "twirled", "equivariance", "floor")


def build_paper(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Write ``paper.html``, ``figures/*.png`` and ``.pdf``, ``tables/*.csv`` into ``out``; the path of the page.

    Everything comes from the records of the runs, and the page holds all it shows: no network, no other file.

    Args:
        folders: of the runs, and of studies.
        out: the folder that is written.

    Raises:
        InputError: if no run has measurements.
        IntegrityError: for damaged records.
    """
    evidence, place = gather(folders), Path(out)
    found = claims(evidence, authors.judged())
    panels = paper_figures.save(evidence, place / "figures")
    (place / "tables").mkdir(parents=True, exist_ok=True)
    for name, rows in _tables(evidence, found).items():
        record_files.write_atomically(place / "tables" / f"{name}.csv", as_csv(rows))
    page = page_environment().get_template("paper.html.j2").render(**_content(evidence, found, panels))
    target = place / "paper.html"
    record_files.write_atomically(target, page.encode())
    return target


def _content(evidence: Evidence, found: Sequence[Claim], panels: Sequence[paper_figures.PaperFigure]) -> dict[str, Any]:
    titles = {task: tasks.words(task).title for task in paper.TASKS}
    return {
        "claims": found,
        "look": lambda verdict: CLASSES.get(verdict.partition(":")[0], "open"),
        "told": lambda verdict: _with_titles(verdict, titles),
        "source": authors.data(),
        "tasks": titles,
        "panels": {
            claim.key: [(panel, data_uri(panel.png)) for panel in panels if panel.claim == claim.key] for claim in found
        },
        "run_columns": RUN_COLUMNS,
        "runs": run_rows(evidence),
        "left_out": evidence.left_out,
        "absent": [words for task, words in titles.items() if not evidence.of(task, None)],
    }


def _with_titles(verdict: str, titles: dict[str, str]) -> str:
    """A verdict with the titles of its tasks: at most three of them, else two and how many more."""
    word, colon, names = verdict.partition(": ")
    if not colon:
        return verdict
    told = [", ".join(titles.get(part, part) for part in name.split(", ")) for name in names.split("; ")]
    most = 3 if len(told) == 3 else 2
    return f"{word}: {'; '.join(told[:most])}{f' and {len(told) - most} more' if len(told) > most else ''}"


def run_rows(evidence: Evidence) -> list[tuple[str, ...]]:
    """A row of :data:`RUN_COLUMNS` for each run."""
    return [
        (run.task, run.short, run.model, f"{run.parameters:,}", f"{run.last_step:,}", share_text(run.result),
         r2(run.result.r2), "yes" if run.symmetric else "no")
        for run in evidence.runs
    ]  # fmt: skip


def _tables(evidence: Evidence, found: Sequence[Claim]) -> dict[str, list[tuple[Any, ...]]]:
    """name -> rows of a CSV file, the names of its columns first."""
    curves = [
        (run.task, run.name, name, int(step), *map(float, values))
        for run in evidence.runs
        for name, curve in run.told.curves.items()
        for step, *values in zip(curve.step, *(getattr(curve, column) for column in _CURVE), strict=True)
    ]
    return {
        "claims": [
            ("claim", "title", *(field.name for field in fields(Row))),
            *((claim.key, claim.title, *astuple(row)) for claim in found for row in claim.rows),
        ],
        "authors": [
            ("claim", "title", *(field.name for field in fields(Row))),
            *((claim.key, claim.title, *astuple(row)) for claim in found for row in claim.authors),
        ],
        "verdicts": [
            ("claim", "title", "verdict", "summary", "runs that would decide it", "verdict on the authors' curves"),
            *((claim.key, claim.title, claim.verdict, claim.summary, "; ".join(claim.missing), claim.authors_verdict)
              for claim in found),
        ],
        "runs": [RUN_COLUMNS, *run_rows(evidence)],
        "curves": [("task", "run", "probe", "step", *_CURVE), *curves],
    }
