"""What is measured of a voxel denoiser: three equivariance errors, and the floors of interpolation.

Let x be a molecule turned by a Haar rotation of its own, V(x) its grid, e voxel noise and f the model.

(a) octahedral         E_e Var_k  k^-1 f(k (V(x) + e))            k over the 24 elements of O, grid and noise permuted
(b) SO(3)              E_e Var_g  g^-1 f(V(g x) + e)              g Haar; the noise stays on its lattice; g^-1 resampled
(c) SO(3), averaged    Var_g  g^-1 E_e f(V(g x) + e)              (b) without what the noise adds

(a) needs no interpolation and is exact for O. Averaged over x in all orientations it is a lower bound of the error
under SO(3): the total variance over SO(3) is that within cosets of O plus that between them. By convexity it is also
at least the octahedral error of the noise-averaged model, Var_k k^-1 E_e f(k V(x) + e), since k e and e have one law.
(b) and (c) hold an interpolation error of g^-1: its floor is the same pipeline with the exact answer V(g x) as model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.decomposition.crossed import Redraw
from equiscope.symmetry.declaration import Declaration, Input, Output
from equiscope.symmetry.grids import GridAction
from equiscope.tasks.seeded import key
from equiscope.tasks.task import Probe, ProbeDesign
from equiscope.tasks.voxels.data import noise_grids
from equiscope.tasks.voxels.voxelise import Grid, voxelise

Batches = Sequence[Mapping[str, Tensor]]
OCTAHEDRAL, SO3, AVERAGED = "octahedral", "SO(3), cubic", "SO(3), cubic, noise averaged"
TRILINEAR, OCTAHEDRAL_AVERAGED = "SO(3), trilinear", "octahedral, noise averaged"


def oracle_name(kind: str) -> str:
    """The probe whose model is the exact answer."""
    return f"oracle, {kind}"


def octahedral_declaration(size: int) -> Declaration:
    """(a): noisy and clean grids turn by permutation; the octahedral group is what is claimed."""
    grid = GridAction(size)
    return _declaration({"noisy": Input(grid)}, grid, "O")


def octahedral_averaged_declaration(size: int) -> Declaration:
    """The clean grid turns, the noise stays on its lattice."""
    grid = GridAction(size)
    return _declaration({"grid": Input(grid)}, grid, "O", fixed=("noise",))


def so3_declaration(size: int, resampling: str) -> Declaration:
    """(b) and (c): positions turn about the grid's centre, the answer is resampled."""
    inputs = {"pos": Input("1o", points=True)}
    return _declaration(inputs, GridAction(size, resampling), "SO3", fixed=("noise",), mask="mask")


def _declaration(inputs: Mapping[str, Input], grid: GridAction, group: str, **settings: Any) -> Declaration:
    outputs = {"clean": Output(grid, target="clean", loss="mse", per="sample")}
    return Declaration(inputs, outputs, group=group, clusters="molecule", ids="id", **settings)


def denoise(grid: Grid) -> Callable[[nn.Module, Mapping[str, Tensor]], Any]:
    """Voxelise positions (that :func:`gridded` has checked), add the noise of the batch, and ask the model."""

    def forward(model: nn.Module, batch: Mapping[str, Tensor]) -> Any:
        clean = voxelise(batch["pos"], batch["species"], batch["mask"], grid, checked=True)
        return model({"noisy": clean + batch["noise"]})

    return forward


def exact(grid: Grid) -> Callable[[nn.Module, Mapping[str, Tensor]], Any]:
    """The exact answer to a turned molecule, whatever the model."""

    def forward(model: nn.Module, batch: Mapping[str, Tensor]) -> Any:
        return {"clean": voxelise(batch["pos"], batch["species"], batch["mask"], grid, checked=True)}

    return forward


def add_noise(model: nn.Module, batch: Mapping[str, Tensor]) -> Any:
    """Ask the model about the turned grid with the noise of the batch."""
    return model({"noisy": batch["grid"] + batch["noise"]})


def redraw(grid: Grid, sigma: float, seed: int, draws: int) -> Redraw:
    """Voxel noise anew: a function of the seed, the sample's id and the number of the draw."""

    def draw(fields: Mapping[str, Tensor], number: int) -> Tensor:
        seeds = torch.tensor([key(seed, "redrawn", number, i) for i in fields["id"].tolist()])
        return noise_grids(seeds, grid, sigma).to(fields["noise"].device)

    return Redraw("noise", draw, draws)


def gridded(batches: Batches, grid: Grid, sigma: float, seed: int) -> list[dict[str, Tensor]]:
    """The batches with their exact ``clean`` grids and one ``noise`` a sample."""
    made = []
    for batch in batches:
        seeds = torch.tensor([key(seed, "noise", i) for i in batch["id"].tolist()])
        clean = voxelise(batch["pos"], batch["species"], batch["mask"], grid)
        made.append({**batch, "clean": clean, "noise": noise_grids(seeds, grid, sigma)})
    return made


def tracked(batches: Batches, grid: Grid, sigma: float, seed: int, rotations: int, draws: int) -> list[Probe]:
    """(a), (b) and (c) on ``batches`` of :func:`gridded`; (a) is the headline."""
    own = [_only(b, "molecule", "id", "clean") | {"noisy": b["clean"] + b["noise"]} for b in batches]
    cubic, haar = so3_declaration(grid.size, "cubic"), ProbeDesign("haar", rotations)
    crossed = ProbeDesign("haar", rotations, redraw(grid, sigma, seed, draws))
    return [
        Probe(OCTAHEDRAL, own, octahedral_declaration(grid.size), None, True, ProbeDesign("O", 1)),
        Probe(SO3, batches, cubic, denoise(grid), False, haar),
        Probe(AVERAGED, batches, cubic, denoise(grid), False, crossed),
    ]


def final(batches: Batches, grid: Grid, sigma: float, seed: int, rotations: int, draws: int) -> list[Probe]:
    """The tracked ones; (b) with trilinear resampling; (a) of the noise-averaged model; each resampling's oracle."""
    own = [_only(b, "molecule", "id", "clean", "noise") | {"grid": b["clean"]} for b in batches]
    whole = ProbeDesign("O", 1, redraw(grid, sigma, seed, draws))
    haar = ProbeDesign("haar", rotations)
    found = tracked(batches, grid, sigma, seed, rotations, draws)
    trilinear = so3_declaration(grid.size, "trilinear")
    found.append(Probe(TRILINEAR, batches, trilinear, denoise(grid), False, haar))
    averaged = octahedral_averaged_declaration(grid.size)
    found.append(Probe(OCTAHEDRAL_AVERAGED, own, averaged, add_noise, False, whole))
    for kind in ("trilinear", "cubic"):
        found.append(Probe(oracle_name(kind), batches, so3_declaration(grid.size, kind), exact(grid), False, haar))
    return found


def _only(batch: Mapping[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: batch[name] for name in names}
