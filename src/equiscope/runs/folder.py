"""The folder of a run: its files, its configuration, and a lock that admits one process at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from equiscope.errors import EquiscopeError, InputError, IntegrityError, RunError
from equiscope.records import Record, first, plain
from equiscope.words import leaves, without_secrets
from equiscope.writing import Lock, inner_folder, remove_left_over, write_atomically

# What a run may be continued with differently: these change no figure, only where and how it is shown.
FREE_KEYS = ("root", "progress", "threads", "logger", "trainer.keep")
# More than any configuration has, in bytes and in levels.
_LARGEST_CONFIG, _DEEPEST_CONFIG = 1 << 20, 50


class RunFolder:
    """``root/task/name/`` with ``config.yaml``, ``records.jsonl``, ``checkpoints/last.ckpt``, those of kept steps
    beside it, ``figures/`` and ``report.html``.

    Raises:
        InputError: if the name is no plain folder name.
    """

    def __init__(self, root: str | os.PathLike[str], task: str, name: str) -> None:
        for what, text in (("task", task), ("run", name)):
            if not text or text in (".", "..") or any(c in text for c in "/\\\0"):
                raise InputError(f"{what}={text!r} is no folder name: use letters, digits, '-' and '_'")
        self.name, self.path = name, Path(root) / task / name
        self.lock = Lock(self.path)
        self.config, self.records = self.path / "config.yaml", self.path / "records.jsonl"
        self.checkpoint = self.path / "checkpoints" / "last.ckpt"
        self.figures, self.report = self.path / "figures", self.path / "report.html"

    def kept(self, step: int) -> Path:
        """The checkpoint that ``trainer.keep`` left of a step."""
        return self.checkpoint.with_name(f"step-{step}.ckpt")

    def kept_steps(self) -> list[int]:
        """The steps whose checkpoints were kept, in order."""
        names = (path.stem.removeprefix("step-") for path in self.checkpoint.parent.glob("step-*.ckpt"))
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    @property
    def started(self) -> bool:
        """Whether anything was recorded here."""
        return self.records.exists() and self.records.stat().st_size > 0

    def open(self, config: Mapping[str, Any]) -> bool:
        """Make the folder, take its lock and write or compare ``config.yaml``; True if the run is a new one.

        A folder in which nothing was recorded yet takes the settings given, whatever it was made with.

        Raises:
            RunError: the folder is in use, cannot be written, or belongs to another configuration.
            IntegrityError: the stored configuration cannot be read.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.acquire()
            remove_left_over(self.path)
            remove_left_over(inner_folder(self.checkpoint.parent))
            if self.started:
                self.compare(config)
            if self.config.exists() and not _differing(self.stored_config(), plain(config)):
                return False
            write_atomically(self.config, yaml.safe_dump(plain(without_secrets(config)), sort_keys=False).encode())
        except OSError as error:
            raise RunError(f"cannot write the run folder {self.path}: {error.strerror}") from error
        return True

    def first_record(self) -> Record | None:
        """What the records say of the run itself; None before they do.

        Raises:
            IntegrityError: damaged records.
        """
        record = first(self.records)
        return record if record and record["kind"] == "run" else None

    def stored_config(self) -> dict[str, Any]:
        """The configuration the run was started with: that of its records, where ``config.yaml`` must not differ.

        Raises:
            IntegrityError: if it cannot be read, or differs from the records.
        """
        record = self.first_record()
        recorded = record.get("config") if record else None
        if isinstance(recorded, dict) and not self.config.exists():
            return recorded
        stored = self._file_config()
        if isinstance(recorded, dict) and (differs := _differing(recorded, stored)):
            raise IntegrityError(
                f"{self.config} was changed: it differs from the settings in the run's records, {', '.join(differs)}; "
                "restore it, or delete it and the records are taken"
            )
        return stored

    def _file_config(self) -> dict[str, Any]:
        try:
            content = self.config.read_bytes() if self.config.is_file() else b""
            _check_yaml(content)
            stored = yaml.safe_load(content)
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise IntegrityError(f"{self.config} cannot be read: restore it from a copy") from error
        if not isinstance(stored, dict):
            raise IntegrityError(f"{self.config} is damaged: it holds no settings; restore it from a copy")
        return stored

    @contextlib.contextmanager
    def kept_if_used(self) -> Iterator[None]:
        """Of a folder made inside, nothing is left where an error comes before the first record."""
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        try:
            yield
        except (EquiscopeError, OSError):
            self.release()
            if self.path in made and not self.started:
                shutil.rmtree(self.path, ignore_errors=True)
                with contextlib.suppress(OSError):
                    for path in made[1:]:
                        path.rmdir()
            raise
        finally:
            self.release()

    def compare(self, config: Mapping[str, Any]) -> None:
        """Refuse to go on with another configuration.

        Raises:
            RunError: naming every setting that differs, with its old and new value.
        """
        if differs := _differing(self.stored_config(), plain(config)):
            raise RunError(
                f"run folder {self.path} was started with other settings: {', '.join(differs)}; "
                "use its settings to go on, or another run=NAME"
            )

    def acquire(self) -> None:
        """Take the lock; the system releases it when this process ends, however it ends.

        Raises:
            RunError: if another process, or this one, already works in the folder.
        """
        try:
            self.lock.take()
        except RunError as error:
            raise RunError(f"run folder {error}") from error

    def release(self) -> None:
        """Give the lock back."""
        self.lock.close()

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"


_MISSING = object()


def _check_yaml(content: bytes) -> None:
    """Refuse what takes for ever to read: aliases of aliases, and levels without end."""
    depth = 0 if len(content) <= _LARGEST_CONFIG else _DEEPEST_CONFIG
    for event in yaml.parse(content):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST_CONFIG or isinstance(event, yaml.AliasEvent):
            raise ValueError("it is no configuration of a run")


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    old, new = dict(leaves(without_secrets(before))), dict(leaves(without_secrets(after)))
    if new.get("data.seed") is not None and "seed" in old:
        # Where there was none, the run's own seed split the data.
        old.setdefault("data.seed", old["seed"])
    return [
        f"{key} (was {old.get(key, 'unset')!r}, now {new.get(key, 'unset')!r})"
        for key in sorted(old.keys() | new.keys())
        if not {key, key.split(".")[0]} & set(FREE_KEYS)
        and old.get(key, _MISSING) != new.get(key, _MISSING)
        # A setting that an older version did not know, and that is off, changes nothing.
        and (key in old or new[key])
    ]


def run_folder(path: str | os.PathLike[str]) -> RunFolder:
    """The run in a folder, by whatever path: relative, ``.``, or renamed."""
    place = Path(os.path.abspath(path))
    return RunFolder(place.parent.parent, place.parent.name, place.name)


def find_run(given: str | os.PathLike[str]) -> Path:
    """A run's folder by its path, or as ``task/name`` under ``runs/``.

    Raises:
        InputError: if there is no such folder.
    """
    path = Path(given)
    folder = path if path.is_dir() or path.is_absolute() else Path("runs") / path
    if not folder.is_dir():
        raise InputError(f"there is no run folder {path}: give its path, or task/name for runs/task/name")
    return folder
