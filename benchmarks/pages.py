"""Pages of results and the records behind them: a script measures into ``results/NAME.json``, and its page
``results/NAME.md`` is written from that file alone, so that it can be made again, and checked, without a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from equiscope.writing import write_atomically

RESULTS = Path(__file__).parent / "results"


def stored(name: str) -> Any:
    """The committed record of a page."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def store(path: Path, record: Any, **form: Any) -> None:
    """A record as JSON, replaced whole: an interruption leaves the one before."""
    write_atomically(path, (json.dumps(record, **(form or {"indent": 1})) + "\n").encode())


def keep(name: str, page: Callable[[Any], str], record: Any = None) -> None:
    """Store the record, if there is a new one, and write and print the page from what is stored."""
    RESULTS.mkdir(exist_ok=True)
    if record is not None:
        store(RESULTS / f"{name}.json", record)
    text = page(stored(name))
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of a table; bars in its cells are no borders."""
    cells = ([str(cell).replace("|", r"\|") for cell in row] for row in (heads, ["---"] * len(heads), *rows))
    return [f"| {' | '.join(row)} |" for row in cells]
