"""A planted error of degree 2 in the forces of SevenNet-0, found at its exact size through the metatomic and torch-sim
doors, and the speed of the torch-sim door.

    make metatomic          # python benchmarks/bent_sevennet.py metatomic
    make torch-sim          # python benchmarks/bent_sevennet.py torch-sim

Forces F become F + B F, B = 0.025 diag(1, 1, -2) fixed in space. Symmetric and traceless, R^T B R has the mean 0 over
rotations and the mean square |B|² / 3 along any F, so that the relative equivariance error is

    (|B|² / 3) / (1 + |B|² / 3) = 1.25e-3 / 1.00125 = 1.24844e-3

for any structure. The square |R^T B R F|² = F^T R^T B² R F holds degrees 0 and 2 alone, so that a coset of T, exact to
degree 2, finds it exactly as one of I does.
"""

# No postponed annotations here: metatomic looks at those of a model.
import json
import platform
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Dict, List, Optional  # noqa: UP035 TorchScript knows no others

import torch

import equiscope as eq

sys.path.append(str(Path(__file__).parents[1] / "examples" / "pretrained"))
HERE = Path(__file__).parent / "results"
BEND = torch.diag(torch.tensor([0.025, 0.025, -0.05]))
EXACT = 1.25e-3 / 1.00125
NETWORK = "7net-0"


def network():
    """SevenNet-0 for batches of structures."""
    from sevenn.util import load_checkpoint

    made = load_checkpoint(NETWORK).build_model().eval()
    made.set_is_batch_data(True)
    made.eval_type_map = torch.tensor(True)
    return made


def in_metatomic():
    """SevenNet-0 as an AtomisticModel that answers bent forces directly."""
    import sevenn._keys as key
    from metatensor.torch import Labels, TensorBlock, TensorMap
    from metatomic.torch import (
        AtomisticModel,
        ModelCapabilities,
        ModelMetadata,
        ModelOutput,
        NeighborListOptions,
        System,
    )
    from sevenn.atom_graph_data import AtomGraphData
    from torch_geometric.loader.dataloader import Collater

    from equiscope.adapters.metatomic import Metatomic

    class Bent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()
            self.register_buffer("bend", BEND)

        def requested_neighbor_lists(self) -> List[NeighborListOptions]:  # noqa: UP006
            return [NeighborListOptions(cutoff=float(self.inner.cutoff), full_list=True, strict=True)]

        def forward(
            self, systems: List[System], outputs: Dict[str, ModelOutput], selected_atoms: Optional[Labels]  # noqa: UP006, UP045
        ) -> Dict[str, TensorMap]:  # noqa: UP006
            graphs, owners = [], []
            for place, system in enumerate(systems):
                pairs = system.get_neighbor_list(system.known_neighbor_lists()[0])
                ends = torch.stack([pairs.samples.column(name).long() for name in ("first_atom", "second_atom")])
                count = len(system.positions)
                graphs.append(AtomGraphData(**{
                    key.NODE_FEATURE: system.types, key.ATOMIC_NUMBERS: system.types.long(), key.POS: system.positions,
                    key.EDGE_IDX: ends, key.EDGE_VEC: pairs.values.reshape(-1, 3).detach(),
                    key.CELL_VOLUME: torch.ones(()), key.NUM_ATOMS: torch.tensor(count), key.INFO: {},
                }))  # fmt: skip
                owners.append(torch.stack([torch.full((count,), place), torch.arange(count)], dim=1))
            with torch.enable_grad():
                found = self.inner(Collater([], None, None)(graphs))[key.PRED_FORCE].detach()
            bent = found + found @ self.bend
            xyz, one = Labels(["xyz"], torch.arange(3)[:, None]), Labels(["non_conservative_force"], torch.tensor([[0]]))
            block = TensorBlock(bent[:, :, None], Labels(["system", "atom"], torch.cat(owners)), [xyz], one)
            return {"non_conservative_force": TensorMap(Labels(["_"], torch.tensor([[0]])), [block])}

    capabilities = ModelCapabilities(
        outputs={"non_conservative_force": ModelOutput(unit="eV/A", sample_kind="atom")},
        atomic_types=list(range(1, 90)), interaction_range=20.0, length_unit="angstrom", supported_devices=["cpu"],
        dtype="float32",
    )  # fmt: skip
    return Metatomic(AtomisticModel(Bent().eval(), ModelMetadata(), capabilities)), "non_conservative_forces"


def in_torch_sim():
    """SevenNet-0 as a torch-sim model whose forces are bent."""
    from sevenn.torchsim import SevenNetModel

    from equiscope.adapters.torch_sim import TorchSim

    class Bent(SevenNetModel):
        def forward(self, state, **more):
            found = super().forward(state, **more)
            return {**found, "forces": found["forces"] + found["forces"] @ BEND}

    return TorchSim(Bent(network(), device="cpu")), "forces"


def in_ase():
    """SevenNet-0 as a calculator whose forces are bent, one structure after another."""
    from sevenn.calculator import SevenNetCalculator

    class Bent(SevenNetCalculator):
        def calculate(self, *arguments, **more):
            super().calculate(*arguments, **more)
            self.results["forces"] = self.results["forces"] + self.results["forces"] @ BEND.numpy()

    return Bent(NETWORK, device="cpu"), "forces"


def planted(make) -> dict:
    """What a door finds on displaced molecules and crystals, by two cosets of I and of T."""
    from atlas_models import crystals
    from potentials import structures

    (engine, output), found = make(), {}
    for rotations in ("I", "T"):
        begun = time.process_time()
        result = eq.adapters.ase.measure(
            engine, structures() + crystals(), [output], rotations=rotations, noise_samples=2, progress=False,
            on_error="raise",
        ).result  # fmt: skip
        own = result.outputs[output]
        found[rotations] = {
            "relative": own.relative_equivariance, "passes": result.passes, "structures": result.samples,
            "distinguishable": own.distinguishable, "seconds": time.process_time() - begun,
        }  # fmt: skip
    return found


def routed() -> dict:
    """SevenNet's own calculator: batches by themselves, and one structure after another."""
    from atlas_models import crystals
    from sevenn.calculator import SevenNetCalculator

    made, found = crystals() * 4, {}
    for name, more in (("many a call", {}), ("one a call", {"most_atoms": 1})):
        begun = time.process_time()
        outcome = eq.adapters.ase.measure(
            SevenNetCalculator(NETWORK, device="cpu"), made, ["energy", "forces"], noise_samples=0, progress=False, **more
        )
        relative = outcome.result.outputs["forces"].relative_equivariance
        found[name] = {"relative": relative, "calls": outcome.result.model_calls, "structures": len(made),
                       "seconds": time.process_time() - begun}  # fmt: skip
    return found


def speed() -> dict:
    """Lennard-Jones on 200 crystals of 32 atoms, 24 passes."""
    from ase.build import bulk
    from torch_sim.models.lennard_jones import LennardJonesModel

    model = LennardJonesModel(sigma=3.4, epsilon=0.0104, cutoff=8.0, dtype=torch.float64, compute_stress=True)
    made = []
    for seed in range(200):
        atoms = bulk("Ar", "fcc", a=5.3, cubic=True).repeat(2)
        atoms.rattle(0.1, seed=seed)
        made.append(atoms)
    begun = time.process_time()
    result = eq.adapters.torch_sim.measure(model, made, ["energy", "forces"], noise_samples=0, progress=False).result
    return {"structures": 200, "atoms": 32, "passes": result.passes, "calls": result.model_calls,
            "seconds": time.process_time() - begun}  # fmt: skip


def page(stored: dict) -> str:
    lines = [
        "# A planted error in SevenNet's forces, through each door", "",
        "`make metatomic`, `make torch-sim`. Forces F of SevenNet-0 become F + B F with B = 0.025 diag(1, 1, -2) fixed in "
        f"space: an error of Wigner degree 2, {EXACT:.5e} of mean |F|² exactly, whatever the structure. Six displaced "
        "molecules and six strained crystals. Its square holds degrees 0 and 2 alone, so that two cosets of T, the "
        "default, find it as exactly as two of I: what is left is rounding in float32.", "",
        "| door | rotations | passes | found | found / exact - 1 | CPU s | versions |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for door, entry in stored["doors"].items():
        for rotations, own in entry["planted"].items():
            lines.append(
                f"| {door} | 2 x {rotations} | {own['passes']:g} | {own['relative']:.5e} | "
                f"{own['relative'] / EXACT - 1:+.1e} | {own['seconds']:.0f} | {entry['versions']} |"
            )
    known = stored["doors"].get("torch-sim", {})
    if "speed" in known:
        own, two = known["speed"], known["routed"]
        many, one = two["many a call"], two["one a call"]
        lines += ["",
            f"Speed of the torch-sim door: Lennard-Jones on {own['structures']} crystals of {own['atoms']} atoms, "
            f"{own['passes']:g} passes in {own['calls']} calls: {own['seconds']:.1f} s of CPU time, one thread.", "",
            f"SevenNet's own ASE calculator on {many['structures']} crystals is measured through torch-sim by itself: "
            f"{many['calls']} calls and {many['seconds']:.0f} s, against {one['calls']} calls and {one['seconds']:.0f} s "
            "one structure after another (`most_atoms=1`); the forces' relative errors, which are rounding alone, are "
            f"{many['relative']:.0e} and {one['relative']:.0e}."]  # fmt: skip
    return "\n".join([*lines, ""])


def main() -> None:
    door = sys.argv[1]
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    path = HERE / "bent_sevennet.json"
    stored = json.loads(path.read_text()) if path.exists() else {"doors": {}}
    packages = {"metatomic": "metatomic-torch", "torch-sim": "torch-sim-atomistic", "ASE": "ase"}
    makes = {"metatomic": in_metatomic, "torch-sim": in_torch_sim, "ASE": in_ase}
    # The ASE door beside the first of them.
    for name in (door,) if door == "torch-sim" else (door, "ASE"):
        shown = ", ".join(f"{n} {version(n)}" for n in ("sevenn", packages[name], "torch"))
        entry = {"versions": f"Python {platform.python_version()}, {shown}", "planted": planted(makes[name])}
        if name == "torch-sim":
            entry |= {"speed": speed(), "routed": routed()}
        stored["doors"][name] = entry
    path.write_text(json.dumps(stored, indent=1) + "\n")
    (HERE / "bent_sevennet.md").write_text(page(stored))
    print(page(stored))


if __name__ == "__main__":
    main()
