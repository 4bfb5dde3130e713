"""What a run shows in the terminal: one progress bar, no library banners."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import pytorch_lightning as pl
from tqdm.auto import tqdm

from equiscope.runs.tracker import Tracker

# Advice about data loaders, loggers and resuming that does not hold for batches made on the fly by step number.
_POINTLESS = (
    "does not have many workers", "is not resumable", "litlogger", "Checkpoint directory .* exists",
    "in eval mode at the start of training", "`weights_only` was not set", "isinstance.treespec, LeafSpec",
    "GPU available but not used", "smaller than the logging interval",
)  # fmt: skip


def shown(wanted: bool | None) -> bool:
    """Whether progress is shown: as asked, else in a terminal only."""
    return sys.stderr.isatty() if wanted is None else wanted


def quiet() -> None:
    """Silence Lightning's banners, tips and those warnings that tell the user nothing."""
    # The package `lightning`, which nequip imports, takes the banners over once it is loaded.
    banners = ("pytorch_lightning.utilities", "lightning.pytorch.utilities", "lightning.fabric.utilities")
    for name in ("pytorch_lightning", "lightning_fabric", *(f"{place}.rank_zero" for place in banners)):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _POINTLESS:
        warnings.filterwarnings("ignore", message=f".*{message}")


class Bar(pl.Callback):
    """One bar over the steps with the loss and the last percent."""

    def __init__(self, tracker: Tracker, max_steps: int, show: bool) -> None:
        self._tracker, self._max_steps, self._show = tracker, max_steps, show
        self._bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._show:
            done, most = trainer.global_step, self._max_steps
            self._bar = tqdm(total=most, initial=done, desc="training", unit="step", smoothing=0.05)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        if self._bar is None:
            return
        self._bar.update(1)
        # Reading the loss stalls a GPU, so it is shown now and then only.
        if trainer.global_step % 10 == 0:
            text = {"loss": f"{float(outputs['loss']):.3g}"}
            if self._tracker.latest is not None:
                result = self._tracker.latest["result"]
                percent, skill = result["percent"], result["r2"]
                text["equivariance"] = "–" if percent is None else f"{percent:.2g} %"
                text["R²"] = "–" if skill is None else f"{skill:.2f}"
            self._bar.set_postfix(text)

    def on_train_end(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_exception(self, *_: Any) -> None:
        self.on_train_end()
