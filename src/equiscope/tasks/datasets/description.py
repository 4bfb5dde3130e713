"""What a data set is, from one pass over its frames: units, counts, rejections, labels, orientation."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from equiscope.files import REMARK
from equiscope.symmetry.orientation import Orientation, OrientationSum
from equiscope.tasks.datasets.blocks import SYMBOLS, Block
from equiscope.tasks.datasets.orientation_bias import TOO_FEW, BiasTest, OrientationBias
from equiscope.tasks.datasets.reading import told


@dataclass(frozen=True)
class Description:
    """Facts about the frames that were taken.

    Attributes:
        frames: how many; groups: of how many molecules, materials or pieces of a trajectory.
        atoms: fewest and most atoms of a frame.
        elements: symbol → frames that hold it; charges: total charge → frames, where the source says it.
        labels: label → frames that have it (energy, forces, stress), and ``cell`` for periodic frames.
        force_rms: eV/Å, root mean square of the force components; force_max: eV/Å, largest force on an atom.
        energy_per_atom: eV, smallest and largest.
        net_force: eV/Å, largest |Σ forces| / atoms of a frame: 0 for a molecule on its own.
        orientation: None if no frame has a longest axis.
        orientation_bias: whether a classifier tells the frames from turned ones; None where there are too few.
        units: of the file, and how they are known.
        rejected: reason → frames (or groups, files) left out; remarks: what was remarkable → lines (or frames) read.
    """

    frames: int
    groups: int
    atoms: tuple[int, int]
    elements: Mapping[str, int]
    labels: Mapping[str, int]
    force_rms: float | None
    force_max: float | None
    energy_per_atom: tuple[float, float] | None
    net_force: float | None
    charges: Mapping[int, int]
    orientation: Orientation | None
    orientation_bias: OrientationBias | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    remarks: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        fewest, most = self.atoms
        lines = [
            f"{self.frames:,} frames of {self.groups:,} groups, {fewest} to {most} atoms",
            "elements (frames): " + ", ".join(f"{name} {count:,}" for name, count in self.elements.items()),
            "labels (frames): " + (", ".join(f"{name} {count:,}" for name, count in self.labels.items()) or "none"),
        ]
        if self.energy_per_atom:
            lines.append("energy per atom {:.6g} to {:.6g} eV".format(*self.energy_per_atom))
        if self.force_rms is not None:
            text = f"forces: rms {self.force_rms:.4g} eV/Å, largest {self.force_max:.4g} eV/Å, "
            lines.append(text + f"largest net force per atom {self.net_force:.2g} eV/Å")
        if self.charges:
            lines.append("total charge (frames): " + ", ".join(f"{q:+d} {n:,}" for q, n in self.charges.items()))
        lines.append(str(self.orientation) if self.orientation else "orientation tensor: no frame has a longest axis")
        lines.append(str(self.orientation_bias or TOO_FEW))
        known = self.units.get("known from")
        stated = ", ".join(f"{name} {unit}" for name, unit in self.units.items() if name != "known from")
        lines.append(f"units of the file: {stated or 'none'}" + (f" ({known})" if known else ""))
        return "\n".join([*lines, *told({**self.rejected, **self.remarks})])

    def to_dict(self) -> dict[str, Any]:
        """Plain types for a record."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if not name.startswith("orientation")}
        for name in ("elements", "labels", "units", "rejected", "remarks"):
            plain[name] = dict(plain[name])
        plain |= {"atoms": list(self.atoms), "energy_per_atom": self.energy_per_atom and list(self.energy_per_atom)}
        plain["charges"] = {str(charge): frames for charge, frames in self.charges.items()}
        for name in ("orientation", "orientation_bias"):
            found = getattr(self, name)
            plain[name] = found.to_dict() if found else None
        return plain


class Describer:
    """Takes in blocks and gives a :class:`Description`; it keeps 8 bytes a group and some thousand frames."""

    def __init__(self) -> None:
        self._frames, self._groups = 0, set[int]()
        self._elements, self._labels, self._charges = Counter[int](), Counter[str](), Counter[int]()
        self._atoms, self._energy = [2**31, 0], [math.inf, -math.inf]
        self._squares, self._components, self._largest, self._net = 0.0, 0, 0.0, 0.0
        self._orientation, self._bias = OrientationSum(), BiasTest()

    def add(self, block: Block) -> None:
        """Take in a block."""
        frames, atoms = len(block), len(block.numbers)
        self._frames += frames
        self._groups.add(int.from_bytes(hashlib.blake2b(block.group.encode(), digest_size=8).digest(), "big"))
        self._atoms = [min(self._atoms[0], atoms), max(self._atoms[1], atoms)]
        self._elements.update(dict.fromkeys(np.unique(block.numbers).tolist(), frames))
        labels = (name for name in ("energy", "forces", "stress", "cell") if getattr(block, name) is not None)
        self._labels.update(dict.fromkeys(labels, frames))
        if block.charge is not None:
            self._charges[block.charge] += frames
        if block.energy is not None:
            per_atom = block.energy / atoms
            self._energy = [min(self._energy[0], float(per_atom.min())), max(self._energy[1], float(per_atom.max()))]
        if block.forces is not None:
            self._squares += float(np.square(block.forces).sum())
            self._components += block.forces.size
            self._largest = max(self._largest, float(np.linalg.norm(block.forces, axis=-1).max()))
            self._net = max(self._net, float(np.linalg.norm(block.forces.sum(1), axis=-1).max()) / atoms)
        self._orientation.add(torch.from_numpy(block.positions))
        self._bias.add(block.group, block.numbers, block.positions, block.cell)

    def result(self, units: Mapping[str, str], rejected: Mapping[str, int]) -> Description:
        """Of all blocks so far."""
        forces, most_first = self._components > 0, dict(sorted(rejected.items(), key=lambda item: -item[1]))
        return Description(
            frames=self._frames,
            groups=len(self._groups),
            atoms=(self._atoms[0], self._atoms[1]) if self._frames else (0, 0),
            elements={SYMBOLS[z]: count for z, count in sorted(self._elements.items())},
            labels=dict(self._labels),
            force_rms=math.sqrt(self._squares / self._components) if forces else None,
            force_max=self._largest if forces else None,
            energy_per_atom=(self._energy[0], self._energy[1]) if "energy" in self._labels else None,
            net_force=self._net if forces else None,
            charges=dict(sorted(self._charges.items())),
            orientation=self._orientation.result(),
            orientation_bias=self._bias.result(),
            units=dict(units),
            rejected={why: count for why, count in most_first.items() if not why.startswith(REMARK)},
            remarks={why: count for why, count in most_first.items() if why.startswith(REMARK)},
        )


def describe(blocks: Iterable[Block], units: Mapping[str, str], rejected: Mapping[str, int]) -> Description:
    """The description of a stream; ``rejected`` is read after the last block."""
    describer = Describer()
    for block in blocks:
        describer.add(block)
    return describer.result(units, rejected)
