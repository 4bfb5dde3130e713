"""The data file: arrays and JSON metadata in one checksummed ``.npz``, equal bytes for equal content; its reader."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from equiscope.errors import DataError, InputError, IntegrityError
from equiscope.tasks.datasets import store
from equiscope.tasks.datasets.blocks import Block
from equiscope.tasks.datasets.reading import Reader, block, pieces
from equiscope.writing import write_atomically

METADATA = "metadata.json"
_DIGEST = 64
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write(path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> Path:
    """Write arrays and metadata to ``path``, at once or not at all; Python objects, which only pickle could store, are
    refused.

    The file is an ordinary ``.npz`` (readable with ``numpy.load``) whose ZIP comment is the SHA-256, in hex, of every
    byte before it. Members are uncompressed and carry no time, so that the bytes depend on nothing else than the
    content.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = b"0" * _DIGEST
        text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), allow_nan=False)
        archive.writestr(zipfile.ZipInfo(METADATA, _EPOCH), text.encode())
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            if array.dtype.hasobject:
                raise InputError(f"array {name!r} holds Python objects ({array.dtype}); store numbers only")
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), member.getvalue())
    content = buffer.getvalue()[:-_DIGEST]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content + hashlib.sha256(content).hexdigest().encode())
    return path


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the metadata of a file made by :func:`write`.

    Raises:
        DataError: there is no such file.
        IntegrityError: the checksum does not match the content (damaged, cut short, or another kind of file).
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no data file at {path}; make one first, or check the path")
    content = path.read_bytes()
    payload, stated = content[:-_DIGEST], content[-_DIGEST:]
    found = hashlib.sha256(payload).hexdigest()
    if found.encode() != stated:
        raise IntegrityError(
            f"{path} is damaged: its content has SHA-256 {found[:16]}…, the file states "
            f"{stated[:16].decode('ascii', 'replace')}…; delete it and make it again"
        )
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        metadata = json.loads(archive.read(METADATA))
        members = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist() if name != METADATA}
    arrays = {name: np.lib.format.read_array(io.BytesIO(b), allow_pickle=False) for name, b in members.items()}
    return arrays, metadata


def digest(arrays: Mapping[str, np.ndarray], order: Iterable[str] = ()) -> str:
    """SHA-256 over names, types, shapes and bytes of arrays, in hex; in that order, or by name."""
    found = hashlib.sha256()
    for name in order or sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def checksum(path: str | Path) -> str:
    """The SHA-256 of a whole file, in hex."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


COUNTED = ("frames", "conformers")


@dataclass(frozen=True)
class Made(Reader):
    """A file of ``equiscope data forcefield`` or of the voxel task; groups are molecules, one after another."""

    UNITS: ClassVar[Mapping[str, str]] = {
        "positions": "Å",
        "energy": "eV",
        "forces": "eV/Å",
        "known from": "this package made the file",
    }

    def blocks(self, rejected: Counter[str]) -> Iterator[Block]:
        arrays, metadata = store.read(self.path)
        counted = next((name for name in COUNTED if name in arrays), None)
        if counted is None:
            held = metadata.get("format", "no format")
            raise DataError(f"{self.path} holds {held!r}, neither {' nor '.join(COUNTED)} of molecules")
        frame = atom = row = 0
        for molecule, (n, frames) in enumerate(zip(arrays["atoms"].tolist(), arrays[counted].tolist(), strict=True)):
            numbers = arrays["species"][atom : atom + n]
            vectors = [name for name in ("positions", "forces") if name in arrays]
            found: dict[str, Any] = {name: arrays[name][row:][: frames * n].reshape(frames, n, 3) for name in vectors}
            if "energy" in arrays:
                found["energy"] = arrays["energy"][frame : frame + frames]
            for piece in pieces(frames, n):
                yield block(f"molecule {molecule}", numbers, **{name: array[piece] for name, array in found.items()})
            frame, atom, row = frame + frames, atom + n, row + frames * n
