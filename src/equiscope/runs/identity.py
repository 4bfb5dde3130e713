"""What a run is bound to: everything of it must agree with the checksummed records it began with."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from equiscope.errors import RunError
from equiscope.records import Record, plain

# Facts of a data set that another machine or place may change.
_FREE = ("path", "versions", "n", "kind", "sha")


def data_checksum(task: Any) -> str | None:
    """SHA-256 of the data of a prepared task; None for one that gives none."""
    found = getattr(task, "checksum", None)
    return str(found()) if found is not None else None


def check_data(task: Any, entries: Sequence[Record]) -> None:
    """The data of a prepared task are those of its run.

    A run of before, or of a task without a checksum, is told by its description alone, which may differ for other
    reasons: then a warning says so.

    Raises:
        RunError: they are others.
    """
    due = next((r["data_sha256"] for r in entries if r["kind"] in ("run", "resume") and r.get("data_sha256")), None)
    found = data_checksum(task)
    if due is not None and found is not None:
        if found != due:
            raise RunError(
                f"the data are not those the run began with: their SHA-256 is {found[:16]}…, the records say "
                f"{due[:16]}…; put the former data back, or begin another run=NAME"
            )
        return
    written = next((r for r in entries if r["kind"] == "data"), None)
    if written is None:
        return
    now = plain(task.describe(), "data")
    differs = [k for k in sorted(written.keys() | now.keys()) if k not in _FREE and written.get(k) != now.get(k)]
    if differs:
        warnings.warn(
            f"the data may not be those the run began with, which recorded no checksum of them: {', '.join(differs)} "
            "differ from its records"
        )
