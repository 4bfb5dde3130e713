"""Checkpoints that cannot be half-written or silently damaged, as a Lightning CheckpointIO.

Beside ``last.ckpt`` lies ``last.ckpt.sha256`` with the SHA-256 of every content the file may rightly have. Saving
writes the new content to a temporary file, adds its hash to the list, renames, and drops the old hashes: whichever
instant a process dies at, the file verifies.
"""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import CheckpointIO
from torch import Tensor

from equiscope.errors import IntegrityError, RunError, first_line
from equiscope.runs.folder import RunFolder
from equiscope.writing import inner_folder, replacing, write_atomically

RUN = "equiscope_run"
"""The key of a checkpoint that names its run."""


class VerifiedCheckpointIO(CheckpointIO):
    """Atomic saves with a SHA-256 beside them; loads verify it and never unpickle code.

    Attributes:
        run: the checksum of the run's first record, written into every checkpoint; None where it is not known.
    """

    run: str | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Replace the checkpoint at ``path``.

        Raises:
            RunError: if the disk refuses; the former checkpoint is then still there and verifies.
        """
        target = Path(path)
        if self.run is not None:
            checkpoint = {**checkpoint, RUN: self.run}
        try:
            inner_folder(target.parent)
            with replacing(target) as file:
                torch.save(checkpoint, file)
                file.seek(0)
                new = sha256(file)
                admitted = _listed(target) if target.exists() else []
                _list(target, [*admitted, new])
            _list(target, [new])
        except (OSError, RuntimeError) as error:
            # torch reports a full disk as a RuntimeError of its zip writer.
            raise RunError(f"cannot save the checkpoint {target}: {error}") from error

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any | None = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """The verified checkpoint, tensors on the CPU unless told otherwise.

        Raises:
            IntegrityError: if file and checksum do not match, or either is missing.
        """
        return load(path, map_location, self.run)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Delete a checkpoint and its checksum."""
        for file in (Path(path), _beside(Path(path))):
            file.unlink(missing_ok=True)


class Checkpoints(pl.Callback):
    """Saves ``last.ckpt`` every so many steps and at the end, after the records of that step.

    Args:
        folder: the run's folder.
        every: steps between two saves.
        keep: steps whose checkpoints are also saved under a name of their own, which nothing overwrites.
        until: seconds of the epoch after which training is stopped with a checkpoint.
    """

    def __init__(
        self, folder: RunFolder, every: int, max_steps: int, keep: Sequence[int] = (), until: float | None = None
    ) -> None:
        self._folder, self._every, self._max_steps, self._keep = folder, every, max_steps, frozenset(keep)
        self._until = math.inf if until is None else until

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            self._save_kept(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        # Clocks of several processes differ, and one that stopped alone would be waited for.
        over = self._until < math.inf and trainer.strategy.broadcast(time.time() >= self._until)
        due = step % self._every == 0 or step == self._max_steps or over
        if due or step in self._keep:
            cast(Any, pl_module).check_finite()
        self._save_kept(trainer)
        if due:
            trainer.save_checkpoint(str(self._folder.checkpoint))
        trainer.should_stop = trainer.should_stop or over

    def _save_kept(self, trainer: pl.Trainer) -> None:
        if trainer.global_step in self._keep:
            trainer.save_checkpoint(str(self._folder.kept(trainer.global_step)))


def load(path: str | os.PathLike[str], map_location: Any | None = None, run: str | None = None) -> dict[str, Any]:
    """A checkpoint whose SHA-256 matches the list beside it, read with ``weights_only=True``.

    Args:
        run: the checksum of the first record of the run it must be of, with weights and step; those of before name
            none and are taken. None for anything.

    Raises:
        IntegrityError: if it does not match, either file is missing, code would have to be unpickled, it is no
            checkpoint of this program, or it is of another run.
    """
    source = Path(path)
    try:
        file = open(source, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise IntegrityError(f"no checkpoint at {source}") from None
    with file:
        found = sha256(file)
        admitted = _listed(source)
        if found not in admitted and _replaced(file, source):
            # By the run that goes on: what was hashed is whole, and no longer on the list.
            return load(source, map_location, run)
        if found not in admitted:
            raise IntegrityError(
                f"checkpoint {source} is damaged: its SHA-256 is {found[:16]}…, due is "
                f"{' or '.join(h[:16] + '…' for h in admitted)}; restore it from a copy, or delete the "
                "checkpoints folder to train from the start"
            )
        file.seek(0)
        try:
            found_in = torch.load(file, map_location=map_location or "cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise IntegrityError(
                f"checkpoint {source} holds objects that are not plain tensors and numbers, which could run code "
                "on loading: it was not written by this program"
            ) from error
        except Exception as error:
            raise IntegrityError(f"checkpoint {source} cannot be read: {first_line(error)}") from error
    return _checked(found_in, source, run)


def _replaced(file: BinaryIO, path: Path) -> bool:
    try:
        return not os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _checked(stored: Any, source: Path, run: str | None) -> dict[str, Any]:
    if run is None and isinstance(stored, dict):
        return stored
    kinds = {"state_dict": dict, "global_step": int, "pytorch-lightning_version": str}
    if not isinstance(stored, dict) or not all(isinstance(stored.get(key), kind) for key, kind in kinds.items()):
        raise IntegrityError(f"checkpoint {source} holds no weights and no step: it was not written by this program")
    if stored.get(RUN, run) != run:
        raise IntegrityError(
            f"checkpoint {source} is of another run: it names the run {stored[RUN]!r}, the records are those of "
            f"{run!r}; restore the checkpoints of this run"
        )
    return stored


def check_fit(due: Mapping[str, Tensor], weights: Mapping[str, Any], place: str | os.PathLike[str]) -> None:
    """The weights of a checkpoint have the names and shapes of those of a model.

    Raises:
        RunError: naming the first that differs.
    """
    wanted = {name: tuple(value.shape) for name, value in due.items()}
    found = {name: tuple(value.shape) if isinstance(value, Tensor) else type(value) for name, value in weights.items()}
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise RunError(
                f"the checkpoint of {place} is of another model: {name!r} is {found.get(name, 'missing')} in the "
                f"checkpoint and {wanted.get(name, 'missing')} in the model that config.yaml describes; restore the "
                "config.yaml and checkpoints of one and the same run"
            )


def sha256(file: Any) -> str:
    """Hex SHA-256 of the rest of an open file."""
    return hashlib.file_digest(file, "sha256").hexdigest()


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
    hashes = re.findall(r"^[0-9a-f]{64}", content.decode("ascii", errors="replace"), re.MULTILINE)
    # Byte for byte what was written, so that a flip anywhere in it is seen.
    if not hashes or content != _list_text(path, hashes):
        raise IntegrityError(
            f"{beside} is damaged: it does not hold the SHA-256 of {path.name} as it was written; restore it"
        )
    return hashes
