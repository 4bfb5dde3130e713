"""metatomic's symmetrised calculator and equiscope's ASE door on the same ASE calculator, a trained force field.

    make metatomic

`metatomic_ase.SymmetrizedCalculator` averages a calculator over a fixed product grid (Lebedev points on the sphere,
2 l + 1 angles about each) and returns the standard deviation of every force component over it. It is written for
metatomic's own models, but asks of its base only ``calculate`` and ``compute_energy(list of structures)``, which the
calculator here has. Squared and averaged over components, its figure is the equivariance error of the structure. Errors
are root mean squares over structures, relative to the mean of ten cosets of I (600 rotations).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from metatomic_ase import SymmetrizedCalculator

import equiscope as eq
from equiscope.runs.trained import open_run

RESULTS = Path(__file__).parent / "results"
SEEDS, ROUNDS = 6, 5


class ForceField(Calculator):
    """A trained force field of the force-field task; atoms carry their species in ``arrays["species"]``."""

    implemented_properties = ("energy", "forces")

    def __init__(self, model):
        super().__init__()
        self.model = model

    def answer(self, structures):
        """Energies (n,) and the forces (atoms, 3) of each structure."""
        energies, forces = np.zeros(len(structures)), [np.zeros(0)] * len(structures)
        # Those of one size together, without padding.
        for size in {len(a) for a in structures}:
            places = [i for i, a in enumerate(structures) if len(a) == size]
            own = [structures[i] for i in places]
            batch = {
                "pos": torch.tensor(np.stack([a.positions for a in own]), dtype=torch.float32),
                "species": torch.tensor(np.stack([a.arrays["species"] for a in own])),
                "mask": torch.ones(len(own), size, dtype=torch.bool),
            }
            with torch.no_grad():
                found = self.model(batch)
            for i, energy, force in zip(places, found.get("energy", torch.zeros(len(own))), found["forces"], strict=True):
                # In the precision of the model, as metatomic's own calculators answer lists.
                energies[i], forces[i] = float(energy), force.numpy()
        return energies, forces

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy, forces = self.answer([atoms])
        self.results = {"energy": float(energy[0]), "forces": forces[0]}

    def compute_energy(self, systems, compute_forces_and_stresses=False, per_atom=False):
        """The batched call that metatomic's wrapper makes."""
        energy, forces = self.answer(systems)
        return {"energy": list(energy), "forces": list(forces)}


def structures(probe, count: int) -> list[Atoms]:
    """The first held-out samples as ASE structures; the chemical symbols are placeholders."""
    made: list[Atoms] = []
    for batch in probe.batches:
        for pos, species, mask in zip(batch["pos"], batch["species"], batch["mask"], strict=True):
            if len(made) == count:
                return made
            atoms = Atoms("X" * int(mask.sum()), positions=pos[mask].double().numpy())
            atoms.set_array("species", species[mask].numpy())
            made.append(atoms)
    return made


def theirs(calculator, made, l_max: int, inversion: bool):
    """Equivariance error of each structure, and rotations a structure (one more call is made and thrown away)."""
    wrapped = SymmetrizedCalculator(
        calculator, l_max=l_max, include_inversion=inversion, store_rotational_std=True, batch_size=64
    )
    found = []
    for atoms in made:
        wrapped.calculate(atoms, ["energy", "forces"], all_changes)
        found.append(float((wrapped.results["forces_rot_std"] ** 2).mean()))
    return np.array(found), len(wrapped.quadrature_rotations)


def ours(calculator, made, rotations: str, cosets: int, seed: int):
    """Equivariance error of each structure, and rotations a structure."""
    result = eq.adapters.ase.measure(
        calculator, made, ("forces",), rotations=rotations, cosets=cosets, seed=seed, noise_samples=0, progress=False
    )
    found = np.array([row.values["forces_rms"] ** 2 for row in result.rows])
    return found, int(next(iter(result.results.values())).passes)


def judged(name: str, passes: int, found: np.ndarray, truth: np.ndarray, seconds: float) -> dict:
    error = float(np.sqrt(((found - truth) ** 2).mean()) / truth.mean())
    bias = float(found.mean() / truth.mean() - 1)
    return {"design": name, "rotations": passes, "error": error, "bias": bias, "seconds": seconds}


def designs(calculator, made) -> list[dict]:
    """Every design on the same structures, against 600 rotations."""
    truth, _ = ours(calculator, made, "I", 10, 99)
    rows = []
    for l_max, inversion in ((1, False), (2, False), (3, False), (5, False), (3, True)):
        begun = time.process_time()
        found, passes = theirs(calculator, made, l_max, inversion)
        group = "O(3), its default" if inversion else "SO(3)"
        rows.append(judged(f"metatomic, l_max = {l_max}, {group}", passes, found, truth, time.process_time() - begun))
    for rotations, cosets in (("haar", 24), ("T", 2), ("O", 2), ("I", 2)):
        begun = time.process_time()
        several = [ours(calculator, made, rotations, cosets, seed) for seed in range(SEEDS)]
        spent = (time.process_time() - begun) / SEEDS
        found = np.stack([v for v, _ in several])
        rows.append(judged(f"equiscope, {cosets} x {rotations}", several[0][1], found, truth, spent))
    return rows


def speed(calculator, made) -> dict:
    """CPU seconds of both at 84 rotations a structure, in turns."""
    spent: dict[str, list[float]] = {"metatomic": [], "equiscope": []}
    for _ in range(ROUNDS):
        for name, call in (
            ("metatomic", lambda: theirs(calculator, made, 3, True)), ("equiscope", lambda: ours(calculator, made, "T", 7, 0))
        ):  # fmt: skip
            begun = time.process_time()
            call()
            spent[name].append(time.process_time() - begun)
    return {"rotations": 84, "seconds": spent}


def page(stored: dict) -> str:
    lines = [
        f"| {r['design']} | {r['rotations']} | {r['error']:.5f} | {r['bias']:+.5f} | {r['seconds']:.1f} |"
        for r in stored["designs"]
    ]
    spent = stored["speed"]["seconds"]
    middle, least = ({k: f(v) for k, v in spent.items()} for f in (statistics.median, min))
    return "\n".join([
        "# metatomic's symmetrised calculator beside equiscope on one ASE calculator",
        "",
        "`make metatomic`. Equivariance error of the forces of the demo's trained model on "
        f"{stored['structures']} held-out molecules; errors per molecule are root mean squares relative to the mean, against 600 "
        f"rotations; equiscope over {SEEDS} seeds. metatomic-ase 0.1.4 turns all copies of a structure in one batch, "
        f"the ASE door turns several structures in one. CPU time of one thread, load {stored['load']}.",
        "",
        "| design | rotations | error per molecule | bias | CPU s |",
        "| --- | --- | --- | --- | --- |",
        *lines,
        "",
        f"At {stored['speed']['rotations']} rotations of every molecule, the two in turns {len(spent['metatomic'])} times: "
        f"metatomic {middle['metatomic']:.2f} s of CPU time (median; least {least['metatomic']:.2f}), equiscope "
        f"{middle['equiscope']:.2f} ({least['equiscope']:.2f}), which is "
        f"{middle['equiscope'] / middle['metatomic']:.2f} ({least['equiscope'] / least['metatomic']:.2f}) times as long. "
        "equiscope's includes the answer as given, a second one (is the model random?) and the floor of one molecule.",
        "",
        "metatomic's grid is fixed: the same rotations for every structure, no replicate, so its error is a bias that "
        "its output does not show. Where the model's degrees lie below half the grid's it is exact. equiscope's cosets "
        "are unbiased whatever the degrees, and their spread is in the interval. The one figure metatomic lacks is the "
        "loss: its spread becomes a percent only with labels.",
        "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--samples", type=int, default=48)
    options = parser.parse_args()
    torch.set_num_threads(1)
    opened = open_run(options.run)
    opened.task.prepare(progress=False)
    made = structures(opened.task.probes("final")[0], options.samples)
    calculator = ForceField(opened.model)
    paced = speed(calculator, made)
    load = ", ".join(f"{v:.1f}" for v in os.getloadavg())
    own = {"structures": len(made), "load": load, "speed": paced, "designs": designs(calculator, made)}
    record = RESULTS / "metatomic.json"
    stored = {**(json.loads(record.read_text()) if record.exists() else {}), **own}
    record.write_text(json.dumps(stored, indent=1) + "\n")
    # The second part is that of degree4.py.
    before = (RESULTS / "metatomic.md").read_text() if (RESULTS / "metatomic.md").exists() else ""
    rest = before[before.find("\n## ") :] if "\n## " in before else ""
    (RESULTS / "metatomic.md").write_text(page(stored) + rest)
    print(page(stored))


if __name__ == "__main__":
    main()
