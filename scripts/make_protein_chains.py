"""Make the protein chain file that comes with the package from ProMod3's structure database.

    apt-get download promod3-data && dpkg-deb -x promod3-data_*.deb promod3
    python scripts/make_protein_chains.py promod3/usr/share/promod3/loop_data/structure_db.dat OUT.npz

Chains are one per cluster of similar sequences, drawn at random with a fixed seed; beside OUT.npz a text
file OUT.LICENSE.txt holds the licence note and every PDB id.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from equiscope.errors import DataError
from equiscope.tasks.datasets.promod3 import read_structure_db
from equiscope.tasks.datasets.protein_chains import ProteinChains, write_npz
from equiscope.tasks.datasets.splits import cluster_chains


def one_per_cluster(chains: ProteinChains, number: int, seed: int) -> ProteinChains:
    """``number`` chains of different clusters, in the order of their ids."""
    order = np.random.default_rng(seed).permutation(len(chains))
    labels = cluster_chains(chains).labels
    _, first = np.unique(labels[order], return_index=True)
    drawn = order[np.sort(first)]
    if len(drawn) < number:
        raise DataError(f"{number} chains wanted, but there are only {len(drawn)} clusters of that length")
    return chains.select(sorted(drawn[:number], key=lambda i: chains.ids[i]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--shortest", type=int, default=40)
    parser.add_argument("--longest", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    everything = read_structure_db(options.database, options.shortest, options.longest)
    chains = one_per_cluster(everything, options.number, options.seed)
    source = (
        f"{options.number} of the {len(everything)} chains of {options.shortest} to {options.longest} residues "
        f"of the ProMod3 structure database (promod3-data 3.2.1+ds-6), one per sequence cluster, seed {options.seed}"
    )
    chains = replace(chains, source=source, counts={"kept": len(chains)})
    write_npz(chains, options.out)
    entries = sorted({name.split("_")[0] for name in chains.ids})
    lines = [" ".join(entries[i : i + 16]) for i in range(0, len(entries), 16)]
    note = f"{options.out.name}: {source}.\n\n{chains.licence}\nCα coordinates rounded to 0.01 Å.\n\nPDB entries:\n"
    options.out.with_suffix(".LICENSE.txt").write_text(note + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{options.out}: {len(chains)} chains, {chains.lengths.sum()} residues, {options.out.stat().st_size} bytes")
    print("left out of the database:", dict(Counter(everything.counts)))


if __name__ == "__main__":
    main()
