"""Cα traces of protein chains: the container, the checks every reader applies, and the npz format."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from equiscope.errors import DataError, EquiscopeError, IntegrityError
from equiscope.files import check_size, readable
from equiscope.tasks.datasets import store
from equiscope.writing import replacing

SHORTEST_STEP, LONGEST_STEP = 2.5, 4.2  # Å between consecutive Cα: cis-proline 2.9, trans 3.8
SHIPPED = "protein_chains_1000.npz"
_FORMAT = 1
_ARRAYS = ("ids", "length", "ca_i16", "sequence", "about")


@dataclass(frozen=True)
class ProteinChains:
    """Contiguous Cα traces, each centred at its centroid.

    Attributes:
        ids: one name a chain, unique, for example ``"1A32_A_2"`` (entry, chain, first residue number).
        ca: one float32 array (L, 3) a chain, Å.
        sequences: one-letter codes, each as long as its chain; ``None`` where the source has none.
        source: where the chains come from, for records; licence: under which terms they may be passed on.
        counts: what a reader kept and what it left out, by reason; never a silent drop.
    """

    ids: tuple[str, ...]
    ca: tuple[np.ndarray, ...]
    sequences: tuple[str, ...] | None
    source: str
    licence: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        """Residues of each chain, int64 (chains,)."""
        return np.array([len(trace) for trace in self.ca], dtype=np.int64)

    def select(self, indices: Iterable[int]) -> ProteinChains:
        """The chains at these positions, in this order."""
        chosen = [int(i) for i in indices]
        sequences = None if self.sequences is None else tuple(self.sequences[i] for i in chosen)
        ids, ca = tuple(self.ids[i] for i in chosen), tuple(self.ca[i] for i in chosen)
        return replace(self, ids=ids, ca=ca, sequences=sequences)


def centred(ca: np.ndarray) -> np.ndarray:
    """The trace (L, 3) minus its centroid, float32; the mean is taken in float64."""
    wide = np.asarray(ca, dtype=np.float64)
    return (wide - wide.mean(axis=0)).astype(np.float32)


def rejection(ca: np.ndarray, shortest: int = 2, longest: int | None = None) -> str | None:
    """Why a trace (L, 3) in Å cannot be used, or ``None`` if it can.

    A usable trace is finite, has ``shortest`` to ``longest`` residues, and consecutive Cα lie between 2.5 Å and 4.2 Å
    apart: farther is a break, nearer is no protein geometry.
    """
    if len(ca) == 1:
        return "one residue"
    if len(ca) < shortest:
        return f"shorter than {shortest} residues"
    if longest is not None and len(ca) > longest:
        return f"longer than {longest} residues"
    if not np.isfinite(ca).all():
        return "coordinates not finite"
    steps = np.linalg.norm(np.diff(np.asarray(ca, dtype=np.float64), axis=0), axis=1)
    if (steps > LONGEST_STEP).any():
        return f"chain break (consecutive CA farther than {LONGEST_STEP} Å)"
    if (steps < SHORTEST_STEP).any():
        return f"consecutive CA nearer than {SHORTEST_STEP} Å"
    return None


def write_npz(chains: ProteinChains, path: str | Path) -> None:
    """Write chains as a compressed npz: ids, length, ca_i16 (Å × 100), sequence, about (JSON), sha256.

    The resolution is 0.01 Å. The SHA-256 covers every other array, because a flipped bit in a compressed array can
    otherwise go unseen. A DataError for a coordinate beyond ±327 Å, which 16 bits at 0.01 Å cannot hold.
    """
    flat = np.concatenate(chains.ca).astype(np.float64) * 100
    if np.abs(flat).max() > np.iinfo(np.int16).max:
        raise DataError(
            f"a coordinate of {np.abs(flat).max() / 100:.0f} Å from the centroid does not fit the npz format "
            "(at most 327 Å); leave that chain out"
        )
    about = {"format": _FORMAT, "source": chains.source, "licence": chains.licence, "counts": dict(chains.counts)}
    arrays = {
        "ids": np.array(chains.ids),
        "length": chains.lengths,
        "ca_i16": np.rint(flat).astype("<i2"),
        "sequence": np.frombuffer("".join(chains.sequences or ()).encode("ascii"), dtype=np.uint8),
        "about": np.array(json.dumps(about)),
    }
    # First in the archive: a damaged directory loses its last entries, and the checksum must not be one of them.
    with replacing(path) as file:
        np.savez_compressed(file, sha256=np.array(_digest(arrays)), **arrays)  # type: ignore[arg-type]


def read_npz(path: str | Path) -> ProteinChains:
    """Read chains written by :func:`write_npz`, or any npz with ``ids``, ``length`` and ``ca_i16``.

    ``sequence`` may be missing or empty; then chains cannot be split by sequence similarity.

    Raises:
        DataError: no such file, not an npz, a needed array missing, or chains that fail the checks.
        IntegrityError: the content does not match its checksum, or the archive is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no file {path}: give the path of an npz with ids, length and ca_i16")
    arrays = _read_arrays(path)
    missing = [name for name in ("ids", "length", "ca_i16") if name not in arrays]
    if missing:
        raise DataError(f"{path} has no array {', '.join(missing)} (it has {', '.join(sorted(arrays))})")
    if "sha256" in arrays and str(arrays["sha256"]) != _digest(arrays):
        raise IntegrityError(f"{path} does not match its own SHA-256: make or fetch it again")
    with readable(path, "npz of chains"):
        return _assemble(arrays, path)


def shipped_chains() -> ProteinChains:
    """The 1,000 chains of 40 to 128 residues that come with the package."""
    with resources.as_file(resources.files(__package__) / SHIPPED) as path:
        return read_npz(path)


def require_some(chains: ProteinChains, where: str) -> ProteinChains:
    """The chains unchanged, or a DataError that says why nothing was left."""
    if len(chains):
        return chains
    reasons = ", ".join(f"{count} {reason}" for reason, count in chains.counts.items() if count) or "nothing found"
    raise DataError(f"{where} has no usable protein chain: {reasons}")


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            check_size(sum(about.file_size for about in archive.infolist()), path.stat().st_size, str(path))
            damaged = archive.testzip()
    except EquiscopeError:
        raise
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is not an npz file (or is truncated): {error}") from error
    except Exception as error:
        raise IntegrityError(f"{path} is damaged and cannot be unpacked: {error}") from error
    if damaged:
        raise IntegrityError(f"{path} is damaged: its array {damaged} fails the checksum of the archive")
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:
        raise DataError(f"{path} holds something other than plain arrays: {error}") from error


def _assemble(arrays: Mapping[str, np.ndarray], path: Path) -> ProteinChains:
    lengths, flat = np.atleast_1d(arrays["length"]), arrays["ca_i16"]
    ids = tuple(str(name) for name in arrays["ids"])
    if (len(lengths) and lengths.dtype.kind not in "iu") or flat.dtype.kind not in "iuf" or (lengths < 1).any():
        raise DataError(f"{path}: lengths must be whole numbers >= 1, coordinates real: {lengths.dtype}, {flat.dtype}")
    if flat.ndim != 2 or flat.shape[1] != 3 or len(lengths) != len(ids) or lengths.sum() != len(flat):
        raise DataError(
            f"{path} is inconsistent: {len(ids)} ids, {len(lengths)} lengths that sum to {lengths.sum()}, "
            f"coordinates of shape {flat.shape}"
        )
    if len(set(ids)) != len(ids):
        raise DataError(f"{path} has {len(ids) - len(set(ids))} repeated ids")
    letters = bytes(arrays["sequence"].tobytes()).decode("ascii") if "sequence" in arrays else ""
    if letters and len(letters) != len(flat):
        raise DataError(f"{path} has {len(letters)} sequence letters for {len(flat)} residues")
    rows = [slice(end - length, end) for end, length in zip(np.cumsum(lengths), lengths, strict=True)]
    traces = [flat[own] / 100.0 for own in rows]
    for name, trace in zip(ids, traces, strict=True):
        if reason := rejection(trace):
            raise DataError(f"chain {name} of {path}: {reason}; make the file again from checked chains")
    about: dict[str, Any] = {"source": path.name, "licence": "", "counts": {"kept": len(ids)}}
    about |= json.loads(str(arrays["about"])) if "about" in arrays else {}
    chains = ProteinChains(
        ids=ids,
        ca=tuple(map(centred, traces)),
        sequences=tuple(letters[own] for own in rows) if letters else None,
        **{name: about[name] for name in ("source", "licence", "counts")},
    )
    return require_some(chains, str(path))


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    return store.digest(arrays, [name for name in _ARRAYS if name in arrays])


def tally(kept: Sequence[str], dropped: Mapping[str, int]) -> dict[str, int]:
    """Counts for the record: ``kept`` first, then every reason for leaving out, most frequent first."""
    return {"kept": len(kept), **dict(sorted(dropped.items(), key=lambda item: -item[1]))}
