"""Draw backbones from a trained model into a folder: traces, judgement beside real chains, pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from equiscope.decomposition.twirled import Twirled
from equiscope.errors import DataError, InputError
from equiscope.files import needed
from equiscope.tasks.guards import one_of
from equiscope.tasks.proteinflow.quality import Quality, RealChains, dihedrals, judge, radius_of_gyration, step_lengths
from equiscope.tasks.proteinflow.sampling import Sampling, sample
from equiscope.tasks.proteinflow.task import ProteinFlow, declaration
from equiscope.writing import inner_folder, replacing, write_atomically

NM_TO_ANGSTROM = 10.0
FORMATS = ("cif", "pdb")


@dataclass(frozen=True)
class Drawn:
    """Chains drawn from a model and what they are worth.

    Attributes:
        traces: chains in Å by way of drawing, ``"drawn"`` and, with twirling, ``"drawn, twirled"``.
        quality: their figures; ``"real chains"`` are the real chains' own.
        moved: mean root mean square distance (Å) between plain and twirled chains from the same noise, without
            superposition; ``None`` without twirling. files: what was written.
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
        twirl: a set of rotations (``"T"``, ``"O"``, ``"I"``…): the same noise is integrated a second time with the
            rotation-averaged model, so that the effect of test-time twirling can be seen; ``None`` for none.
        formats: ``"cif"`` and/or ``"pdb"``.

    Written are ``NAME_001.cif`` … , ``quality.json``, ``quality.png`` and one ``…traces.png`` per way of drawing.

    Raises:
        InputError: no format or an unknown one, or a set of rotations that does not exist.
    """
    if not formats:
        raise InputError("give at least one format: cif, pdb")
    # Asked before hours of drawing, and not after.
    for ending in formats:
        one_of(FORMATS, format=ending)
    needed("gemmi")
    task.prepare(progress=False)
    folder = inner_folder(folder)
    models: dict[str, nn.Module] = {"drawn": model}
    if twirl:
        models["drawn, twirled"] = Twirled(model, declaration(), rotations=twirl)
    real = real_chains(task, settings.length)
    chains = {name: sample(net, settings, progress) for name, net in models.items()}
    traces = {name: list(NM_TO_ANGSTROM * found.double().cpu().numpy()) for name, found in chains.items()}
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
        "quality": {name: asdict(figures) for name, figures in quality.items()},
        "moved_by_twirling": moved,
    }
    write_atomically(folder / "quality.json", (json.dumps(table, indent=1) + "\n").encode())
    files += [folder / "quality.png", folder / "quality.json"]
    return Drawn(traces, quality, moved, tuple(files))


def real_chains(task: ProteinFlow, length: int) -> RealChains:
    """The task's chains within a tenth of ``length`` residues; all of them where these are fewer than fifty."""
    chains = task.data.chains
    near = [ca for ca in chains.ca if abs(len(ca) - length) <= 0.1 * length]
    return RealChains.of(near if len(near) >= 50 else chains.ca, trend=chains.ca)


def _moved(traces: dict[str, list[np.ndarray]]) -> float:
    pairs = zip(*traces.values(), strict=True)
    return float(np.mean([np.sqrt(np.square(a - b).sum(axis=1).mean()) for a, b in pairs]))


def write_trace(ca: np.ndarray, path: str | Path, name: str = "sample") -> None:
    """One chain A of CA atoms (L, 3) in Å, glycine throughout; the ending of ``path`` (.cif or .pdb) is the format.

    Raises:
        DataError: coordinates that are not finite, or too large for the PDB format (±999 Å).
        InputError: another ending, or a wrong shape.
    """
    path, ca = Path(path), np.asarray(ca, dtype=np.float64)
    ending = path.suffix.lstrip(".").lower()
    if ending not in FORMATS:
        raise InputError(f"traces are written as {' or '.join(FORMATS)}, got the file name {path.name}")
    if ca.ndim != 2 or ca.shape[1] != 3 or not len(ca):
        raise InputError(f"a trace must be (L, 3), got {ca.shape}")
    if not np.isfinite(ca).all():
        raise DataError(f"the trace {name} has coordinates that are not finite: it cannot be written")
    if ending == "pdb" and np.abs(ca).max() >= 999:
        raise DataError(f"a coordinate of {np.abs(ca).max():.0f} Å does not fit the PDB format: write mmCIF")
    structure = _structure(ca, name)
    text = structure.make_pdb_string() if ending == "pdb" else structure.make_mmcif_document().as_string()
    write_atomically(path, text.encode())


def _structure(ca: np.ndarray, name: str) -> Any:
    gemmi = needed("gemmi")
    structure, model, chain = gemmi.Structure(), gemmi.Model(1), gemmi.Chain("A")
    structure.name = name
    for number, place in enumerate(ca.tolist(), start=1):
        residue = gemmi.Residue()
        residue.name, residue.seqid = "GLY", gemmi.SeqId(number, " ")
        atom = gemmi.Atom()
        atom.name, atom.element, atom.occ = "CA", gemmi.Element("C"), 1.0
        atom.pos = gemmi.Position(*place)
        residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    structure.assign_label_seq_id()
    return structure


_REAL = "0.35"


def plot_quality(drawn: Mapping[str, Sequence[np.ndarray]], real: RealChains, path: str | Path) -> None:
    """Distribution of CA–CA distances and of Cα dihedrals, and radius of gyration against length, to a file.

    ``drawn`` maps the name of each set of traces (Å) to its traces; all sets share the axes with the real chains.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    steps, turns, sizes = figure.subplots(1, 3)
    every = {"real chains": real.traces, **drawn}
    lengths = np.concatenate([step_lengths(traces) for traces in every.values()])
    # The real distribution is so narrow that the range follows the samples, clipped to what is readable.
    bins = np.linspace(max(0.0, min(2.4, lengths.min())), min(8.0, max(4.6, lengths.max())), 90)
    for name, traces in every.items():
        known = traces is real.traces
        style = {"color": _REAL, "lw": 2} if known else {"lw": 1.5}
        dots = {"marker": ".", "color": _REAL, "ms": 3, "alpha": 0.5} if known else {"marker": "o", "alpha": 0.9}
        distances = np.clip(step_lengths(traces), bins[0], bins[-1])
        steps.hist(distances, bins, density=True, histtype="step", label=name, **style)
        angles = np.concatenate([dihedrals(ca) for ca in traces])
        turns.hist(angles, np.linspace(-180, 180, 61), density=True, histtype="step", label=name, **style)
        radii = [radius_of_gyration(ca) for ca in traces]
        sizes.plot([len(ca) for ca in traces], radii, ls="", label=name, **{"ms": 5, **dots})
    span = np.array([len(ca) for traces in every.values() for ca in traces])
    grid = np.linspace(span.min(), span.max(), 50)
    sizes.plot(grid, real.gyration(grid), color="k", lw=1, label=f"real: L^{real.exponent:.2f}")
    steps.set(xlabel="distance of consecutive CA (Å)", ylabel="density", yscale="log")
    turns.set(xlabel="CA dihedral (degrees; right-handed helix +50)", ylabel="density", xticks=range(-180, 181, 60))
    sizes.set(xlabel="residues", ylabel="radius of gyration (Å)")
    for axes in (steps, turns, sizes):
        axes.legend(frameon=False, fontsize=8)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=130)


def plot_traces(traces: Sequence[np.ndarray], path: str | Path) -> None:
    """Up to eight traces (Å) in their own principal frame, coloured from first to last residue, to a file."""
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    shown = [np.asarray(ca, dtype=np.float64) for ca in traces[:8]]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3 * columns, 3 * rows), layout="constrained")
    for axes, ca in zip(figure.subplots(rows, columns, squeeze=False).flat, shown, strict=False):
        flat = ca - ca.mean(axis=0)
        flat = flat @ np.linalg.svd(flat, full_matrices=False)[2].T
        ends = np.stack([flat[:-1, :2], flat[1:, :2]], axis=1)
        axes.add_collection(LineCollection(list(ends), array=np.arange(len(ends)), cmap="turbo", lw=2))
        extent = np.abs(flat[:, :2]).max() * 1.1
        axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", xticks=[], yticks=[])
        axes.set_title(f"{len(ca)} residues", fontsize=9)
        # A scale bar says more about size than ticks on a rotated frame.
        axes.plot([-extent * 0.9, -extent * 0.9 + 10], [-extent * 0.92] * 2, color="k", lw=2)
        axes.annotate("10 Å", (-extent * 0.9, -extent * 0.88), fontsize=7)
    for axes in figure.axes[len(shown) :]:
        axes.set_visible(False)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=130)
