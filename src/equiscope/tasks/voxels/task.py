"""The voxel task: denoise the grids of molecules, after VoxMol."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from equiscope.errors import InputError
from equiscope.symmetry.grids import permute
from equiscope.symmetry.orientation import orientation
from equiscope.symmetry.rotations import group
from equiscope.tasks.guards import at_least, chosen
from equiscope.tasks.seeded import SeededTask, Shuffled, TaskSettings, key, rotate, spread
from equiscope.tasks.task import Probe
from equiscope.tasks.voxels import models, probes
from equiscope.tasks.voxels.baseline import WienerFilter
from equiscope.tasks.voxels.data import ConformerSet, load, noise_grids
from equiscope.tasks.voxels.generate import ConformerData, generate
from equiscope.tasks.voxels.voxelise import Grid, voxelise

ATOMIC_NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9, "Si": 14, "P": 15, "S": 16, "Cl": 17, "Br": 35, "I": 53}

# Training conformers that the baseline is fitted to.
_FITTED = 256
# Settings of the data section that say how conformers are used.
_USE = ("workers", "train_conformers", "track_conformers", "final_conformers", "probe_batch", "shift")


@dataclass(frozen=True, kw_only=True)
class VoxelSettings(TaskSettings):
    """The whole task; the defaults are the run of 25 minutes on two cores.

    Attributes:
        data: the conformers; grid: the grid they are drawn on.
        sigma: standard deviation of the voxel noise.
        workers: processes that make the conformers, None for all cores.
        train_conformers: train on only so many, spread over the molecules, None for all; the held-out stay.
        track_conformers, final_conformers: held-out ones measured along training and at the end, spread over molecules.
        probe_batch: their batch size.
        shift: training molecules are moved by up to so much along each axis, in Å; held-out ones stay centred.
        so3_rotations: Haar rotations of quantities (b) and (c); draws: noises of quantity (c).
    """

    batch_size: int = 8
    model: str = "unet"
    data: ConformerData = field(default_factory=ConformerData)
    grid: Grid = field(default_factory=Grid)
    sigma: float = 0.3
    workers: int | None = None
    train_conformers: int | None = None
    track_conformers: int = 16
    final_conformers: int = 48
    probe_batch: int = 8
    shift: float = 0.0
    so3_rotations: int = 4
    draws: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sigma < math.inf:
            raise InputError(f"grid.sigma, the noise level, must be positive, got {self.sigma!r}")
        at_least(1, "data.", **{name: getattr(self, name) for name in _USE if name != "shift"})
        at_least(0, "data.", shift=self.shift)
        room = math.inf if self.grid.crop else self.grid.half - self.grid.reach
        if self.shift > room:
            raise InputError(
                f"data.shift of {self.shift:g} Å moves molecules off the grid, which has {room:g} Å of room around "
                "those that fit: take at most that, or grid.crop=true"
            )
        at_least(2, "track.", so3_rotations=self.so3_rotations, draws=self.draws)


class Voxels(SeededTask[VoxelSettings, ConformerSet]):
    """Denoising of voxelised molecules; implements :class:`equiscope.tasks.task.Task`. Lengths in Å."""

    name = "voxels"
    losses: ClassVar[Mapping[str, tuple[str, ...]]] = {"voxels": ()}
    models = tuple(models.MODELS)
    # Read by the host at every step, to make the noise on the model's device.
    host_fields = ("noise_seed",)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Voxels:
        """The task of a resolved configuration; unknown or impossible values are an InputError."""
        data, grid, track = config.get("data", {}), config.get("grid", {}), config.get("track", {})
        conformers = ConformerData(**chosen(ConformerData, "data", data, cls.name, _USE))
        if unknown := sorted(set(conformers.elements) - set(ATOMIC_NUMBERS)):
            raise InputError(f"data.elements has unknown elements {unknown}; known are {', '.join(ATOMIC_NUMBERS)}")
        numbers = tuple(ATOMIC_NUMBERS[symbol] for symbol in conformers.elements)
        settings = VoxelSettings.of(
            config,
            data=conformers,
            grid=Grid(**{**chosen(Grid, "grid", grid, cls.name, ("sigma",)), "elements": numbers}),
            sigma=grid.get("sigma"),
            **{name: data.get(name) for name in _USE},
            **{name: track.get(name) for name in ("so3_rotations", "draws")},
        )
        return cls(settings)

    def _check_model(self, device: str = "meta") -> nn.Module:
        # e3nn's gates draw numbers, which a meta device cannot give.
        made = super()._check_model("cpu" if self.settings.model == "steerable" else device)
        if isinstance(made, models.UNet):
            made.check(torch.empty(1, *self.settings.grid.shape, device="meta"))
        return made

    def prepare(self, progress: bool = True) -> None:
        """Load the data file; make it first if it is missing."""
        if self._data is not None:
            return
        path = generate(self.settings.data, workers=self.settings.workers, progress=progress)
        self._data = load(path, self.settings.grid)
        train = self._data.indices("train")
        self._order = Shuffled(spread(train, self.settings.train_conformers), self.settings.seed)
        # The loss is divided by this, so that 1 is the zero predictor's whatever the grid.
        grids = self._voxelise(self._data.batch(train[:: max(1, len(train) // 64)]))
        self._scale = float(grids.double().square().mean())
        if progress:
            left_out = self._data.metadata["counts"]["conformers rejected"]
            print(f"{path}: {len(self._data)} conformers on the grid, left out: {left_out}")

    def _build(self) -> nn.Module:
        s = self.settings
        return models.build(s.model, s.size, channels=len(s.grid.elements), **s.model_settings)

    def _voxelise(self, batch: Mapping[str, Tensor]) -> Tensor:
        # Only conformers that fit the grid in every orientation were loaded.
        return voxelise(batch["pos"], batch["species"], batch["mask"], self.settings.grid, checked=True)

    def training_batch(self, step: int) -> dict[str, Tensor]:
        """``pos`` (B, N, 3), each turned by its own Haar rotation, ``species``, ``mask`` (B, N), ``molecule``, ``id``,
        ``noise_seed`` (B,): grids and noise are made on the model's device."""
        s = self.settings
        conformers, first = self.data, step * s.batch_size
        batch = conformers.batch(self._order.take(first, s.batch_size))
        batch["noise_seed"] = torch.tensor([key(s.seed, "training noise", first + i) for i in range(s.batch_size)])
        batch = rotate(batch, ("pos",), s.augment, key(s.seed, "rotations", step))
        if s.shift:
            generator = torch.Generator().manual_seed(key(s.seed, "shifts", step))
            batch["pos"] = batch["pos"] + s.shift * (2 * torch.rand(s.batch_size, 1, 3, generator=generator) - 1)
        return batch

    def training_loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean squared error of the voxels over that of the zero predictor, about 1 - R²; ``mse`` is without it."""
        _ = self.data  # says what is missing before prepare()
        clean = self._voxelise(batch)
        noise = noise_grids(batch["noise_seed"], self.settings.grid, self.settings.sigma, clean.device)
        error = (model({"noisy": clean + noise})["clean"] - clean).square().mean()
        return {"loss": error / self._scale, "mse": error.detach()}

    def probes(self, part: str) -> list[Probe]:
        """Octahedral, SO(3) and noise-averaged SO(3) error; at the end also the interpolation's own, see
        :mod:`equiscope.tasks.voxels.probes`."""
        s = self.settings
        batches = self._held_out(part)
        made = probes.tracked if part == "track" else probes.final
        return made(batches, s.grid, s.sigma, key(s.data.seed, "noise of", part), s.so3_rotations, s.draws)

    def _held_out(self, part: str) -> list[dict[str, Tensor]]:
        """Held-out conformers of a part, each turned by its own Haar rotation, with grid and noise."""
        s = self.settings
        held = spread(self.data.indices(part), s.track_conformers if part == "track" else s.final_conformers)
        batches = [self._turned(rows, "orientation of", part) for rows in held.split(s.probe_batch)]
        return probes.gridded(batches, s.grid, s.sigma, key(s.data.seed, "noise of", part))

    def _turned(self, rows: Tensor, *why: str) -> dict[str, Tensor]:
        """Conformers, each turned by a Haar rotation of its own."""
        return rotate(self.data.batch(rows), ("pos",), 1.0, key(self.settings.data.seed, *why, int(rows[0])))

    def baseline(self) -> nn.Module:
        """The Wiener filter of (at most 256 of) the training grids, each turned by a Haar rotation of its own."""
        turned = (self._turned(rows, "baseline") for rows in spread(self._order.items, _FITTED).split(8))
        return WienerFilter.fit((self._voxelise(batch) for batch in turned), self.settings.sigma)

    def pictures(self, model: nn.Module) -> list[dict[str, Any]]:
        """Middle slices of two held-out molecules: input, output, output twirled over the 24 rotations, target."""
        device = next(model.parameters()).device
        batch = {k: v[:2].to(device) for k, v in self._held_out("final")[0].items()}
        noisy, training = batch["clean"] + batch["noise"], model.training
        model.eval()
        with torch.no_grad():
            output = model({"noisy": noisy})["clean"].double()
            twirled = torch.zeros_like(output)
            for element in group("O").matrices.to(device):
                turns = element.expand(len(output), 3, 3)
                answer = model({"noisy": permute(noisy, turns)})["clean"].double()
                twirled += permute(answer, turns.mT) / 24
        model.train(training)
        grids = {"input": noisy, "output": output, "twirled output": twirled, "target": batch["clean"]}
        middle = self.settings.grid.size // 2

        def panel(name: str, grid: Tensor) -> dict[str, Any]:
            return {"title": name, "image": [[round(v, 4) for v in row] for row in grid[:, middle].sum(0).tolist()]}

        titles = [f"molecule {number}, middle slice, elements added up" for number in batch["molecule"].tolist()]
        return [
            {"title": title, "panels": [panel(name, grid[i]) for name, grid in grids.items()]}
            for i, title in enumerate(titles)
        ]

    def describe(self) -> dict[str, Any]:
        s, conformers = self.settings, self.data
        turned = torch.cat([b["clean"].double().square().mean(dim=(1, 2, 3, 4)) for b in self._held_out("track")])
        shown = conformers.batch(conformers.indices("train"))
        shown = rotate(shown, ("pos",), s.augment, key(s.seed, "rotations", "described"))
        return {
            "content": "molecules on voxel grids",
            "grid": f"{s.grid.size}³ voxels of {s.grid.resolution:g} Å",
            "atom radius": s.grid.radius,
            "noise sigma": s.sigma,
            "channels": list(s.data.elements),
            "mean square of a grid": float(turned.mean()),
            **conformers.describe(),
            **({"used": {"train": len(self._order.items)}} if s.train_conformers is not None else {}),
            "orientation": orientation(shown["pos"], shown["mask"]).to_dict(),
            "augment": s.augment,
            "path": str(s.data.resolved_path()),
        }

    def reference(self) -> dict[str, Any]:
        """The paper's VoxMol curve."""
        return {
            "label": "paper (VoxMol 111M on GEOM-drugs)",
            "points": {probes.OCTAHEDRAL: [[7290, 2.1], [14580, 5.1], [29160, 7.6], [43740, 12.9]]},
            "table": [
                ["first ≤ 2 %", "never (at the end of each epoch of 7,290 steps)"],
                ["dip", "2.1 % at step 7,290"],
                ["end", "12.9 % at step 43,740"],
                ["28M", "8.7 % at its lowest, 20.3 % at step 94,770"],
                ["7M", "6.8 % at its lowest, 18.7 % at step 160,380"],
            ],
            "source": "Shen, Nowara, Maser, Cho, TMLR 2025, arXiv 2512.02303, from the authors' repository: third over "
            "first term, times 4/3 for its four rotations; its rotations and noise are not the octahedral ones here",
        }
