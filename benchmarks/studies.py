"""Puts the finished studies of a task among the committed results: page, figures and tables.

    python benchmarks/studies.py runs/studies/proteinflow-replicates runs/studies/proteinflow-data_size

The sections of these studies are made anew from their records. What the committed page says between its title and the first
sentence of every page, the words on what was run and found, is kept, and so are its sections of other studies; tests hold
the numbers of the words against the tables.
"""

import shutil
import sys
from pathlib import Path

from equiscope.report import study

RESULTS = Path(__file__).parent / "results" / "studies"
KEPT = ("figure.png", "costs.png", "table.csv")
FIRST = "Each run is measured on the same held-out samples"
LAST = "The paper: "


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
    """A page made anew with the words of the committed one, and its sections of studies that were not made anew."""
    title, rest = made.split(FIRST, 1)
    rest, paper = rest.split(LAST, 1)
    words = committed.split("\n", 1)[1].split(FIRST, 1)[0] if FIRST in committed else "\n"
    before = sections(committed.split(FIRST, 1)[1].split(LAST, 1)[0]) if FIRST in committed else {}
    new = sections(rest)
    body = "".join(f"\n## {heading}\n{text.rstrip()}\n\n" for heading, text in ({**before, **new}).items() if heading)
    return f"{title.rstrip()}\n{words}{FIRST}{new[''].rstrip()}\n{body}{LAST}{paper.rstrip()}\n"


def sections(text: str) -> dict[str, str]:
    """Heading -> what stands under it; what stands before the first one under ""."""
    first, *rest = text.split("\n## ")
    return {"": first} | {heading: body for heading, _, body in (part.partition("\n") for part in rest)}


if __name__ == "__main__":
    print(keep([Path(folder) for folder in sys.argv[1:]]))
