"""Checkpoints that cannot be half-written or silently damaged, as a Lightning CheckpointIO.

Beside ``last.ckpt`` lies ``last.ckpt.sha256`` with the SHA-256 of every content the file may rightly have. Saving
writes the new content to a temporary file, adds its hash to the list, renames, and drops the old hashes: whichever
instant a process dies at, the file verifies.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from equiscope.errors import IntegrityError, RunError
from equiscope.records import sync_folder, write_atomically

_BLOCK = 1 << 20
_HEX = set("0123456789abcdef")


class VerifiedCheckpointIO(CheckpointIO):
    """Atomic saves with a SHA-256 beside them; loads verify it and never unpickle code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Replace the checkpoint at ``path``.

        Raises:
            RunError: if the disk refuses; the former checkpoint is then still there and verifies.
        """
        target = Path(path)
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            with open(temporary, "rb") as file:
                new = sha256(file)
            admitted = _listed(target) if target.exists() else []
            _list(target, [*admitted, new])
            os.replace(temporary, target)
            sync_folder(target.parent)
            _list(target, [new])
        except (OSError, RuntimeError) as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            # torch reports a full disk as a RuntimeError of its zip writer.
            raise RunError(f"cannot save the checkpoint {target}: {error}") from error

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any | None = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """The verified checkpoint, tensors on the CPU unless told otherwise.

        Raises:
            IntegrityError: if file and checksum do not match, or either is missing.
        """
        return load(path, map_location)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Delete a checkpoint and its checksum."""
        for file in (Path(path), _beside(Path(path))):
            file.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], map_location: Any | None = None) -> dict[str, Any]:
    """A checkpoint whose SHA-256 matches the list beside it, read with ``weights_only=True``.

    Raises:
        IntegrityError: if it does not match, either file is missing, or code would have to be unpickled.
    """
    source = Path(path)
    try:
        file = open(source, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise IntegrityError(f"no checkpoint at {source}") from None
    with file:
        found = sha256(file)
        admitted = _listed(source)
        if found not in admitted:
            raise IntegrityError(
                f"checkpoint {source} is damaged: its SHA-256 is {found[:16]}…, due is "
                f"{' or '.join(h[:16] + '…' for h in admitted)}; restore it from a copy, or delete the "
                "checkpoints folder to train from the start"
            )
        file.seek(0)
        try:
            return torch.load(file, map_location=map_location or "cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise IntegrityError(
                f"checkpoint {source} holds objects that are not plain tensors and numbers, which could run code "
                "on loading: it was not written by this program"
            ) from error


def sha256(file: BinaryIO) -> str:
    """Hex SHA-256 of the rest of an open file."""
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _list(path: Path, hashes: list[str]) -> None:
    write_atomically(_beside(path), _list_text(path, hashes))


def _list_text(path: Path, hashes: list[str]) -> bytes:
    return "".join(f"{h}  {path.name}\n" for h in hashes).encode()


def _listed(path: Path) -> list[str]:
    beside = _beside(path)
    try:
        content = beside.read_bytes()
    except FileNotFoundError:
        raise IntegrityError(f"{beside} is missing, so {path.name} cannot be verified: restore it") from None
    lines = content.decode("ascii", errors="replace").splitlines()
    hashes = [line.split()[0] for line in lines if line.split()]
    # Byte for byte what was written, so that a flip anywhere in it is seen.
    if not hashes or content != _list_text(path, hashes) or any(len(h) != 64 or set(h) - _HEX for h in hashes):
        raise IntegrityError(
            f"{beside} is damaged: it does not hold the SHA-256 of {path.name} as it was written; restore it"
        )
    return hashes
