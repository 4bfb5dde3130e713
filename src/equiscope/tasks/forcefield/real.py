"""Published data sets for the force field: converted once, then batches straight from memory-mapped arrays."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equiscope.errors import DataError, InputError
from equiscope.files import existing
from equiscope.symmetry.orientation import Orientation
from equiscope.tasks.datasets import catalogue, mapped, processes, stream
from equiscope.tasks.datasets.blocks import Block
from equiscope.tasks.datasets.description import Describer
from equiscope.tasks.datasets.splits import split_molecules
from equiscope.tasks.forcefield.data import describe_frames, reference_energies
from equiscope.tasks.forcefield.edges import ORGANIC
from equiscope.tasks.guards import chosen
from equiscope.tasks.molecules.padded import Parted, check_batch

# Frames whose atoms are looked at together: bounds the memory of what is computed over the whole set.
_AT_ONCE = 1 << 14
_ORGANIC_ONLY, _EVERYTHING = stream.Rules(elements=ORGANIC), stream.Sample()


@dataclass(frozen=True)
class RealData:
    """Which frames of which file.

    Attributes:
        format: see :data:`equiscope.tasks.datasets.catalogue.FORMATS`.
        path: of the file or folder.
        options: settings of the format.
        rules: what a frame must be to enter; elements of :data:`ORGANIC` unless said otherwise.
        sample: which of the accepted frames are taken. Its seed is also that of the split.
        store: folder of the converted frames; None for ``data/<format>-<file>-<digest>.frames``.
    """

    format: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rules: stream.Rules = _ORGANIC_ONLY
    sample: stream.Sample = _EVERYTHING
    store: str | None = None

    @classmethod
    def from_settings(cls, data: Mapping[str, Any]) -> RealData:
        """From the ``data`` section of a configuration; an InputError for an unknown format or setting, or no path."""
        name = str(data.get("format"))
        own = catalogue.settings(name)
        general = ("format", "path", "store", *(f.name for kind in (stream.Rules, stream.Sample) for f in fields(kind)))
        if unknown := sorted(set(data) - {*general, *own}):
            raise InputError(f"unknown data settings {unknown} for {name}; known are {sorted({*general, *own})}")
        if not data.get("path"):
            raise InputError(f"data={name} needs the path of the file: data.path=…")
        rules = {"elements": ORGANIC, **chosen(stream.Rules, "data", data)}
        if isinstance(most := data.get("max_force"), int):
            # A whole number stays one: the name of the folder depends on it.
            rules["max_force"] = most
        sample = stream.Sample(**chosen(stream.Sample, "data", data))
        options = {key: data[key] for key in own if data.get(key) is not None}
        made = cls(name, str(data["path"]), options, stream.Rules(**rules), sample, data.get("store"))
        catalogue.source(name, made.path, options)
        return made

    def content(self) -> dict[str, Any]:
        """What decides the converted frames, as plain types: all settings, and what tells the file apart."""
        chosen = {**asdict(self), "file": _identity(Path(self.path))}
        del chosen["store"], chosen["path"]
        plain: dict[str, Any] = json.loads(json.dumps(chosen))
        return plain

    def resolved_store(self) -> Path:
        """``store``, or a name under ``data`` that any other setting would change."""
        if self.store is not None:
            return Path(self.store)
        digest = hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()[:8]
        return Path("data") / f"{self.format}-{Path(self.path).name.split('.')[0]}-{digest}.frames"


def _identity(path: Path) -> dict[str, Any]:
    """Name, size and a digest of the first and the last mebibyte: published files are too large to be read for it."""
    existing(path, "data set")
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file())
        return {"name": path.name, "files": len(files), "size": sum(p.stat().st_size for p in files)}
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        for start in (0, max(0, size - (1 << 20))):
            file.seek(start)
            digest.update(file.read(1 << 20))
    return {"name": path.name, "size": size, "ends": digest.hexdigest()[:16]}


def convert(data: RealData, progress: bool = True) -> Path:
    """Convert the data set if that is not done yet; the folder of the frames. Two calls for one folder wait for one
    another.

    Raises:
        DataError: no such file; it is periodic or has no forces; nothing is left of it; the folder holds other frames.
    """
    path, content = data.resolved_store(), data.content()
    processes.made_once(path, lambda: _convert(data, path, content, progress))
    found = mapped.metadata(path).get("config")
    if found != content:
        raise DataError(f"{path} was converted with other settings ({found}); give another data.store, or delete it")
    return path


def _convert(data: RealData, path: Path, content: dict[str, Any], progress: bool) -> None:
    from tqdm import tqdm

    source, rejected, describer = catalogue.source(data.format, data.path, data.options), Counter[str](), Describer()
    about: dict[str, Any] = {"config": content}

    def blocks() -> Iterator[Block]:
        with tqdm(unit=" frames", desc=f"converting {Path(data.path).name}", disable=not progress) as bar:
            for block in stream.read(source, data.rules, data.sample, rejected):
                describer.add(block)
                bar.update(len(block))
                yield block
        about["description"] = describer.result(source.units(), rejected).to_dict()

    try:
        mapped.write(path, blocks(), about)
    except DataError as error:
        dropped = f" (left out: {dict(rejected)})" if rejected else ""
        raise DataError(f"{data.path}: {error}{dropped}") from error


@dataclass(frozen=True)
class MappedFrames(Parted):
    """Labelled frames on disk with what a model needs of the whole set; offers what :class:`FrameSet` offers.

    Attributes:
        store: the arrays.
        energy: (F,) float32 eV, total minus the reference energies of its atoms.
        reference: (119,) float64 eV, fitted on the training part.
        molecule: (F,) int64; part: (F,) int64, index into ``PARTS``; atoms: (F,) int64.
    """

    store: mapped.Mapped
    energy: Tensor
    reference: Tensor
    molecule: Tensor
    part: Tensor
    atoms: Tensor

    def __len__(self) -> int:
        return len(self.energy)

    def batch(self, indices: Tensor | list[int]) -> dict[str, Tensor]:
        """The frames at ``indices`` as a dense batch, see :meth:`FrameSet.batch`; only their pages are read."""
        index, n = check_batch(indices, self.atoms)
        frames = index.numpy()
        rows = self.store.rows(frames)
        mask = np.arange(n)[None] < self.store.atoms[frames][:, None]
        dense = {"pos": np.zeros((*mask.shape, 3), dtype=np.float32), "species": np.zeros(mask.shape, dtype=np.int64)}
        dense |= {"mask": mask, "forces": np.zeros_like(dense["pos"])}
        for name, stored in (("pos", "positions"), ("species", "species"), ("forces", "forces")):
            dense[name][mask] = getattr(self.store, stored)[rows]
        batch = {name: torch.from_numpy(array) for name, array in dense.items()}
        return {**batch, "energy": self.energy[index], "molecule": self.molecule[index], "id": index}

    def label_rms(self, frames: Tensor) -> tuple[float, float]:
        """Root mean squares of the force components (eV/Å) and of the energies learned (eV)."""
        squares, components = 0.0, 0
        for piece in frames.split(_AT_ONCE):
            forces = self.store.forces[self.store.rows(piece.numpy())].astype(np.float64)
            squares, components = squares + float(np.square(forces).sum()), components + forces.size
        return (squares / components) ** 0.5, float(self.energy[frames].double().square().mean().sqrt())

    def orientation(self) -> Orientation | None:
        """The orientation tensor found at conversion."""
        stored = self.store.metadata["description"]["orientation"]
        return Orientation(**{**stored, "eigenvalues": tuple(stored["eigenvalues"])}) if stored else None

    def checksum(self) -> str:
        """SHA-256 of the arrays on disk."""
        return self.store.checksum()

    def describe(self) -> dict[str, Any]:
        """Plain facts for a run's record: counts, split, orientation, label statistics, what was left out."""
        about = self.store.metadata["description"]
        return {
            **describe_frames(self, sorted(int(z) for z in torch.nonzero(self.reference)[:, 0])),
            "orientation": about["orientation"],
            "config": self.store.metadata["config"],
            "source": {"file": self.store.metadata["config"]["file"], "units": about["units"]},
            "counts": {"frames": len(self), "frames rejected": about["rejected"]},
        }


def load(path: str | Path, seed: int, verbose: bool = True) -> MappedFrames:
    """Open converted frames: split by group, fit reference energies on the training part.

    Raises:
        DataError: no such folder, or fewer than three groups. IntegrityError: a damaged folder.
    """
    store = mapped.read(path)
    molecule = torch.from_numpy(store.molecule.astype(np.int64))
    part = split_molecules(int(store.metadata["groups"]), seed)[molecule]
    total = torch.from_numpy(store.energy.copy())
    reference, offsets = _references(store, total, part == 0)
    atoms = torch.from_numpy(store.atoms.astype(np.int64))
    frames = MappedFrames(store, (total - offsets).float(), reference, molecule, part, atoms)
    if verbose:
        print(f"{path}: {len(frames):,} frames of {store.metadata['groups']:,} groups, {frames.orientation()}")
    return frames


def _references(store: mapped.Mapped, total: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Reference energies (119,), and for each frame their sum over its atoms (F,).

    Frames of one composition c enter the least squares as one row with their mean energy and weight √n: the sum over
    them of (E − c·e)² is n (Ē − c·e)² plus what does not depend on e.
    """
    kinds: dict[bytes, int] = {}
    which = np.empty(len(total), dtype=np.int64)
    for first in range(0, len(total), _AT_ONCE):
        frames = np.arange(first, min(first + _AT_ONCE, len(total)))
        atoms = store.atoms[frames].astype(np.int64)
        place = np.repeat(np.arange(len(frames)), atoms) * 119 + store.species[store.rows(frames)]
        counts = np.bincount(place, minlength=119 * len(frames)).reshape(-1, 119).astype(np.uint32)
        unique, inverse = np.unique(counts, axis=0, return_inverse=True)
        numbers = [kinds.setdefault(row.tobytes(), len(kinds)) for row in unique]
        which[frames] = np.array(numbers)[inverse.reshape(-1)]
    composition = torch.from_numpy(np.frombuffer(b"".join(kinds), np.uint32).reshape(-1, 119).astype(np.float64))
    # A composition may stand in the training part and outside it: a row for each.
    row = torch.from_numpy(which) + len(kinds) * (~train).long()
    weight = torch.bincount(row, minlength=2 * len(kinds)).double()
    mean = torch.zeros(2 * len(kinds), dtype=torch.float64).index_add_(0, row, total) / weight.clamp_min(1)
    used = weight > 0
    rows = composition.repeat(2, 1)
    trained = torch.arange(2 * len(kinds)) < len(kinds)
    reference = reference_energies(rows[used], mean[used], trained[used], weight[used])
    return reference, (composition @ reference)[torch.from_numpy(which)]
