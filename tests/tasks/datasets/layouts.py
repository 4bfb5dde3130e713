"""Small data set files written in exactly the published layouts, from known frames; shared by the readers' tests."""

import json
import zlib

import numpy as np

HARTREE, BOHR, KCAL = 27.211386245988, 0.529177210903, 0.0433641042406
WATER, METHANE, AMMONIA = [8, 1, 1], [6, 1, 1, 1, 1], [7, 1, 1, 1]


def frames(numbers, count, seed):
    """Positions in Å, energies in eV, forces in eV/Å of made-up frames."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, len(numbers), 3)) * 1.5
    return x, rng.normal(size=count) - 100.0 * len(numbers), rng.normal(size=x.shape)


MOLECULES = {
    "ammonia": (AMMONIA, *frames(AMMONIA, 4, 0)),
    "methane": (METHANE, *frames(METHANE, 3, 1)),
    "water": (WATER, *frames(WATER, 5, 2)),
}
SMILES = {
    "ammonia": "[N:1]([H:2])([H:3])[H:4]",
    "methane": "[C:1]([H:2])([H:3])([H:4])[H:5]",
    "water": "[O:1]([H:2])[H:3]",
}


def spice(path, molecules=None, units=("bohr", "hartree", "hartree/bohr"), smiles=None):
    """SPICE 2: a group a molecule; float32 positions and gradients, float64 energies, units as attributes."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, (numbers, x, e, f) in (molecules or MOLECULES).items():
            group = file.create_group(name)
            group["subset"] = [b"SPICE test"]
            group["smiles"] = [(smiles or SMILES).get(name, "C").encode()]
            group["atomic_numbers"] = np.array(numbers, dtype=np.int16)
            for key, value, dtype, unit in (
                ("conformations", x / BOHR, np.float32, units[0]),
                ("formation_energy", e / HARTREE * 0.1, np.float64, units[1]),
                ("dft_total_energy", e / HARTREE, np.float64, units[1]),
                ("dft_total_gradient", -f / HARTREE * BOHR, np.float32, units[2]),
            ):
                group.create_dataset(key, data=value.astype(dtype))
                if unit is not None:
                    group[key].attrs["units"] = unit
    return path


def ani1x(path, molecules=None):
    """ANI-1x: a group a formula; labels of several methods, NaN where one was not computed."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, (numbers, x, e, f) in (molecules or MOLECULES).items():
            group = file.create_group(name)
            group["atomic_numbers"] = np.array(numbers, dtype=np.uint8)
            group["coordinates"] = x.astype(np.float32)
            group["wb97x_dz.energy"] = e / HARTREE
            group["wb97x_dz.forces"] = (f / HARTREE).astype(np.float32)
            group["hf_dz.energy"] = np.full(len(e), np.nan)
    return path


def ani2x(path, molecules=None):
    """ANI-2x: a group for each number of atoms; ``species`` differs from row to row."""
    import h5py

    with h5py.File(path, "w") as file:
        sizes = {}
        for numbers, x, e, f in (molecules or MOLECULES).values():
            sizes.setdefault(len(numbers), []).append((np.tile(numbers, (len(x), 1)), x, e, f))
        for size, parts in sizes.items():
            species, x, e, f = (np.concatenate(column) for column in zip(*parts, strict=True))
            order = np.random.default_rng(0).permutation(len(x))
            group = file.create_group(f"{size:03d}")
            group["species"] = species[order].astype(np.int64)
            group["coordinates"] = x[order].astype(np.float32)
            group["energies"] = e[order] / HARTREE
            group["forces"] = (f[order] / HARTREE).astype(np.float32)
    return path


def md17(path, names=("z", "R", "E", "F"), molecule="water", save=np.savez, **more):
    """MD17, or with other names rMD17: kcal/mol, kcal/mol/Å; MD17's energies are a column."""
    numbers, x, e, f = MOLECULES[molecule]
    energies = (e / KCAL)[:, None] if names[0] == "z" else e / KCAL
    save(path, **dict(zip(names, (np.array(numbers, np.uint8), x, energies, f / KCAL), strict=True)), **more)
    return path


QM9 = """5
gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t-40.47893\t-40.476062\t\
-40.475117\t-40.498597\t6.469\t
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 2.765748*^-6\t 0.133922
H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923
1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788\t3151.7078
C\tC\t
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
"""


def encoded(value):
    """What ASE's LMDB backend stores: compressed JSON, arrays as {"__ndarray__": [shape, dtype, flat]}."""
    return zlib.compress(json.dumps(value).encode())


def ndarray(array):
    array = np.asarray(array)
    return {"__ndarray__": [list(array.shape), str(array.dtype), array.ravel().tolist()]}


def aselmdb(path, rows, deleted=()):
    """A single-file LMDB database of ASE rows."""
    import lmdb

    with lmdb.open(str(path), subdir=False, map_size=1 << 24) as environment, environment.begin(write=True) as put:
        for number, row in enumerate(rows, start=1):
            if number not in deleted:
                put.put(str(number).encode(), encoded(row))
        put.put(b"nextid", encoded(len(rows) + 1))
        put.put(b"deleted_ids", encoded(list(deleted)))
        put.put(b"metadata", encoded({}))
    return path


def ase_row(numbers, x, e, f, **more):
    row = {"numbers": ndarray(np.array(numbers)), "positions": ndarray(x), "cell": ndarray(np.zeros((3, 3)))}
    return {**row, "pbc": ndarray(np.zeros(3, bool)), "energy": e, "forces": ndarray(f), **more}


def mptrj(path, materials):
    """MPtrj: {material: {frame: {structure as pymatgen writes it, labels}}}."""
    from equiscope.tasks.datasets.blocks import SYMBOLS

    made = {}
    for name, entries in materials.items():
        made[name] = {}
        for i, (numbers, cell, abc, per_atom, force, stress) in enumerate(entries):
            sites = [
                {"species": [{"element": SYMBOLS[z], "occu": 1}], "abc": list(p), "xyz": [0, 0, 0], "properties": {}}
                for z, p in zip(numbers, abc, strict=True)
            ]
            structure = {"@module": "pymatgen.core.structure", "lattice": {"matrix": cell.tolist()}, "sites": sites}
            made[name][f"{name}-0-{i}"] = {
                "structure": structure,
                "energy_per_atom": per_atom,
                "uncorrected_total_energy": per_atom * len(numbers) - 1,
                "force": force.tolist(),
                "stress": stress.tolist(),
                "magmom": None,
            }
    path.write_text(json.dumps(made))
    return path


def read(source):
    """All blocks of a reader and its rejections."""
    from collections import Counter

    rejected = Counter()
    return list(source.blocks(rejected)), dict(rejected)


def assert_frames(blocks, numbers, x, e, f, rel=1e-6):
    """The blocks together hold exactly these frames, in this order."""
    assert all(block.numbers.tolist() == list(numbers) for block in blocks)
    for name, expected in (("positions", x), ("energy", e), ("forces", f)):
        found = np.concatenate([getattr(block, name) for block in blocks])
        np.testing.assert_allclose(found, expected, rtol=rel, atol=rel)
