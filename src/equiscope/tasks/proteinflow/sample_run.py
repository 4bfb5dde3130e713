"""Draw backbones from a trained model into a folder: traces, judgement beside real chains, pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from equiscope.decomposition.twirled import Twirled
from equiscope.errors import InputError
from equiscope.tasks.proteinflow.export import write_trace
from equiscope.tasks.proteinflow.plots import plot_quality, plot_traces
from equiscope.tasks.proteinflow.quality import Quality, RealChains, judge
from equiscope.tasks.proteinflow.sampling import Sampling, sample
from equiscope.tasks.proteinflow.task import ProteinFlow, declaration
from equiscope.writing import inner_folder, write_atomically

NM_TO_ANGSTROM = 10.0


@dataclass(frozen=True)
class Drawn:
    """Chains drawn from a model and what they are worth.

    Attributes:
        traces: chains in Å by way of drawing, ``"drawn"`` and, with twirling, ``"drawn, twirled"``.
        quality: their figures; ``"real chains"`` are the real chains' own.
        moved: mean root mean square distance (Å) between plain and twirled chains from the same noise, without
            superposition; ``None`` without twirling.
        files: what was written.
    """

    traces: dict[str, list[np.ndarray]]
    quality: dict[str, Quality]
    moved: float | None
    files: tuple[Path, ...]

    def __str__(self) -> str:
        lines = [f"{name}: {quality}" for name, quality in self.quality.items()]
        if self.moved is not None:
            lines.append(f"twirling moves a chain drawn from the same noise by {self.moved:.2f} Å on average")
        return "\n".join(lines)


def sample_run(
    model: nn.Module,
    task: ProteinFlow,
    folder: str | Path,
    settings: Sampling,
    twirl: str | None = None,
    formats: Sequence[str] = ("cif", "pdb"),
    progress: Any = None,
) -> Drawn:
    """Draw chains, write them with a quality table and pictures to ``folder``, and return all of it.

    Args:
        model: the trained velocity field; task: its task, whose chains of similar length are compared with.
        twirl: a set of rotations (``"T"``, ``"O"``, ``"I"``…): the same noise is integrated a second time with
            the rotation-averaged model, so that the effect of test-time twirling can be seen; ``None`` for none.
        formats: ``"cif"`` and/or ``"pdb"``.

    Writes ``NAME_001.cif`` … , ``quality.json``, ``quality.png`` and one ``…traces.png`` per way of drawing.

    Raises:
        InputError: no format or an unknown one, or a set of rotations that does not exist.
    """
    if not formats:
        raise InputError("give at least one format: cif, pdb")
    task.prepare(progress=False)
    folder = Path(folder)
    inner_folder(folder)
    models: dict[str, nn.Module] = {"drawn": model}
    if twirl:
        models["drawn, twirled"] = Twirled(model, declaration(), rotations=twirl)
    real = real_chains(task, settings.length)
    traces = {name: _angstrom(sample(net, settings, progress)) for name, net in models.items()}
    quality = {"real chains": real.quality()} | {name: judge(found, real) for name, found in traces.items()}
    files = []
    for name, found in traces.items():
        stem = name.replace(", ", "_")
        for number, ca in enumerate(found, start=1):
            for ending in formats:
                path = folder / f"{stem}_{number:03d}.{ending}"
                write_trace(ca, path, f"{stem}_{number:03d}")
                files.append(path)
        plot_traces(found, folder / f"{stem}_traces.png")
        files.append(folder / f"{stem}_traces.png")
    plot_quality(traces, real, folder / "quality.png")
    moved = _moved(traces) if twirl else None
    table = {
        "settings": asdict(settings) | {"twirl": twirl},
        "quality": {name: figures.to_dict() for name, figures in quality.items()},
        "moved_by_twirling": moved,
    }
    write_atomically(folder / "quality.json", (json.dumps(table, indent=1) + "\n").encode())
    files += [folder / "quality.png", folder / "quality.json"]
    return Drawn(traces, quality, moved, tuple(files))


def real_chains(task: ProteinFlow, length: int, least: int = 50) -> RealChains:
    """The task's chains within a tenth of ``length`` residues; all of them where these are fewer than ``least``."""
    chains = task.data.chains
    near = [ca for ca in chains.ca if abs(len(ca) - length) <= 0.1 * length]
    return RealChains.of(near if len(near) >= least else chains.ca, trend=chains.ca)


def _angstrom(chains: Tensor) -> list[np.ndarray]:
    return list(NM_TO_ANGSTROM * chains.double().cpu().numpy())


def _moved(traces: dict[str, list[np.ndarray]]) -> float:
    pairs = zip(*traces.values(), strict=True)
    return float(np.mean([np.sqrt(np.square(a - b).sum(axis=1).mean()) for a, b in pairs]))
