"""The force-field task: real molecules, a model by name, its loss, and the forces that are followed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration, Input, Output
from equiscope.tasks.augment import key as seed_of
from equiscope.tasks.augment import rotate
from equiscope.tasks.forcefield import models, real
from equiscope.tasks.forcefield.data import ForceFieldData, FrameSet, generate, load
from equiscope.tasks.forcefield.losses import LOSSES, ForceFieldLoss
from equiscope.tasks.forcefield.real import MappedFrames
from equiscope.tasks.task import Probe

FORCES = Declaration(
    inputs={"pos": Input("1o", points=True)},
    outputs={"forces": Output("1o", target="forces", loss="mse", mask="mask", per="atom")},
    fixed=("energy",),
    center="origin",
    group="SO3",
    mask="mask",
    clusters="molecule",
    ids="id",
)
_GENERATION = tuple(field.name for field in fields(ForceFieldData))
# Settings of the data section that say how frames are used, whatever they come from.
_USE = ("workers", "train_frames", "track_frames", "final_frames", "probe_batch")
# Read off the vector figures of the paper (its first default run): step, percent.
PAPER = [
    [20, 20.2],
    [860, 5.0],
    [1680, 2.0],
    [2560, 1.0],
    [4740, 0.081],
    [17000, 0.38],
    [445000, 0.055],
]


class ForceField:
    """Energies and forces of small organic molecules.

    Args:
        data: fields of :class:`ForceFieldData` (a set that is made here) or, with a ``format``, those of
            :meth:`RealData.from_settings` (a published set); and ``workers`` (processes that make the data, None for
            all cores), ``train_frames`` (use only so many, None for all), ``track_frames`` and ``final_frames``
            (held-out frames measured along the way and at the end, None for all), ``probe_batch`` (their
            batch size).
        model: ``name``, ``size`` and further settings of :func:`equiscope.tasks.forcefield.models.build`.
        loss: ``name`` and weights, see :class:`ForceFieldLoss`.
        augment: share of the training samples that get a rotation of their own; True is 1, False 0.

    Raises:
        InputError: for unknown or impossible settings.
    """

    name = "forcefield"
    losses: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(LOSSES, ("forces", "energy"))
    models: ClassVar[tuple[str, ...]] = tuple(models.MODELS)

    def __init__(
        self,
        data: Mapping[str, Any],
        model: Mapping[str, Any],
        loss: Mapping[str, Any],
        batch_size: int = 32,
        augment: bool | float = True,
        seed: int = 0,
    ) -> None:
        self._share = float(augment)
        if not 0 <= self._share <= 1:
            raise InputError(f"augment must be true, false or a share between 0 and 1, got {augment!r}")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        if seed < 0:
            raise InputError(f"seed must not be negative, got {seed}")
        for key in _USE:
            if data.get(key) is not None and data[key] < 1:
                raise InputError(f"data.{key} must be at least 1, got {data[key]!r}")
        self._data = dict(data)
        self._source = _source({key: value for key, value in data.items() if key not in _USE})
        self._model = {key: value for key, value in model.items() if value is not None}
        self._batch_size, self._seed = batch_size, seed
        self._frames: FrameSet | MappedFrames | None = None
        self._objective = ForceFieldLoss(**loss)
        self._order: tuple[int, Tensor] | None = None
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            models.build(**self._model)  # without memory: only to refuse bad settings before data is made

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ForceField:
        """The task of a resolved configuration."""
        return cls(
            data=config["data"],
            model=config["model"],
            loss=config["loss"],
            batch_size=int(config["batch_size"]),
            augment=config["augment"],
            seed=int(config["seed"]),
        )

    def prepare(self, progress: bool = True) -> None:
        """Load the data; make or convert it first if that is not done yet."""
        if self._frames is not None:
            return
        if isinstance(self._source, real.RealData):
            self._frames = real.load(real.convert(self._source, progress), self._source.sample.seed, progress)
        else:
            path = generate(self._source, workers=self._data.get("workers"), progress=progress)
            self._frames = load(path, verbose=progress)
        self._train = self._chosen("train")
        force, energy = self._frames.label_rms(self._train)
        self._objective = replace(self._objective, force_scale=force, energy_scale=max(energy, 1e-6))

    @property
    def training_samples(self) -> int:
        """How many frames are trained on, once :meth:`prepare` has been called."""
        self._loaded()
        return len(self._train)

    def build_model(self) -> nn.Module:
        """The model with the initial weights of the seed; the global random state is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self._seed, "weights"))
            return models.build(**self._model)

    def training_batch(self, step: int) -> dict[str, Tensor]:
        """The frames of a step, each turned by its own Haar rotation where augmentation asks for it.

        Frames come in passes over the training set, each in an order of its own: a function of (seed, step).
        """
        frames = self._loaded()
        first = step * self._batch_size
        batch = frames.batch([self._frame(place) for place in range(first, first + self._batch_size)])
        return rotate(batch, ("pos", "forces"), self._share, seed_of(self._seed, "rotations", step))

    def training_loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``loss`` and its parts, see :class:`ForceFieldLoss`."""
        self._loaded()
        return self._objective(model(batch), batch)

    def probes(self, part: str) -> list[Probe]:
        """The forces on molecules that training never saw: ``"track"`` or, other molecules again, ``"final"``."""
        frames, chosen = self._loaded(), self._chosen(part)
        # Sorted by size, so that batches carry little padding.
        chosen = chosen[torch.argsort(frames.atoms[chosen], stable=True)]
        batches = [frames.batch(rows) for rows in chosen.split(int(self._data.get("probe_batch") or 64))]
        return [Probe("forces", batches, FORCES)]

    def describe(self) -> dict[str, Any]:
        """Counts, split, orientation and label statistics of the data."""
        frames = self._loaded()
        used = {part: len(self._chosen(part)) for part in ("train", "track", "final")}
        return {**frames.describe(), "path": str(self._path()), "used": used}

    def reference(self) -> dict[str, Any]:
        """The paper's force-field curve."""
        return {
            "label": "paper (EScAIP 6M on SPICE, no augmentation)",
            "points": {"forces": PAPER},
            "table": [
                ["start", "20 % at step 20"],
                ["first ≤ 2 %", "2.0 % at step 1,680–1,900 (three seeds)"],
                ["last above 2 %", "step 1,800–1,920"],
                ["dip", "0.08 % at step 4,740"],
                ["later peak", "0.38 % near step 17,000"],
                ["end", "0.055 % at step 445,000"],
            ],
            "source": "Shen, Nowara, Maser, Cho, TMLR 2025, arXiv 2512.02303, read off its figures",
        }

    def _path(self) -> Path:
        source = self._source
        return source.resolved_store() if isinstance(source, real.RealData) else source.resolved_path()

    def _loaded(self) -> FrameSet | MappedFrames:
        if self._frames is None:
            raise InputError("the task has no data yet: call prepare() first")
        return self._frames

    def _chosen(self, part: str) -> Tensor:
        """Frames of a part: all, or so many of them as asked, spread evenly over the molecules."""
        every, wanted = self._loaded().indices(part), self._data.get(f"{part}_frames")
        if wanted is None or wanted >= len(every):
            return every
        return every[(torch.arange(wanted) * len(every)) // wanted]

    def _frame(self, place: int) -> int:
        """The frame at a place of the endless sequence of shuffled passes over the training set."""
        turn, inside = divmod(place, len(self._train))
        if self._order is None or self._order[0] != turn:
            generator = torch.Generator().manual_seed(seed_of(self._seed, "order", turn))
            self._order = (turn, self._train[torch.randperm(len(self._train), generator=generator)])
        return int(self._order[1][inside])


def _source(data: Mapping[str, Any]) -> ForceFieldData | real.RealData:
    if data.get("format") is not None:
        return real.RealData.from_settings(data)
    if unknown := set(data) - set(_GENERATION):
        known = sorted({*_GENERATION, *_USE})
        raise InputError(f"unknown data settings {sorted(unknown)}; the known ones are {known}")
    return ForceFieldData(**data)
