"""Writes what the committed runs' analyses say into benchmarks/results/analyses.md, from its last part's heading on.

    python benchmarks/analyses.py
"""

from __future__ import annotations

from pages import RESULTS, table

from equiscope import records
from equiscope.report.kinds import sections

PAGE, FIRST = RESULTS / "analyses.md", "Written by `benchmarks/analyses.py`"


def page(text: str) -> str:
    """The page with its last part made anew from ``results/runs``."""
    heading = "## Analyses of the committed runs\n"
    lines = [heading, f"{FIRST} from the records in `benchmarks/results/runs`.", ""]
    for folder in sorted((RESULTS / "runs").glob("*/*")):
        for found in sections(records.read(folder / "records.jsonl")):
            lines += [f"### {folder.parent.name}/{folder.name}: {found.kind.title}, {found.probe}", "", found.lead, ""]
            for one in found.tables:
                lines += [*table(one.head, one.rows), "", *([one.caption, ""] if one.caption else [])]
    return text.split(heading)[0] + "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
