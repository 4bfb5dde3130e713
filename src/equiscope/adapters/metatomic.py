"""metatomic models (PET, MACE, NequIP and others exported so): many structures a call, each with its own rotation.

    import equiscope as eq

    result = eq.adapters.metatomic.measure("model.pt", "structures.extxyz", labels=True)
    print(result)                          # energy, forces by gradient and direct, stress: what the model has

or ``equiscope measure --metatomic model.pt structures.extxyz``. A model in memory (``AtomisticModel``) does as well.
Neighbour lists are made anew at every pass, by vesin, and their pairs are sorted, so that features of pairs keep their
places as far as the pairs themselves do. Units are eV and Å.

Direct forces are the model's own: ``metatomic_ase.MetatomicCalculator`` takes their mean off, which this does not.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.adapters import ase
from equiscope.adapters import ase_structures as st
from equiscope.adapters.many import DTYPES, MOST_ATOMS, sizes, voigt
from equiscope.errors import InputError


@contextlib.contextmanager
def _compilable() -> Iterator[None]:
    """PyTorch Geometric puts a Python function in the place of an operation, which then does not compile in others."""
    replaced, patched = sys.modules.get("torch_geometric.hash_tensor"), torch.index_select
    torch.index_select = getattr(replaced, "_old_index_select", patched)
    try:
        yield
    finally:
        torch.index_select = patched


try:
    with _compilable():
        from metatensor.torch import Labels, TensorBlock
        from metatomic.torch import (
            AtomisticModel,
            ModelEvaluationOptions,
            ModelOutput,
            System,
            load_atomistic_model,
            pick_device,
            register_autograd_neighbors,
        )
    from vesin import NeighborList
except ImportError as error:
    text = f"metatomic models need metatomic and vesin ({error}): pip install 'equiscope[metatomic]'"
    raise InputError(text) from error

__all__ = ["Metatomic", "measure"]

FEATURE = "mtt::feature::"
"""Begins the names under which metatrain's models in memory answer what any module of theirs answers."""
_UNITS = {"energy": "eV", "forces": "eV/Angstrom", "stress": "eV/Angstrom^3"}
# Names in the model, the newest first.
_KEYS = {
    "energy": ("energy",),
    "non_conservative_forces": ("non_conservative_force", "non_conservative_forces"),
    "non_conservative_stress": ("non_conservative_stress",),
}


class Metatomic(nn.Module):
    """An ``AtomisticModel`` as an :class:`equiscope.adapters.many.Engine`; called with a batch, all its outputs.

    Args:
        model: a file, or the model.
        device: where it computes; by default the first that the model supports and this machine has. A model in memory
            is moved there.
        extensions: folder with the extensions a file needs.
        variant: of the energy and what belongs to it, ``"pbe"`` for ``"energy/pbe"``.
        outputs: those that ``forward`` answers, features too; by default energy, forces and stresses that there are.

    Raises:
        InputError: for no such file or none of metatomic, a model with neither energies nor direct forces, or one that
            asks for further inputs.
    """

    def __init__(
        self,
        model: Any,
        device: str | torch.device | None = None,
        *,
        extensions: str | Path | None = None,
        variant: str | None = None,
        outputs: Sequence[str] | None = None,
    ):
        super().__init__()
        model = _loaded(model, extensions)
        capabilities = model.capabilities()
        picked = pick_device(capabilities.supported_devices, None if device is None else torch.device(device).type)
        self.device = torch.device(picked if device is None else device)
        self.model = model.to(self.device)
        self.dtype = DTYPES[capabilities.dtype]
        self.known = dict(capabilities.outputs)
        self.keys = {o: key for o, names in _KEYS.items() if (key := _key(names, variant, self.known)) is not None}
        self.name = model.metadata().name or "metatomic model"
        self.most_atoms: int | None = MOST_ATOMS.get(self.device.type, MOST_ATOMS["cuda"])
        from_energy = st.OUTPUTS if "energy" in self.keys else ()
        self.outputs = (*from_energy, *(o for o in _KEYS if o in self.keys and o != "energy"))
        if not self.outputs:
            raise InputError(f"the model has neither energies nor direct forces; its outputs are {sorted(self.known)}")
        requested = sorted(model.requested_inputs(use_new_names=True))
        if requested:
            raise InputError(
                f"the model asks for {requested} beside positions, types and cell, which this door does not hand over: "
                "measure a metatomic_ase.MetatomicCalculator, eq.adapters.ase.measure(calculator, …)"
            )
        self.lists = [
            (options, NeighborList(cutoff=options.engine_cutoff("angstrom"), full_list=options.full_list, skin=0.0))
            for options in model.requested_neighbor_lists()
        ]
        self.answered = tuple(outputs or self.outputs)

    def features(self, name: str) -> str | None:
        if name.startswith(FEATURE):
            return "atom"
        found = self.known.get(name)
        return None if found is None else "sample" if found.sample_kind == "system" else "atom"

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return self.answer(batch, self.answered)

    def answer(self, batch: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Tensor]:
        """See :class:`equiscope.adapters.many.Engine`; features as (rows, width)."""
        forces, stress = "forces" in wanted, "stress" in wanted
        with torch.set_grad_enabled(forces or stress):
            positions = batch["positions"].detach().requires_grad_(forces)
            cell = batch["cell"].detach()
            strain = torch.eye(3, dtype=cell.dtype, device=cell.device).repeat(len(cell), 1, 1).requires_grad_(stress)
            moved, turned = _strained(batch, positions, cell, strain) if stress else (positions, cell)
            found = self._run(batch, moved, turned, wanted)
            answer = {name: self._rows(name, found, batch) for name in wanted if name in found}
            if forces or stress:
                answer |= _gradients(found["energy"], positions, strain, cell, forces, stress)
        return {name: value.detach() for name, value in answer.items() if name in wanted}

    def _run(
        self, batch: Mapping[str, Any], positions: Tensor, cell: Tensor, wanted: Sequence[str]
    ) -> dict[str, TensorBlock]:
        # Lattice vectors of directions that are not periodic mean nothing, and metatomic wants them zero.
        cell = torch.where(batch["pbc"][..., None], cell, torch.zeros_like(cell))
        counts = sizes(batch).tolist()
        parts = (batch["numbers"].int().split(counts), positions.split(counts), cell, batch["pbc"])
        systems = [System(types=t, positions=p, cell=c, pbc=b) for t, p, c, b in zip(*parts, strict=True)]
        for options, compute in self.lists:
            for system in systems:
                neighbours = _neighbours(compute, system)
                register_autograd_neighbors(system, neighbours, check_consistency=False)
                system.add_neighbor_list(options, neighbours)
        names = {*wanted} - {"forces", "stress"} | ({"energy"} if {"forces", "stress"} & {*wanted} else set())
        outputs = {}
        for name in names:
            per = "system" if st.kind(name) in ("energy", "stress") else self.features(self.keys.get(name, name))
            kind = "system" if per in ("system", "sample") else "atom"
            outputs[self.keys.get(name, name)] = ModelOutput(unit=_UNITS.get(st.kind(name), ""), sample_kind=kind)
        # What a module inside answers is asked of the model itself, without a change of units.
        inner = {name: outputs.pop(name) for name in [*outputs] if name.startswith(FEATURE)}
        found = self.model.module(systems, inner, None) if inner else {}
        if outputs:
            options = ModelEvaluationOptions(length_unit="angstrom", outputs=outputs)
            found |= self.model(systems, options, check_consistency=False)
        lacking = sorted(inner.keys() - found.keys())
        if lacking:
            raise InputError(
                f"the model answers no {lacking}: exported models do not, a checkpoint loaded by metatrain does "
                "(metatrain.utils.io.load_model(…).export()), for modules that there are"
            )
        return {name: found[self.keys.get(name, name)].block() for name in names}

    def _rows(self, name: str, found: Mapping[str, TensorBlock], batch: Mapping[str, Any]) -> Tensor:
        block = found[name]
        if "first_atom" in block.samples.names or list(block.samples.names)[:1] != ["system"]:
            raise InputError(f"output {name!r} has rows for {block.samples.names}: ask for one with rows for atoms")
        if block.samples.names == ["system"]:
            order = block.samples.column("system").argsort()
        else:
            order = (block.samples.column("system") * len(batch["system"]) + block.samples.column("atom")).argsort()
        values = block.values[order]
        if st.kind(name) == "energy":
            return values[:, 0]
        if st.kind(name) == "stress":
            return voigt(values.reshape(-1, 3, 3))
        return values.reshape(-1, 3) if st.kind(name) == "forces" else values.flatten(1)


def measure(model: Any, structures: Any, *arguments: Any, device: Any = None, **settings: Any) -> Any:
    """The equivariance error of a metatomic model: :func:`equiscope.adapters.ase.measure` with ``Metatomic(model)``.

    Args:
        model: a file, an ``AtomisticModel``, or a :class:`Metatomic`. device: where it computes.

    Raises:
        InputError: as :class:`Metatomic` and :func:`equiscope.adapters.ase.measure`.
    """
    engine = model if isinstance(model, Metatomic) else Metatomic(model, device)
    return ase.measure(engine, structures, *arguments, **settings)


def _loaded(model: Any, extensions: str | Path | None) -> Any:
    if not isinstance(model, str | Path):
        if isinstance(model, AtomisticModel) or getattr(model, "original_name", "") == "AtomisticModel":
            return model
        raise InputError(
            f"model is {type(model).__name__}: give a file, or an AtomisticModel (metatrain's models make one, "
            "model.export())"
        )
    if not Path(model).is_file():
        raise InputError(
            f"there is no model {str(model)!r} here, and none is downloaded: fetch and export it where there is a "
            "network (`mtt export …`), and give the .pt file"
        )
    try:
        return load_atomistic_model(model, extensions)
    except Exception as error:
        raise InputError(
            f"metatomic cannot load {str(model)!r}: {str(error).splitlines()[0]}; a checkpoint is exported first, "
            "`mtt export model.ckpt`"
        ) from error


def _key(names: Sequence[str], variant: str | None, known: Mapping[str, Any]) -> str | None:
    """The model's own name of an output.

    Raises:
        InputError: if there are variants of it, and none or another is asked for.
    """
    for name in names:
        variants = sorted(k for k in known if k == name or k.startswith(f"{name}/"))
        asked = name if variant is None else f"{name}/{variant}"
        if asked in variants:
            return asked
        if len(variants) == 1 and variant is None:
            return variants[0]
        if variants and name == "energy":
            raise InputError(f"the model has {variants}: choose one, variant={variants[-1].partition('/')[2]!r}")
    return None


def _strained(batch: Mapping[str, Any], positions: Tensor, cell: Tensor, strain: Tensor) -> tuple[Tensor, Tensor]:
    return torch.einsum("ni,nij->nj", positions, strain[batch["system"]]), cell @ strain


def _gradients(
    energies: TensorBlock, positions: Tensor, strain: Tensor, cell: Tensor, forces: bool, stress: bool
) -> dict[str, Tensor]:
    """Forces are minus the gradient of the energy by the positions, stress its gradient by a strain over the volume."""
    total = energies.values.sum()
    if not total.requires_grad:
        raise InputError("the model's energy does not depend on positions in a way torch can differentiate: no forces")
    asked = ([positions] if forces else []) + ([strain] if stress else [])
    found = list(torch.autograd.grad(total, asked, allow_unused=True))
    answer = {}
    if forces:
        by_positions = found.pop(0)
        answer["forces"] = torch.zeros_like(positions) if by_positions is None else -by_positions
    if stress:
        by_strain = found.pop(0)
        whole = torch.zeros_like(strain) if by_strain is None else by_strain
        answer["stress"] = voigt(whole / torch.linalg.det(cell).abs()[:, None, None])
    return answer


def _neighbours(compute: NeighborList, system: System) -> TensorBlock:
    """Pairs of a structure, sorted by first and second atom and by image."""
    pairs, shifts, vectors = compute.compute(
        points=system.positions.detach(), box=system.cell.detach(), periodic=system.pbc, quantities="PSD", copy=True
    )
    samples = torch.cat([torch.as_tensor(rows).int() for rows in (pairs, shifts)], dim=1)
    values = torch.as_tensor(vectors)
    # Images beyond these would lie in the order in which they were found, which is right too.
    first, second, a, b, c = samples.long().unbind(1)
    order = ((first * len(system) + second) * 4096 * 64 + a * 4096 + b * 64 + c).argsort()
    names = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]
    device = values.device
    return TensorBlock(
        values[order].reshape(-1, 3, 1),
        Labels(names, samples[order].contiguous(), assume_unique=True),
        [Labels("xyz", torch.arange(3, device=device).reshape(3, 1))],
        Labels("distance", torch.zeros(1, 1, dtype=torch.int64, device=device)),
    )
