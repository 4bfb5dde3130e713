"""The voxel task: denoise the grids of molecules, after VoxMol."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from equiscope.errors import InputError
from equiscope.symmetry.grids import permute
from equiscope.symmetry.rotations import group
from equiscope.tasks.augment import key, rotate
from equiscope.tasks.datasets.orientation import orientation
from equiscope.tasks.task import Probe
from equiscope.tasks.voxels import models, probes
from equiscope.tasks.voxels.data import ConformerSet, load, noise_grids
from equiscope.tasks.voxels.generate import ConformerData, generate
from equiscope.tasks.voxels.voxelise import Grid, voxelise

ATOMIC_NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9, "Si": 14, "P": 15, "S": 16, "Cl": 17, "Br": 35, "I": 53}


@dataclass(frozen=True)
class VoxelSettings:
    """The whole task; the defaults are the run of 25 minutes on two cores.

    Attributes:
        seed, augment, batch_size: of the training.
        data: the conformers; grid: the grid they are drawn on.
        sigma: standard deviation of the voxel noise.
        model, size, model_settings: as for :func:`equiscope.tasks.voxels.models.build`.
        track_conformers, final_conformers: held-out conformers measured along training and at the end, spread over the
            molecules.
        probe_batch: their batch size.
        so3_rotations: Haar rotations of quantities (b) and (c); draws: noises of quantity (c).
    """

    seed: int = 0
    augment: float = 1.0
    batch_size: int = 8
    data: ConformerData = field(default_factory=ConformerData)
    grid: Grid = field(default_factory=Grid)
    sigma: float = 0.3
    model: str = "unet"
    size: str = "nano"
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    workers: int | None = None
    track_conformers: int = 16
    final_conformers: int = 48
    probe_batch: int = 8
    so3_rotations: int = 4
    draws: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.augment <= 1:
            raise InputError(f"augment must be true, false or a share between 0 and 1, got {self.augment!r}")
        if not 0 < self.sigma < math.inf:
            raise InputError(f"grid.sigma, the noise level, must be positive, got {self.sigma!r}")
        for name in ("batch_size", "track_conformers", "final_conformers", "probe_batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise InputError(f"seed must not be negative, got {self.seed}")
        if self.so3_rotations < 2 or self.draws < 2:
            raise InputError(f"rotations and draws must be at least 2, got {self.so3_rotations} and {self.draws}")


class Voxels:
    """Denoising of voxelised molecules; implements :class:`equiscope.tasks.task.Task`. Lengths in Å."""

    name = "voxels"
    losses: ClassVar[Mapping[str, tuple[str, ...]]] = {"voxels": ()}
    models: ClassVar[tuple[str, ...]] = tuple(models.MODELS)

    def __init__(self, settings: VoxelSettings) -> None:
        self.settings = settings
        self._set: ConformerSet | None = None
        self._order: tuple[int, Tensor] | None = None
        # Only to refuse bad settings before data is made: without memory, but for e3nn's gates, which draw numbers.
        with torch.device("cpu" if settings.model == "steerable" else "meta"), torch.random.fork_rng(devices=[]):
            made = self._build()
        if isinstance(made, models.UNet):
            made._checked(torch.empty(1, *settings.grid.shape, device="meta"))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Voxels:
        """The task of a resolved configuration.

        Raises:
            InputError: an unknown or impossible value.
        """
        data, grid = dict(config.get("data", {})), dict(config.get("grid", {}))
        model = {k: v for k, v in config.get("model", {}).items() if v is not None}
        own = {k: data.pop(k) for k in ("track_conformers", "final_conformers", "probe_batch", "workers") if k in data}
        made = _settings(ConformerData, data, "data")
        if "elements" in data:
            made["elements"] = tuple(data["elements"])
        sigma = float(grid.pop("sigma", 0.3))
        conformers = ConformerData(**made)
        unknown = sorted(set(conformers.elements) - set(ATOMIC_NUMBERS))
        if unknown:
            raise InputError(f"data.elements has unknown elements {unknown}; known are {', '.join(ATOMIC_NUMBERS)}")
        numbers = tuple(ATOMIC_NUMBERS[symbol] for symbol in conformers.elements)
        track = config.get("track", {})
        return cls(
            VoxelSettings(
                seed=int(config.get("seed", 0)),
                augment=float(config.get("augment", True)),
                batch_size=int(config.get("batch_size", 8)),
                data=conformers,
                grid=Grid(**_settings(Grid, grid, "grid"), elements=numbers),
                sigma=sigma,
                model=str(model.pop("name", "unet")),
                size=str(model.pop("size", "nano")),
                model_settings=model,
                so3_rotations=int(track.get("so3_rotations", 4)),
                draws=int(track.get("draws", 2)),
                **{k: v for k, v in own.items() if v is not None},
            )
        )

    def prepare(self, progress: bool = True) -> None:
        """Load the data file; make it first if it is missing."""
        if self._set is not None:
            return
        path = generate(self.settings.data, workers=self.settings.workers, progress=progress)
        self._set = load(path, self.settings.grid)
        self._train = self._set.indices("train")
        # The loss is divided by this, so that 1 is the zero predictor's whatever the grid.
        sample = self._set.batch(self._train[:: max(1, len(self._train) // 64)])
        grids = voxelise(sample["pos"], sample["species"], sample["mask"], self.settings.grid)
        self._scale = float(grids.double().square().mean())
        if progress:
            left_out = self._set.metadata["counts"]["conformers rejected"]
            print(f"{path}: {len(self._set)} conformers on the grid, left out: {left_out}")

    def _build(self) -> nn.Module:
        s = self.settings
        return models.build(s.model, s.size, channels=len(s.grid.elements), **s.model_settings)

    def build_model(self) -> nn.Module:
        """The model with the initial weights of the seed; the global random state is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(self.settings.seed, "weights"))
            return self._build()

    def training_batch(self, step: int) -> dict[str, Tensor]:
        """``pos`` (B, N, 3), each turned by its own Haar rotation, ``species``, ``mask`` (B, N), ``molecule``, ``id``,
        ``noise_seed`` (B,): grids and noise are made on the model's device."""
        s = self.settings
        first = step * s.batch_size
        index = torch.tensor([self._conformer(place) for place in range(first, first + s.batch_size)])
        batch = self._loaded().batch(index)
        batch["noise_seed"] = torch.tensor([key(s.seed, "training noise", first + i) for i in range(s.batch_size)])
        return rotate(batch, ("pos",), s.augment, key(s.seed, "rotations", step))

    def training_loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean squared error of the voxels over that of the zero predictor, about 1 - R²; ``mse`` is without it."""
        self._loaded()
        clean = voxelise(batch["pos"], batch["species"], batch["mask"], self.settings.grid)
        noise = noise_grids(batch["noise_seed"], self.settings.grid, self.settings.sigma, clean.device)
        error = (model({"noisy": clean + noise})["clean"] - clean).square().mean()
        return {"loss": error / self._scale, "mse": error.detach()}

    def probes(self, part: str) -> list[Probe]:
        """Octahedral, SO(3) and noise-averaged SO(3) error; at the end also the interpolation's own, see
        :mod:`equiscope.tasks.voxels.probes`."""
        s = self.settings
        batches = self._held_out(part)
        made = probes.tracked if part == "track" else probes.final
        return made(batches, s.grid, s.sigma, key(s.seed, "noise of", part), s.so3_rotations, s.draws)

    def _held_out(self, part: str) -> list[dict[str, Tensor]]:
        """Held-out conformers of a part, each turned by its own Haar rotation, with grid and noise."""
        s, conformers = self.settings, self._loaded()
        every = conformers.indices(part)
        wanted = min(len(every), s.track_conformers if part == "track" else s.final_conformers)
        chosen = every[(torch.arange(wanted) * len(every)) // wanted]
        batches = [
            rotate(conformers.batch(rows), ("pos",), 1.0, key(s.seed, "orientation of", part, int(rows[0])))
            for rows in chosen.split(s.probe_batch)
        ]
        return probes.gridded(batches, s.grid, s.sigma, key(s.seed, "noise of", part))

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
        names = {"input": noisy, "output": output, "twirled output": twirled, "target": batch["clean"]}
        middle = self.settings.grid.size // 2
        return [
            {
                "title": f"molecule {int(batch['molecule'][i])}, middle slice, elements added up",
                "panels": [
                    {"title": name, "image": [[round(v, 4) for v in row] for row in v_[i, :, middle].sum(0).tolist()]}
                    for name, v_ in names.items()
                ],
            }
            for i in range(len(output))
        ]

    def describe(self) -> dict[str, Any]:
        s, conformers = self.settings, self._loaded()
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
            "orientation": orientation(shown["pos"], shown["mask"]).to_dict(),
            "augment": s.augment,
            "path": str(s.data.resolved_path()),
        }

    def reference(self) -> dict[str, Any]:
        """The paper's VoxMol curve."""
        return {
            "label": "paper (VoxMol 111M on GEOM-drugs)",
            "points": {probes.OCTAHEDRAL: [[7290, 2.1], [43700, 12.6]]},
            "table": [
                ["first ≤ 2 %", "never (at the end of each epoch of 7,290 steps)"],
                ["dip", "2.1 % at step 7,290"],
                ["end", "12.6 % at step 43,700"],
                ["28M", "8.8 % at its lowest, 20.4 % at step 94,800"],
                ["7M", "6.8 % at its lowest, 20.4 % at step 160,000"],
            ],
            "source": "Shen, Nowara, Maser, Cho, TMLR 2025, arXiv 2512.02303, from the authors' repository, with the "
            "factor 4/3 for its four rotations; its rotations and noise are not the octahedral ones here",
        }

    def _loaded(self) -> ConformerSet:
        if self._set is None:
            raise InputError("the task has no data yet: call prepare() first")
        return self._set

    def _conformer(self, place: int) -> int:
        """The conformer at a place of the endless sequence of shuffled passes over the training set."""
        self._loaded()
        turn, inside = divmod(place, len(self._train))
        if self._order is None or self._order[0] != turn:
            generator = torch.Generator().manual_seed(key(self.settings.seed, "order", turn))
            self._order = (turn, self._train[torch.randperm(len(self._train), generator=generator)])
        return int(self._order[1][inside])


def _settings(kind: Any, given: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The given values that are not None.

    Raises:
        InputError: for a name that the settings class does not have.
    """
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(given) - known):
        raise InputError(f"unknown {section} settings {unknown}; the known ones are {sorted(known)}")
    return {name: value for name, value in given.items() if value is not None}
