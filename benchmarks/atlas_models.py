"""The models of the atlas: each name makes and measures one, in an environment that has its packages."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes

import equiscope as eq
from equiscope.adapters.ase_ladder import figures as ase_figures
from equiscope.decomposition import statistics
from equiscope.decomposition.collect import Collector
from equiscope.decomposition.measure import NOISE_SAMPLES
from equiscope.decomposition.plan import make_plan
from equiscope.decomposition.pool import host, sample_weights, summarise
from equiscope.decomposition.preserve import untouched
from equiscope.symmetry.declaration import declare

sys.path.append(str(Path(__file__).parents[1] / "examples" / "pretrained"))


def crystals() -> list[Atoms]:
    """Six crystals with atoms displaced by 0.05 Å and cells strained by 1 %."""
    random, made = np.random.default_rng(1), []
    for symbol, structure, a in (("Cu", "fcc", 3.61), ("Al", "fcc", 4.05), ("Si", "diamond", 5.43),
                                 ("MgO", "rocksalt", 4.21), ("NaCl", "rocksalt", 5.64), ("Fe", "bcc", 2.87)):  # fmt: skip
        atoms = bulk(symbol, structure, a=a, cubic=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + random.normal(0, 0.01, (3, 3))), scale_atoms=True)
        atoms.positions += random.normal(0, 0.05, atoms.positions.shape)
        made.append(atoms)
    return made


def row(output: str, on: str, error: np.ndarray, square: np.ndarray, clusters: list[Any], result: Any) -> dict[str, Any]:
    """Relative error of one output over samples (root of a ratio of means), its interval, and the floor beside it."""
    codes, count = statistics.encode(clusters)
    found = statistics.ratio(*(statistics.cluster_totals(np.asarray(v), codes, count) for v in (error, square)))
    return {
        "output": output,
        "on": on,
        "relative": max(found.value, 0.0) ** 0.5,
        "interval": [max(v, 0.0) ** 0.5 for v in found.interval] if found.kind != "none" else None,
        "kind": found.kind,
        "floor": (result.noise_floor / float(np.mean(square))) ** 0.5,
        "distinguishable": bool(result.distinguishable),
    }


def degrees(result: eq.Result) -> dict[str, Any] | None:
    """The shares of the error by Wigner degree, as they are kept."""
    return result.spectrum and {k: result.spectrum[k] for k in ("degrees", "share", "remainder")}


def potential(calculator: Any, sets: Mapping[str, list[Atoms]], rotations: str = "T") -> dict[str, Any]:
    """An ASE calculator on sets of structures; O resolves the degrees of an error better than T."""
    rows, begun, passes, spectrum = [], time.process_time(), 0.0, None
    # The spectrum of the combined error is that of the forces.
    settings = {"progress": False, "on_error": "raise", "spectrum": True, "energy_weight": 0.0, "stress_weight": 0.0}
    for on, structures in sets.items():
        known = calculator.implemented_properties
        outputs = [o for o in ("energy", "forces", "stress") if o in known and (o != "stress" or on == "crystals")]
        found = eq.adapters.ase.measure(calculator, structures, outputs, **settings, rotations=rotations, cosets=2)
        passes, spectrum = found.result.passes, spectrum or degrees(found.result)
        for output, own in ase_figures(found).items():
            rows.append(row(output, on, own.equivariance, own.square, list(own.clusters), found.result.outputs[output]))
    return {"rows": rows, "passes": passes, "samples": sum(map(len, sets.values())), "spectrum": spectrum,
            "seconds": time.process_time() - begun}  # fmt: skip


def measured(on: str, model: Any, batches: list[Any], declaration: eq.Declaration, **settings: Any) -> dict[str, Any]:
    """What ``eq.measure`` finds, with an interval of each relative error; the spectrum of what is pooled."""
    begun = time.process_time()
    plan = make_plan(declaration, **{"rotations": "T", "cosets": 2, "seed": 0, "spectrum": True, **settings})
    collector = Collector(model, plan, NOISE_SAMPLES)
    with untouched(model):
        for batch in batches:
            collector.run(batch)
    samples = collector.samples()
    result = summarise(samples, plan, collector.known, plan.design.described(collector.caller.calls), [])
    rows = []
    for name, own in result.outputs.items():
        weights, values = sample_weights(samples.figures[name], declaration.weighting), samples.figures[name]
        error, square = weights * host(values.variance), weights * host(values.square)
        rows.append(row(name, on, error, square, samples.clusters, own))
    percent = None if np.isnan(result.percent) else [result.percent, *result.percent_interval, result.r2]
    return {"rows": rows, "passes": result.passes, "samples": result.samples, "spectrum": degrees(result),
            "percent": percent, "seconds": time.process_time() - begun}  # fmt: skip


def sevennet(name: str, **more: Any) -> dict[str, Any]:
    """A SevenNet whose weights are in its wheel."""
    from potentials import structures
    from sevenn.calculator import SevenNetCalculator

    calculator = SevenNetCalculator(name, device="cpu", **more)
    return potential(calculator, {"molecules": structures(), "crystals": crystals()})


def chgnet(name: str) -> dict[str, Any]:
    """A CHGNet whose weights are in its wheel; molecules in a periodic box of 15 Å, since it needs one."""
    from chgnet.model import CHGNet, CHGNetCalculator
    from potentials import structures

    model = CHGNet.load(model_name=name, use_device="cpu", verbose=False)
    calculator = CHGNetCalculator(model, use_device="cpu", verbose=False)
    return potential(calculator, {"molecules": structures(15.0), "crystals": crystals()})


def gnina(name: str) -> dict[str, Any]:
    """A network of GNINA on artificial complexes."""
    voxels = importlib.import_module("voxel_network")
    model, batches, forward = voxels.question(name)
    return measured("4 complexes", model, batches, declare(**voxels.DECLARED), forward=forward)


def pocketnet(_: str) -> dict[str, Any]:
    """PocketNet on the first 80 residues of the receptor in prolif's wheel: network, descriptors, end to end."""
    import pocketnet as package
    from pocketnet import feat
    from pocketnet.results import PredictionResult
    from pocketnet.structure import read_structure

    # Only its data are wanted: importing it asks for packages of its own.
    place = importlib.util.find_spec("prolif").submodule_search_locations[0]
    whole = read_structure(str(next((Path(place) / "data").rglob("receptor.pdb"))))
    first = list(dict.fromkeys(whole.residue_keys.tolist()))[:80]
    keep = np.isin(whole.residue_keys, first)
    kept = {k: v[keep] if isinstance(v, np.ndarray) else v for k in whole.__dataclass_fields__ for v in (getattr(whole, k),)}
    protein = dataclasses.replace(whole, **kept)
    protein.xyz -= protein.xyz.mean(0)
    predictor = package.PocketPredictor("cpu")
    kinds, elements = (torch.tensor(v) for v in feat.atom_types(protein.res, protein.name))
    x = torch.tensor(protein.xyz)
    points, normals = feat.sas_points(x, elements)
    models = torch.nn.ModuleList(predictor.models)

    def scores(networks: Any, at: Any, where: Any, features: Any) -> torch.Tensor:
        return torch.stack([torch.sigmoid(m(kinds, at, where, features)[0]) for m in networks]).mean(0)[None]

    def network(networks: Any, b: Any) -> dict[str, torch.Tensor]:
        return {"score, descriptors given": scores(networks, b["xyz"][0], b["points"][0], b["descriptors"][0])}

    def described(networks: Any, b: Any) -> dict[str, torch.Tensor]:
        at, where = b["xyz"][0], b["points"][0]
        features = feat.point_feats(where, b["normals"][0], at, elements)
        return {"score, descriptors made anew": scores(networks, at, where, features)}

    def residues(asked: Any, b: Any) -> dict[str, torch.Tensor]:
        turned = dataclasses.replace(protein, xyz=b["xyz"][0].numpy())
        own, score, surface = asked.score_points(turned)
        found = PredictionResult([], own, score, surface, "").residue_scores
        return {"score of residues, end to end": torch.tensor([[found[k] for k in first]])}

    here = {"xyz": eq.Input("1o", points=True), "points": eq.Input("1o", points=True)}
    normal = {"normals": eq.Input("1o", points=False)}
    batch = {"xyz": x[None], "points": points[None], "normals": normals[None]}
    given = {**batch, "descriptors": feat.point_feats(points, normals, x, elements)[None]}
    names = [f"score{more}" for more in (", descriptors given", ", descriptors made anew", " of residues, end to end")]
    on, few = "a protein of 80 residues", {"spectrum": False, "rotations": "D2"}
    fixed = declare(here, {names[0]: "0e"}, None, "mse", fixed=["normals", "descriptors"])
    parts = [
        measured(on, models, [given], fixed, forward=network, **few),
        measured(on, models, [batch], declare({**here, **normal}, {names[1]: "0e"}), forward=described, **few),
        measured(on, predictor, [{"xyz": x[None]}], declare({"xyz": here["xyz"]}, {names[2]: "0e"}), forward=residues),
    ]
    return {**parts[-1], "rows": [r for p in parts for r in p["rows"]], "seconds": sum(p["seconds"] for p in parts)}


class Answers(Calculator):
    """An ASE calculator of a function ``numbers, positions -> energy, forces`` in float32."""

    implemented_properties = ("energy", "forces")

    def __init__(self, function: Callable[[Any, Any], Any]):
        super().__init__()
        self.function = function

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        numbers, positions = torch.tensor(atoms.numbers), torch.tensor(atoms.positions, dtype=torch.float32)
        energy, forces = self.function(numbers, positions)
        self.results = {"energy": float(energy.detach()), "forces": forces.detach().numpy()}


def torchmdnet(name: str) -> dict[str, Any]:
    """A TorchMD-Net architecture with weights drawn at random."""
    from potentials import structures
    from torchmdnet.models.model import create_model

    torch.manual_seed(0)
    made = create_model(dict(
        model=name, embedding_dimension=64, num_layers=2, num_rbf=32, rbf_type="expnorm", trainable_rbf=False,
        activation="silu", cutoff_lower=0.0, cutoff_upper=5.0, max_z=100, max_num_neighbors=64, box_vecs=None,
        precision=32, equivariance_invariance_group="O(3)", static_shapes=False, atom_filter=-1, derivative=True,
        prior_model=None, output_model="Scalar", reduce_op="add", check_errors=True, num_heads=8,
        attn_activation="silu", distance_influence="both", neighbor_embedding=True, vector_cutoff=True,
    )).eval()  # fmt: skip
    return potential(Answers(lambda z, x: made(z, x, torch.zeros_like(z))), {"molecules": structures()})


def architecture(name: str) -> dict[str, Any]:
    """An architecture of the force-field task, at its smallest size, with weights drawn at random."""
    from potentials import structures

    from equiscope.tasks.forcefield.models import build

    torch.manual_seed(0)
    model = build(name).eval()

    def answer(z: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch = {"pos": x[None], "species": z[None], "mask": torch.ones(1, len(z), dtype=torch.bool)}
        found = model(batch)
        return found["energy"], found["forces"][0]

    return potential(Answers(answer), {"molecules": structures()}, "O" if name == "escaip" else "T")


def orb(_: str) -> dict[str, Any]:
    """Orb v3's architecture with direct forces, weights drawn at random."""
    from orb_models.forcefield import pretrained
    from orb_models.forcefield.forcefield_adapter import ForcefieldAtomsAdapter
    from orb_models.forcefield.inference.calculator import ORBCalculator
    from potentials import structures

    torch.manual_seed(0)
    model = pretrained.orb_v3_direct_architecture(device="cpu").eval()
    calculator = ORBCalculator(model, ForcefieldAtomsAdapter(6.0, 20), device="cpu")
    return potential(calculator, {"molecules": structures(), "crystals": crystals()}, "O")


def mace(precision: str) -> dict[str, Any]:
    """A small MACE with weights drawn at random."""
    from e3nn import o3
    from mace import modules
    from mace.calculators import MACECalculator
    from potentials import structures

    sets = {"molecules": structures(), "crystals": crystals()}
    numbers = sorted({int(z) for made in sets.values() for atoms in made for z in atoms.numbers})
    # Made in the precision it is measured in: what is made in float32 keeps that rounding in its coupling coefficients.
    torch.set_default_dtype(getattr(torch, precision))
    torch.manual_seed(0)
    block = modules.interaction_classes
    model = modules.ScaleShiftMACE(
        r_max=4.0, num_bessel=8, num_polynomial_cutoff=5, max_ell=3, num_interactions=2, num_elements=len(numbers),
        interaction_cls=block["RealAgnosticResidualInteractionBlock"], avg_num_neighbors=8.0, correlation=3,
        interaction_cls_first=block["RealAgnosticInteractionBlock"], hidden_irreps=o3.Irreps("32x0e + 32x1o"),
        MLP_irreps=o3.Irreps("16x0e"), gate=torch.nn.functional.silu, atomic_energies=np.zeros(len(numbers)),
        atomic_numbers=numbers, atomic_inter_scale=1.0, atomic_inter_shift=0.0,
    )  # fmt: skip
    return potential(MACECalculator(models=[model], device="cpu", default_dtype=precision), sets)


def trained(place: str, random: bool = False) -> dict[str, Any]:
    """A model that equiscope trained (or, ``random``, the same before training), on held-out samples."""
    from equiscope.runs.trained import open_run

    run = open_run(place)
    run.task.prepare(progress=False)
    probe = next(p for p in run.task.probes("final") if p.headline)
    model = run.task.build_model().eval() if random else run.model
    design = {"rotations": "O", "cosets": 1, "spectrum": False} if probe.declaration.group == "O" else {}
    batches = list(probe.batches)[:2]
    found = measured("held-out samples", model, batches, probe.declaration, forward=probe.forward, **design)
    config = run.config
    return {**found, "step": 0 if random else run.step, "model": f"{config['model']['name']} ({config['task']})"}


def versions(*packages: str) -> dict[str, str]:
    """What is installed here."""
    return {name: importlib.metadata.version(name) for name in ("torch", "numpy", *packages)}
