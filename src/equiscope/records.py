"""Append-only records of a run: one JSON object a line, each with a checksum, nothing half-read.

A line is ``{"n": running number, "kind": str, ..., "sha": s}`` with s the first 16 hex digits of the
SHA-256 over the canonical JSON (sorted keys, no blanks) of everything but ``sha``. Beside the file lies
``<name>.count``, the number of lines known to be on disk, so that lines lost at the end are noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equiscope.errors import InputError, IntegrityError, RunError

Record = dict[str, Any]


def plain(value: Any, where: str = "record") -> Any:
    """``value`` as JSON types: 0-d arrays and tensors become numbers, paths strings, NaN and infinities null.

    Raises:
        InputError: for anything else, naming the field.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist(), where)
    raise InputError(f"{where} is a {type(value).__name__}: a record holds only numbers, text, lists, dicts")


def digest(record: Mapping[str, Any]) -> str:
    """First 16 hex digits of SHA-256 over the canonical JSON of a record without its ``sha``."""
    body = {key: value for key, value in record.items() if key != "sha"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``: temporary file, fsync, rename, fsync of the folder.

    At every instant the path holds either the old or the new content, whole.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: str | os.PathLike[str]) -> list[Record]:
    """All whole records of a file, in order; a torn last line (a write cut off) is left out with a warning.

    Raises:
        IntegrityError: if any line is damaged, missing or out of order, naming the line.
    """
    whole, torn = scan(Path(path))
    if torn:
        warnings.warn(f"{path}: the last line is torn and left out ({len(torn)} bytes of it were written)")
    return whole


def scan(path: Path) -> tuple[list[Record], bytes]:
    """The whole records of a file and the bytes of its torn last line (empty if there is none).

    Raises:
        IntegrityError: as for :func:`read`.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise IntegrityError(f"no records at {path}: has the run started, is this its folder?") from None
    lines = content.split(b"\n")
    torn = lines.pop()
    records = [_parse(line, number, path) for number, line in enumerate(lines, start=1)]
    known = _known_count(path)
    if known is not None and len(records) < known:
        raise IntegrityError(
            f"{path} is damaged at line {len(records) + 1}: {known} records were written, "
            f"{len(records)} are left whole; restore the file from a copy"
        )
    return records, torn


def _parse(line: bytes, number: int, path: Path) -> Record:
    def damaged(reason: str) -> IntegrityError:
        return IntegrityError(f"{path} is damaged at line {number}: {reason}; restore the file from a copy")

    try:
        record = json.loads(line)
    except ValueError as error:
        raise damaged("it is not JSON") from error
    if not isinstance(record, dict) or "sha" not in record:
        raise damaged("it is not a record with a checksum")
    try:
        # The bytes are compared too: 1e-5 and 1E-5 have the same checksum, yet one of them is damage.
        intact = record["sha"] == digest(record) and _encode(record) == line
    except ValueError:
        intact = False
    if not intact:
        raise damaged("its checksum does not match its content")
    if record.get("n") != number - 1:
        raise damaged(f"it says n={record.get('n')!r} for {number - 1}, so lines are missing or doubled")
    return record


def _encode(record: Record) -> bytes:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _count_path(path: Path) -> Path:
    return path.with_name(path.name + ".count")


def _count_line(count: int) -> bytes:
    return f"{count} {hashlib.sha256(str(count).encode()).hexdigest()[:16]}\n".encode()


def _known_count(path: Path) -> int | None:
    beside = _count_path(path)
    if not beside.exists():
        return None
    content = beside.read_bytes()
    head = content.split(b" ")[0]
    if not head.isdigit() or _count_line(int(head)) != content:
        raise IntegrityError(f"{beside} is damaged ({content[:60]!r}): delete it if {path.name} is whole")
    return int(head)


class Records:
    """The records of one run, opened for appending; every record is on disk when ``append`` returns.

    Attributes:
        path: the JSON-lines file, made if missing.
        entries: every record so far, read back and verified.
        torn: bytes of a torn last line found on opening; they are moved to ``<name>.torn``.

    Raises:
        IntegrityError: on opening a damaged file.
        RunError: if the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.entries: list[Record] = []
        self.torn = b""
        if self.path.exists():
            self.entries, self.torn = scan(self.path)
        try:
            if self.torn:
                self._set_torn_aside()
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise RunError(f"cannot write the records {self.path}: {error.strerror}") from error

    def _set_torn_aside(self) -> None:
        with open(self.path.with_name(self.path.name + ".torn"), "ab") as aside:
            aside.write(self.torn + b"\n")
            aside.flush()
            os.fsync(aside.fileno())
        with open(self.path, "r+b") as file:
            file.truncate(self.path.stat().st_size - len(self.torn))
            os.fsync(file.fileno())

    def append(self, kind: str, **fields: Any) -> Record:
        """Write one record and return it as it will be read back.

        Raises:
            InputError: if a field is no plain data.
            RunError: if the disk refuses; the file then ends with the last whole record.
        """
        record: Record = {"n": len(self.entries), "kind": kind, **plain(fields, kind)}
        record["sha"] = digest(record)
        line = _encode(record) + b"\n"
        before = os.fstat(self._file.fileno()).st_size
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
            os.fsync(self._file.fileno())
            self.entries.append(record)
            write_atomically(_count_path(self.path), _count_line(len(self.entries)))
        except OSError as error:
            if len(self.entries) == record["n"]:
                os.ftruncate(self._file.fileno(), before)
            raise RunError(f"cannot write record {record['n']} to {self.path}: {error.strerror}") from error
        return record

    def find(self, kind: str, **fields: Any) -> Record | None:
        """The first record of a kind whose named fields have these values, or None."""
        for record in self.entries:
            if record["kind"] == kind and all(record.get(key) == value for key, value in fields.items()):
                return record
        return None

    def append_once(self, kind: str, identity: Mapping[str, Any], **fields: Any) -> Record:
        """The record with this identity, written only if a run before a restart has not written it."""
        return self.find(kind, **identity) or self.append(kind, **identity, **fields)

    def close(self) -> None:
        """Close the file; appending afterwards is an error."""
        self._file.close()

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
