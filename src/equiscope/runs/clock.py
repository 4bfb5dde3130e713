"""The account of a run's time: training, tracking and everything, carried over restarts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from equiscope.runs.devices import settle


class Clock:
    """Seconds of training (tracking excluded), of tracking, and of the run as a whole.

    Attributes:
        track: seconds spent on tracking so far.
    """

    def __init__(self) -> None:
        self._train, self.track, self._wall = 0.0, 0.0, 0.0
        self._born = time.perf_counter()
        self._running_since: float | None = None

    @property
    def train(self) -> float:
        """Seconds of training so far."""
        running = 0.0 if self._running_since is None else time.perf_counter() - self._running_since
        return self._train + running

    @property
    def wall(self) -> float:
        """Seconds of the run so far, preparation included, of all its processes one after the other."""
        return self._wall + time.perf_counter() - self._born

    @property
    def share(self) -> float:
        """Tracking as a share of training and tracking."""
        both = self.train + self.track
        return self.track / both if both > 0 else 0.0

    def start(self) -> None:
        """Training begins or goes on."""
        self._running_since = time.perf_counter()

    def stop(self) -> None:
        """Training pauses or ends."""
        self._train, self._running_since = self.train, None

    @contextmanager
    def tracking(self, device: torch.device) -> Iterator[None]:
        """Time spent inside counts as tracking, on a GPU once its queue of work is done."""
        settle(device)
        was_running = self._running_since is not None
        self.stop()
        begun = time.perf_counter()
        try:
            yield
        finally:
            settle(device)
            self.track += time.perf_counter() - begun
            if was_running:
                self.start()

    def state_dict(self) -> dict[str, Any]:
        """Seconds so far."""
        return {"train": self.train, "track": self.track, "wall": self.wall}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the seconds of an earlier process."""
        self._train, self.track, self._wall = float(state["train"]), float(state["track"]), float(state["wall"])
