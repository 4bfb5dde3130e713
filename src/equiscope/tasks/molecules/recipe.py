"""Sets of molecules made on this machine: the settings they share, and a data file that is made once.

Nothing here needs torch, so that the processes that make molecules start at once.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets import chemistry, processes, store
from equiscope.tasks.datasets.chemistry import read_smiles
from equiscope.tasks.guards import at_least


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a generated set is made of; two equal recipes give identical files.

    Attributes:
        seed: of everything random: choice of molecules, their geometries, split.
        min_atoms, max_atoms: of a molecule, with hydrogens.
        smiles: a SMILES file of one's own (plain, .csv or .gz); None for the NCI list inside RDKit.
        path: of the data file; None for the default of :meth:`resolved_path`.
    """

    FORMAT: ClassVar[str]
    FORMAT_VERSION: ClassVar[int] = 1

    seed: int = 0
    min_atoms: int = 10
    max_atoms: int = 20
    smiles: str | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        at_least(0, seed=self.seed)
        if not 2 <= self.min_atoms <= self.max_atoms:
            raise InputError(f"need 2 <= min_atoms <= max_atoms, got {self.min_atoms} and {self.max_atoms}")

    def name(self) -> str:
        """Of the default data file; settings that differ give names that differ."""
        raise NotImplementedError

    def resolved_path(self) -> Path:
        """``path``, or ``data/<name>.npz`` under the current folder."""
        return Path("data") / f"{self.name()}.npz" if self.path is None else Path(self.path)

    def content(self) -> dict[str, Any]:
        """All but the path: what decides the file's bytes, as plain types."""
        plain = {name: value for name, value in asdict(self).items() if name != "path"}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    def read_smiles(self) -> tuple[Path, list[str], str]:
        """The SMILES file, its lines, and its SHA-256."""
        source = Path(self.smiles) if self.smiles else chemistry.nci_smiles_path()
        return source, *read_smiles(source)

    def metadata(self, source: Path, digest: str, method: str, packages: Sequence[str]) -> dict[str, Any]:
        """What every data file says of itself."""
        return {
            "format": self.FORMAT,
            "format_version": self.FORMAT_VERSION,
            "config": self.content(),
            "source": {"file": source.name, "sha256": digest},
            "method": method,
            "versions": {name: importlib.metadata.version(name) for name in packages},
        }


def join(made: Sequence[Mapping[str, np.ndarray]], counted: str) -> dict[str, np.ndarray]:
    """One flat array of each kind from those of every molecule, as :func:`equiscope.tasks.molecules.padded.read` takes.

    ``made`` are of a molecule of n atoms in k geometries: ``species`` (n,), ``positions`` and others (k, n, 3) or (k,).
    ``counted`` names the array (molecules,) of every k; that of every n is ``atoms``.
    """
    flat = {name: np.concatenate([a[name].reshape(-1, *a[name].shape[2:]) for a in made]) for name in made[0]}
    flat["atoms"] = np.array([len(a["species"]) for a in made], dtype=np.int32)
    flat[counted] = np.array([len(a["positions"]) for a in made], dtype=np.int32)
    return flat


def make_once(recipe: Recipe, make: Callable[[Path, int], None], workers: int | None) -> Path:
    """The data file of a recipe, made by ``make(path, workers)`` if it is not there; two calls wait for one another.

    ``workers`` are processes, one thread in each; None for all cores this process may use.

    Raises:
        InputError: fewer than one worker.
        DataError: the path holds a file of another recipe; whatever ``make`` raises. IntegrityError: it is damaged.
    """
    at_least(1, workers=workers)
    path = recipe.resolved_path()
    if processes.made_once(path, lambda: make(path, workers or processes.available_cores())):
        return path
    metadata = store.read(path)[1]
    found = metadata.get("config", {})
    differs = [f"{k}={found.get(k)!r} (asked: {v!r})" for k, v in recipe.content().items() if found.get(k) != v]
    if metadata.get("format") != recipe.FORMAT or differs:
        made = ", ".join(differs) or f"another tool ({metadata.get('format')!r})"
        raise DataError(f"{path} was made with {made}; give another path, or delete it to make it anew")
    return path
