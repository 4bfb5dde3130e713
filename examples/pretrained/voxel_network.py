"""GNINA's voxel network for docking poses (gninatorch + molgrid): not symmetric, so expected visibly broken.

    make pretrained

The network reads a density grid of a receptor and a ligand and answers with two numbers, the probability of a good pose
and an affinity. Neither should depend on how the complex is turned. Coordinates are rotated before gridding, so that
what is measured is grid and network together. The complex is a peptide and a small ligand embedded with RDKit: a real
network on an artificial pose.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import molgrid
import torch
from gninatorch import gnina
from rdkit import Chem
from rdkit.Chem import AllChem

import equiscope as eq

EDGE, RESOLUTION = 23.5, 0.5


def complexes(count: int = 4) -> list:
    """Receptor and ligand files of a few artificial complexes."""
    folder, made = Path(tempfile.mkdtemp()), []
    sequences = ("AYWKDEGH", "GSTVLINF", "MPCQRHWA", "DEKRYFGL")[:count]
    for i, sequence in enumerate(sequences):
        peptide = Chem.AddHs(Chem.MolFromSequence(sequence))
        AllChem.EmbedMolecule(peptide, randomSeed=i, useRandomCoords=True)
        ligand = Chem.AddHs(Chem.MolFromSmiles("NC(=O)c1ccccc1O"))
        AllChem.EmbedMolecule(ligand, randomSeed=i)
        atoms = peptide.GetConformer().GetPositions()
        place = atoms.mean(0) + (atoms[(atoms - atoms.mean(0)).__pow__(2).sum(1).argmax()] - atoms.mean(0)) * 1.2
        conformer = ligand.GetConformer()
        for j, xyz in enumerate(conformer.GetPositions()):
            conformer.SetAtomPosition(j, (xyz + place).tolist())
        receptor, guest = folder / f"r{i}.pdb", folder / f"l{i}.sdf"
        receptor.write_text(Chem.MolToPDBBlock(peptide, flavor=2))
        Chem.MolToMolFile(ligand, str(guest))
        made.append((receptor, guest))
    return made


def copied(grid) -> torch.Tensor:
    """A molgrid array as a tensor."""
    return torch.as_tensor(grid.tonumpy())


def batch() -> dict[str, torch.Tensor]:
    """Padded coordinates, atom types (receptor and ligand channels apart) and radii of all complexes."""
    lines = [f"1 0.0 {r} {g}" for r, g in complexes()]
    types = Path(tempfile.mkdtemp()) / "all.types"
    types.write_text("\n".join(lines) + "\n")
    provider = molgrid.ExampleProvider(
        molgrid.defaultGninaReceptorTyper, molgrid.defaultGninaLigandTyper, shuffle=False, default_batch_size=1
    )
    provider.populate(str(types))
    rows = []
    for _ in lines:
        sets = provider.next().coord_sets
        offset = sets[0].max_type
        coords = torch.cat([copied(s.coords) for s in sets])
        kinds = torch.cat([copied(s.type_index) + offset * i for i, s in enumerate(sets)])
        radii = torch.cat([copied(s.radii) for s in sets])
        center = copied(sets[1].coords).mean(0)
        rows.append((coords - center, kinds.float(), radii))
    width = max(len(r[0]) for r in rows)

    def pad(values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values, values.new_zeros(width - len(values), *values.shape[1:])])

    mask = torch.stack([torch.arange(width) < len(r[0]) for r in rows])
    pos, kind, radius = (torch.stack([pad(r[i]) for r in rows]) for i in range(3))
    return {"pos": pos.float(), "kind": kind, "radius": radius.float(), "mask": mask}


def one_hot(kinds: torch.Tensor) -> torch.Tensor:
    """Atom types as rows of the 28 channels of receptor and ligand."""
    return torch.nn.functional.one_hot(kinds.long(), 28).float()


DECLARED = {
    "inputs": {"pos": "1o"},
    "outputs": {"pose": eq.Output("0e", per="sample"), "affinity": eq.Output("0e", per="sample")},
    "mask": "mask",
    "fixed": ["kind", "radius"],
}


def question(weights: str = "crossdock_default2018") -> tuple:
    """The network, its batches and how it is called on one: what ``eq.measure`` is given beside ``DECLARED``."""
    model, _ = gnina.setup_gnina_model(weights)
    maker = molgrid.GridMaker(resolution=RESOLUTION, dimension=EDGE)
    shape = maker.grid_dimensions(28)

    def forward(network: torch.nn.Module, fields: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        grids = torch.zeros(len(fields["pos"]), *shape)
        for i, real in enumerate(fields["mask"]):
            xyz, kinds, radii = (fields[k][i][real].contiguous() for k in ("pos", "kind", "radius"))
            maker.forward((0.0, 0.0, 0.0), xyz, one_hot(kinds), radii, grids[i])
        log_pose, affinity = network(grids)[:2]
        return {"pose": log_pose[:, 1].exp(), "affinity": affinity.flatten()}

    return model, [batch()], forward


def main() -> None:
    model, batches, forward = question(*sys.argv[2:])
    result = eq.measure(model, batches, forward=forward, **DECLARED)
    print(result)
    found = {}
    for name, part in result.outputs.items():
        found[name] = part.relative_equivariance**0.5
        assert part.equivariance > 100 * part.noise_floor, f"{name} should depend visibly on the orientation"
    Path(sys.argv[1]).write_text(json.dumps({"GNINA crossdock_default2018": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
