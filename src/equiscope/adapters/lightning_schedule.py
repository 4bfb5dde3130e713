"""When a Lightning run is measured, and whether that will say anything about its end."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Any

from equiscope.errors import InputError, check_count

LAST_DECADE = 12


class Schedule:
    """Which optimizer steps are measured.

    Raises:
        InputError: for anything but ``"validation"``, ``"log"``, a positive integer or a sequence of steps >= 0.
    """

    def __init__(self, when: str | int | Sequence[int], per_decade: int = 8):
        self._every: int | None = None
        self._steps: list[int] = []
        if when == "log":
            check_count("per_decade", per_decade, 1)
            spaced = {round(10 ** (k / per_decade)) for k in range(LAST_DECADE * per_decade + 1)}
            self._steps = sorted({0, *spaced})
        elif isinstance(when, int) and _is_step(when) and when > 0:
            self._every = when
        elif isinstance(when, Sequence) and not isinstance(when, str) and when and all(map(_is_step, when)):
            self._steps = sorted(set(when))
        elif when != "validation":
            raise InputError(
                f"when must be 'validation', 'log', a number of steps >= 1 or a sequence of steps >= 0, got {when!r}"
            )

    def due(self, after: int, step: int) -> bool:
        """Whether a scheduled step s lies in after < s <= step."""
        return self._count(step) > self._count(after)

    def last(self, step: int) -> int | None:
        """The largest scheduled step <= ``step``; None before the first one."""
        if self._every is not None:
            return step // self._every * self._every
        before = bisect.bisect_right(self._steps, step)
        return self._steps[before - 1] if before else None

    def _count(self, step: int) -> int:
        """Number of scheduled steps <= step."""
        if self._every is not None:
            return step // self._every + 1
        return bisect.bisect_right(self._steps, step)


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def unmeasured(trainer: Any, when: Any, schedule: Schedule) -> str:
    """Why this fit, as far as it can be foreseen, measures nothing or not its last step; empty if it does."""
    remedy = "give when= steps or 'log'"
    if when == "validation" and not _validates(trainer):
        return (
            "nothing will be measured, as this fit has no validation (no validation_step, no validation data, or "
            f"limit_val_batches=0): pass val_dataloaders to fit, or {remedy}"
        )
    last = trainer.estimated_stepping_batches
    if not 0 < last < math.inf:
        return ""
    if when != "validation":
        found = schedule.last(int(last))
        what = "nothing will be measured" if found is None else f"step {found} is the last to be measured"
        return "" if found == last else f"{what}, training ends at step {last}: name it too, when=[…, {last}]"
    if _ends_with_validation(trainer, int(last)):
        return ""
    return (
        f"the last step, {last}, will not be measured, as no validation falls on it: choose check_val_every_n_epoch "
        f"and val_check_interval so that one does, or {remedy}"
    )


def _validates(trainer: Any) -> bool:
    # The batches of each loader are known once they have been loaded.
    return trainer.enable_validation and (not trainer.num_val_batches or sum(trainer.num_val_batches) > 0)


def _ends_with_validation(trainer: Any, last: int) -> bool:
    """Whether Lightning validates after its last optimizer step; True where that depends on the data."""
    batches, every = trainer.num_training_batches, trainer.val_check_batch
    if every is None or not math.isfinite(every) or not math.isfinite(batches):
        return True
    steps = math.ceil(batches / trainer.accumulate_grad_batches)
    epochs, rest = divmod(last, steps)
    inside = rest * trainer.accumulate_grad_batches or batches
    whole = epochs + (rest > 0)
    if trainer.check_val_every_n_epoch is None:
        return ((whole - 1) * batches + inside) % every == 0
    return whole % trainer.check_val_every_n_epoch == 0 and inside % every == 0
