"""The smallest file of every format, by the format's name: ``make(folder) -> (path, settings)``."""

import json
import pickle

import msgpack
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from equiscope.tasks.datasets import store
from tests.tasks.datasets import layouts, test_geom, test_mptrj, test_store, test_structures
from tests.tasks.datasets.test_protein_chains import helix


def _extxyz(folder):
    numbers, x, e, f = layouts.MOLECULES["water"]
    frames = []
    for k in range(len(x)):
        frames.append(Atoms(numbers, x[k]))
        frames[-1].calc = SinglePointCalculator(frames[-1], energy=float(e[k]), forces=f[k])
    write(folder / "a.extxyz", frames)
    return folder / "a.extxyz", {"energy_unit": "eV", "length_unit": "Å"}


def _ase(folder):
    rows = [layouts.ase_row(numbers, x[0], float(e[0]), f[0]) for numbers, x, e, f in layouts.MOLECULES.values()]
    return layouts.aselmdb(folder / "a.aselmdb", rows), {}


def _qm9(folder):
    (folder / "dsgdb9nsd_000001.xyz").write_text(layouts.QM9)
    return folder / "dsgdb9nsd_000001.xyz", {}


def _mptrj(folder):
    return layouts.mptrj(folder / "m.json", {"mp-1": [test_mptrj.ENTRY, test_mptrj.ENTRY]}), {}


def _geom_crude(folder):
    with (folder / "crude.msgpack").open("wb") as file:
        for smiles in test_geom.SMILES:
            found = [{**c, "xyz": test_geom.rows(c["rd_mol"]), "rd_mol": None} for c in test_geom.conformers(smiles)]
            file.write(msgpack.packb({smiles: {"conformers": found, "charge": 0}}))
    return folder / "crude.msgpack", {}


def _geom(folder):
    (folder / "drugs").mkdir()
    content = pickle.dumps({"conformers": test_geom.conformers("CCO")})
    (folder / "drugs" / "0.pickle").write_bytes(content)
    (folder / "summary.json").write_text(json.dumps({"CCO": {"pickle_path": "drugs/0.pickle", "charge": 0}}))
    return folder / "summary.json", {}


def _midi(folder):
    (folder / "train.pickle").write_bytes(pickle.dumps([("CCO", [test_geom.mol("CCO", k) for k in range(2)])]))
    return folder / "train.pickle", {}


def _smiles(folder):
    (folder / "a.smi").write_text("CCO ethanol\nC methane\nN ammonia\nCCN ethylamine\n")
    return folder / "a.smi", {}


def _structures(folder):
    for name in ("a", "b"):
        test_structures.cif(test_structures.structure(helix(45), name), folder / f"{name}.cif")
    return folder, {}


def _made(folder):
    arrays = test_store.of(layouts.MOLECULES)
    return store.write(folder / "made.npz", arrays, {"format": "equiscope-forcefield"}), {}


SMALLEST = {
    "spice": lambda folder: (layouts.spice(folder / "a.hdf5"), {}),
    "md17": lambda folder: (layouts.md17(folder / "a.npz"), {}),
    "rmd17": lambda folder: (layouts.md17(folder / "r.npz", ("nuclear_charges", "coords", "energies", "forces")), {}),
    "ani1x": lambda folder: (layouts.ani1x(folder / "a.h5"), {}),
    "ani2x": lambda folder: (layouts.ani2x(folder / "a.h5"), {}),
    "qm9": _qm9,
    "extxyz": _extxyz,
    "ase": _ase,
    "mptrj": _mptrj,
    "geom_crude": _geom_crude,
    "geom": _geom,
    "midi": _midi,
    "made": _made,
    "smiles": _smiles,
    "structures": _structures,
}
