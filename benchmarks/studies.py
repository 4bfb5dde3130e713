"""Puts the finished studies of a task among the committed results: page, figures and tables.

    python benchmarks/studies.py runs/studies/proteinflow-replicates runs/studies/proteinflow-data_size

The page is made anew from the records of the studies. What stands in the committed one between its title and the first
sentence of every page, the words on what was run and found, is kept; tests hold its numbers against the tables.
"""

import shutil
import sys
from pathlib import Path

from equiscope.report import study

RESULTS = Path(__file__).parent / "results" / "studies"
KEPT = ("figure.png", "costs.png", "table.csv")
FIRST = "Each run is measured on the same held-out samples"


def keep(folders: list[Path], results: Path = RESULTS) -> Path:
    """The committed page of these studies, of one task, in the order given."""
    page = study.build(folders).with_suffix(".md")
    target = results / page.name
    for folder in folders:
        place = results / folder.name
        place.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            (place / name).unlink(missing_ok=True)
            if (folder / name).exists():
                shutil.copy(folder / name, place / name)
    target.write_text(with_words(page.read_text(), target.read_text() if target.exists() else ""))
    return target


def with_words(made: str, committed: str) -> str:
    """A page made anew with the words of the committed one."""
    title, rest = made.split(FIRST, 1)
    words = committed.split("\n", 1)[1].split(FIRST, 1)[0] if FIRST in committed else "\n"
    return title.rstrip() + "\n" + words + FIRST + rest.rstrip() + "\n"


if __name__ == "__main__":
    print(keep([Path(folder) for folder in sys.argv[1:]]))
