"""Reader of the data files this package makes: labelled frames of the force field, conformers of the voxels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiscope.errors import DataError
from equiscope.tasks.datasets import store
from equiscope.tasks.datasets.blocks import Block
from equiscope.tasks.datasets.reading import block, pieces

COUNTED = ("frames", "conformers")


@dataclass(frozen=True)
class Made:
    """A file of ``equiscope data forcefield`` or of the voxel task; ``path`` of the ``.npz``. Groups are molecules."""

    path: str | Path

    def blocks(self, rejected: Counter[str]) -> Iterator[Block]:
        """One molecule after another.

        Raises:
            DataError: no such file, or none that this package made. IntegrityError: it is damaged.
        """
        arrays, metadata = store.read(self.path)
        counted = next((name for name in COUNTED if name in arrays), None)
        if counted is None:
            held = metadata.get("format", "no format")
            raise DataError(f"{self.path} holds {held!r}, neither {' nor '.join(COUNTED)} of molecules")
        frame = atom = row = 0
        for molecule, (atoms, count) in enumerate(zip(arrays["atoms"], arrays[counted], strict=True)):
            n, frames = int(atoms), int(count)
            numbers = arrays["species"][atom : atom + n]
            for piece in pieces(frames, n):
                first, here = row + piece.start * n, piece.stop - piece.start
                vectors: dict[str, Any] = {
                    name: arrays[name][first : first + here * n].reshape(here, n, 3).astype(np.float64)
                    for name in ("positions", "forces")
                    if name in arrays
                }
                energy = arrays["energy"][frame + piece.start : frame + piece.stop] if "energy" in arrays else None
                yield block(f"molecule {molecule}", numbers, energy=energy, **vectors)
            frame, atom, row = frame + frames, atom + n, row + frames * n

    def units(self) -> dict[str, str]:
        """Those of everything this package makes."""
        return {"positions": "Å", "energy": "eV", "forces": "eV/Å", "known from": "this package made the file"}
