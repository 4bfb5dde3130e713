"""What a fixed grid of rotations does not see: metatomic's SymmetrizedModel and equiscope on an artefact of degree 4.

    make metatomic

The model is a potential fixed in the laboratory, V(x) = T_abcd x_a x_b x_c x_d with T symmetric and traceless, so of
Wigner degree 4 and nothing else: energy sum_i V(x_i), direct force -grad V(x_i). T is the cubic harmonic, which the
octahedral group leaves as it is, or drawn at random. The truth is known in closed form (Schur's lemma on the nine
components of degree 4; r_i = |x_i|):

    variance of the energy                 |T|^2 |S|^2 / 9,      S the degree-4 part of sum_i x_i x_i x_i x_i
    variance of the force, per component   mean_i 36 (8/35) / 27 |T|^2 r_i^6
"""

# No postponed annotations here: metatomic looks at those of a model.
import itertools
import json
import math
import time
import warnings
from pathlib import Path
from typing import Dict, List, Optional  # noqa: UP035 TorchScript knows no others

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.collections import g2
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelEvaluationOptions,
    ModelMetadata,
    ModelOutput,
    System,
)
from metatomic.torch.o3 import SymmetrizedModel

import equiscope as eq

PAGE = Path(__file__).parent / "results" / "metatomic.md"
RECORD = PAGE.with_suffix(".json")
HEADING = "## What a fixed grid does not see"
COUNT, SEEDS, FEW = 30, 24, 4
UNITS = {"energy": "eV", "non_conservative_force": "eV/A"}


class Laboratory(torch.nn.Module):
    """The potential of a traceless tensor of rank 4 (Å divided by 2)."""

    def __init__(self, tensor):
        super().__init__()
        self.register_buffer("tensor", tensor)

    def forward(
        self, systems: List[System], outputs: Dict[str, ModelOutput], selected_atoms: Optional[Labels]  # noqa: UP006, UP045
    ) -> Dict[str, TensorMap]:  # noqa: UP006
        energies: List[torch.Tensor] = []  # noqa: UP006
        forces: List[torch.Tensor] = []  # noqa: UP006
        owners: List[torch.Tensor] = []  # noqa: UP006
        for s, system in enumerate(systems):
            x = system.positions / 2.0
            gradient = torch.einsum("abcd,ib,ic,id->ia", self.tensor, x, x, x)
            energies.append((gradient * x).sum().reshape(1, 1))
            forces.append(-2.0 * gradient)
            n = x.shape[0]
            owners.append(torch.stack([torch.full((n,), s, dtype=torch.int64), torch.arange(n)], dim=1))
        found: Dict[str, TensorMap] = {}  # noqa: UP006
        key = Labels(["_"], torch.tensor([[0]]))
        if "energy" in outputs:
            of = Labels(["system"], torch.arange(len(systems)).reshape(-1, 1))
            one = Labels(["energy"], torch.tensor([[0]]))
            found["energy"] = TensorMap(key, [TensorBlock(torch.cat(energies), of, [], one)])
        if "non_conservative_force" in outputs:
            of = Labels(["system", "atom"], torch.cat(owners))
            xyz = Labels(["xyz"], torch.arange(3).reshape(-1, 1))
            one = Labels(["non_conservative_force"], torch.tensor([[0]]))
            block = TensorBlock(torch.cat(forces).unsqueeze(-1), of, [xyz], one)
            found["non_conservative_force"] = TensorMap(key, [block])
        return found


def symmetric(tensor: torch.Tensor) -> torch.Tensor:
    return sum(tensor.permute(*p) for p in itertools.permutations(range(tensor.ndim))) / math.factorial(tensor.ndim)


def traceless(tensor: torch.Tensor) -> torch.Tensor:
    """The part of degree 4 of a tensor of rank 4: symmetric, every trace zero."""
    t, unit = symmetric(tensor), torch.eye(3, dtype=tensor.dtype)
    trace = torch.einsum("abcc->ab", t)
    once = symmetric(torch.einsum("ab,cd->abcd", unit, trace))
    twice = symmetric(torch.einsum("ab,cd->abcd", unit, unit)) * trace.trace()
    return t - 6 / 7 * once + 3 / 35 * twice


def truth(tensor: torch.Tensor, structures: list[Atoms]) -> dict[str, np.ndarray]:
    """The variances in closed form, of each structure."""
    size, energy, force = float(tensor.square().sum()), [], []
    for atoms in structures:
        x = torch.from_numpy(atoms.positions) / 2.0
        part = traceless(torch.einsum("ia,ib,ic,id->abcd", x, x, x, x))
        energy.append(size * float(part.square().sum()) / 9)
        # The gradient is by the position in Å, of which x is half.
        force.append(36 * (8 / 35) / 27 * size * float((x.norm(dim=-1) ** 6).mean()) / 4)
    return {"energy": np.array(energy), "non_conservative_force": np.array(force)}


def atomistic(tensor: torch.Tensor) -> AtomisticModel:
    kinds = {"energy": "system", "non_conservative_force": "atom"}
    outputs = {name: ModelOutput(unit=UNITS[name], sample_kind=kind) for name, kind in kinds.items()}
    capabilities = ModelCapabilities(
        outputs=outputs, atomic_types=list(range(1, 100)), interaction_range=0.0, length_unit="angstrom",
        supported_devices=["cpu"], dtype="float64",
    )  # fmt: skip
    return AtomisticModel(Laboratory(tensor).eval(), ModelMetadata(), capabilities)


def systems(numbers: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> list[System]:
    none, open_ = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.bool)
    return [System(z[m], x[m], none, open_) for z, x, m in zip(numbers, positions, mask, strict=True)]


def theirs(model: AtomisticModel, batch: dict, grid: int | None) -> tuple[dict[str, np.ndarray], int, float]:
    """Variances of each structure by SymmetrizedModel, evaluations a structure, seconds."""
    wrapped = SymmetrizedModel.wrap(model, max_angular_momentum_grid=grid, batch_size=1000)
    wanted = {f"o3::variance::{name}": ModelOutput(sample_kind="system" if name == "energy" else "atom") for name in UNITS}
    begun = time.process_time()
    options = ModelEvaluationOptions(length_unit="angstrom", outputs=wanted)
    found = wrapped(systems(batch["numbers"], batch["pos"], batch["mask"]), options, False)
    seconds, sizes = time.process_time() - begun, batch["mask"].sum(1).numpy()
    values = {name: found[f"o3::variance::{name}"].block().values[:, 0].detach().numpy() for name in UNITS}
    # Of a structure, the mean over its atoms and components.
    parts = np.split(values["non_conservative_force"], np.cumsum(sizes)[:-1])
    values["non_conservative_force"] = np.array([p.mean() for p in parts])
    return values, 2 * len(wrapped.module._rotation_weights), seconds


def ours(model: AtomisticModel, batch: dict, **design) -> tuple[eq.Result, float]:
    asked = {name: ModelOutput(unit=unit, sample_kind="system" if name == "energy" else "atom") for name, unit in UNITS.items()}
    options = ModelEvaluationOptions(length_unit="angstrom", outputs=asked)

    def forward(of, fields):
        found = of(systems(fields["numbers"], fields["pos"], fields["mask"]), options, False)
        padded = torch.zeros_like(fields["pos"])
        padded[fields["mask"]] = found["non_conservative_force"].block().values[..., 0]
        return {"energy": found["energy"].block().values[:, 0], "non_conservative_force": padded}

    begun = time.process_time()
    outputs = {"energy": eq.Output("0e", per="sample"), "non_conservative_force": "1o"}
    result = eq.measure(
        model, [batch], inputs={"pos": "1o"}, outputs=outputs, mask="mask", fixed=["numbers"], forward=forward,
        noise_samples=COUNT, **design,
    )  # fmt: skip
    return result, time.process_time() - begun


def batch_of(structures: list[Atoms]) -> dict:
    width = max(map(len, structures))
    batch = {
        "pos": torch.zeros(COUNT, width, 3, dtype=torch.float64),
        "numbers": torch.zeros(COUNT, width, dtype=torch.int64),
        "mask": torch.zeros(COUNT, width, dtype=torch.bool),
    }
    for i, atoms in enumerate(structures):
        n = len(atoms)
        batch["pos"][i, :n], batch["mask"][i, :n] = torch.from_numpy(atoms.positions), True
        batch["numbers"][i, :n] = torch.from_numpy(atoms.numbers)
    return batch


def rows() -> list[dict]:
    """What every design finds of both tensors, as a share of the truth."""
    structures = [molecule(name) for name in [n for n in g2.names if 4 < len(molecule(n)) < 17][:COUNT]]
    for atoms in structures:
        atoms.positions -= atoms.get_center_of_mass()
    batch, cubic = batch_of(structures), torch.zeros(3, 3, 3, 3, dtype=torch.float64)
    cubic[range(3), range(3), range(3), range(3)] = 1.0
    torch.manual_seed(1)
    found_rows = []
    for kind, tensor in (("cubic harmonic", traceless(cubic)), ("generic", traceless(torch.randn(3, 3, 3, 3, dtype=torch.float64)))):
        model, exact = atomistic(tensor), truth(tensor, structures)
        for title, grid in (("metatomic, its default", None), ("metatomic, grid of degree 9", 9)):
            found, evaluations, seconds = theirs(model, batch, grid)
            shares = {name: [float(found[name].mean() / exact[name].mean())] for name in UNITS}
            found_rows.append({"artefact": kind, "design": title, "evaluations": evaluations, "shares": shares,
                               "seconds": seconds})  # fmt: skip
        for title, design in (
            ("equiscope, O once, unshifted", {"rotations": "O", "cosets": 1, "shift": False}),
            ("equiscope, 2 x T, the default", {"rotations": "T"}),
            ("equiscope, 2 x O", {"rotations": "O"}),
            ("equiscope, 2 x I", {"rotations": "I"}),
        ):
            seeds = range(1 if "shift" in design else SEEDS if design["rotations"] == "T" else FEW)
            several = [ours(model, batch, seed=seed, **design) for seed in seeds]
            shares = {n: [float(r.outputs[n].equivariance / exact[n].mean()) for r, _ in several] for n in UNITS}
            called = {n: sum(bool(r.outputs[n].distinguishable) for r, _ in several) for n in UNITS}
            found_rows.append({"artefact": kind, "design": title, "evaluations": several[0][0].passes, "shares": shares,
                               "called": called, "seconds": float(np.mean([s for _, s in several]))})  # fmt: skip
    return found_rows


def line(row: dict) -> str:
    shares = []
    for values in row["shares"].values():
        error = f" ± {np.std(values, ddof=1) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
        shares.append(f"{np.mean(values):.3f}{error}")
    count = len(row["shares"]["energy"])
    called = "{}, {} of {}".format(*row["called"].values(), count) if "called" in row else "–"
    return (
        f"| {row['artefact']} | {row['design']} | {row['evaluations']:g} | {' | '.join(shares)} | {called} | "
        f"{row['seconds']:.1f} |"
    )


def section(stored: list[dict]) -> str:
    """The table of both tensors."""
    lines = ["| artefact | design | evaluations | energy | direct force | called more than noise | seconds |",
             "| --- | --- | --- | --- | --- | --- | --- |", *map(line, stored)]  # fmt: skip
    return "\n".join([
        HEADING,
        "",
        f"`benchmarks/degree4.py`: `metatomic.torch.o3.SymmetrizedModel` (metatomic-torch 0.1.19) on {COUNT} molecules of "
        "the G2 set and a model with an error of Wigner degree 4 alone, known in closed form: the share of the true "
        f"variance that each design finds, 1 being right; equiscope's is the mean over {SEEDS} seeds (O and I: {FEW}) with its "
        "standard error. The default grid of SymmetrizedModel is the octahedral group, unshifted, times the inversion. One thread.",
        "",
        *lines,
        "",
        "The cubic harmonic is the same after every rotation of the octahedral group: on that grid the broken model "
        "answers as a perfect one would, with a variance of zero and no sign that anything is missing. Of a generic "
        "degree-4 error the grid sees a part, which depends on the structures. A coset K u with a random u has the same group in it and is unbiased "
        "for any degree, because u is drawn anew for every structure; the standard error says what is left to chance.",
        "",
    ])  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    before = PAGE.read_text().split(HEADING)[0].rstrip() if PAGE.exists() else ""
    found = rows()
    stored = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    RECORD.write_text(json.dumps({**stored, "degree 4": found}, indent=1) + "\n")
    made = section(found)
    PAGE.write_text(f"{before}\n\n{made}".lstrip())
    print(made)


if __name__ == "__main__":
    main()
