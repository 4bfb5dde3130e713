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
import stat
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from equiscope.errors import InputError, IntegrityError, RunError
from equiscope.writing import Lock, locked, not_inherited, open_own, write_atomically

#: What the first record of a run says of the fields of all; runs of before have none.
FORMAT = 2

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


def read(path: str | os.PathLike[str]) -> list[Record]:
    """All whole records of a file, in order; a torn last line (a write cut off) is left out with a warning.

    Args:
        path: of ``records.jsonl``.

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
    # The count first: a run that writes meanwhile counts a record after it has written it.
    known = _known_count(path)
    content = _content(path)
    lines = content.split(b"\n")
    torn = lines.pop()
    records = [_parse(line, number, path) for number, line in enumerate(lines, start=1)]
    if known is not None and len(records) < known:
        raise IntegrityError(
            f"{path} is damaged at line {len(records) + 1}: {known} records were written, "
            f"{len(records)} are left whole; restore the file from a copy"
        )
    version = records[0].get("format", 1) if records and records[0]["kind"] == "run" else 1
    if not isinstance(version, int) or version > FORMAT:
        raise IntegrityError(f"{path} is of format {version!r}, and {FORMAT} is the newest known: upgrade equiscope")
    return records, torn


def first(path: Path) -> Record | None:
    """The first record, which says what the others are of; None where no line is whole.

    Raises:
        IntegrityError: it is damaged.
    """
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        line = file.readline()
    return _parse(line[:-1], 1, path) if line.endswith(b"\n") else None


def _content(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise IntegrityError(f"{path} is no file: restore the records from a copy")
        return path.read_bytes()
    except FileNotFoundError:
        raise IntegrityError(f"no records at {path}: has the run started, is this its folder?") from None


def json_object(content: bytes) -> dict[str, Any] | None:
    """The JSON object that another process writes or wrote; None for anything else, such as one cut short."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _parse(line: bytes, number: int, path: Path) -> Record:
    def damaged(reason: str) -> IntegrityError:
        return IntegrityError(f"{path} is damaged at line {number}: {reason}; restore the file from a copy")

    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise damaged("it is not JSON") from error
    if not isinstance(record, dict) or "sha" not in record or not isinstance(record.get("kind"), str):
        raise damaged("it is not a record with a checksum")
    try:
        # The bytes are compared too: 1e-5 and 1E-5 have the same checksum, yet one of them is damage.
        intact = record["sha"] == digest(record) and _encode(record) == line
    except (ValueError, RecursionError):
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
    # Python refuses to read a number of thousands of digits.
    if not head.isdigit() or len(head) > 18 or _count_line(int(head)) != content:
        raise IntegrityError(f"{beside} is damaged ({content[:60]!r}): delete it if {path.name} is whole")
    return int(head)


def refusals(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Analysis -> why the run's model cannot have it, of those of a study that were refused and never made since."""
    records = list(records)
    made = {record["analysis"] for record in records if record["kind"] == "analysis"}
    refused = {str(record["analysis"]): str(record["reason"]) for record in records if record["kind"] == "refusal"}
    return {name: why for name, why in refused.items() if name not in made}


class Records:
    """The records of one run, opened for appending; every record is on disk when ``append`` returns.

    Attributes:
        path: the JSON-lines file, made if missing.
        entries: every record so far, read back and verified.
        torn: bytes of a torn last line found on opening; they are moved to ``<name>.torn``.

    Args:
        lock: of the folder, asked before every record.

    Raises:
        IntegrityError: on opening a damaged file.
        RunError: if the file cannot be written, is a link, or another process writes it.
    """

    def __init__(self, path: str | os.PathLike[str], lock: Lock | None = None) -> None:
        self.path, self._lock = Path(path), lock
        self.entries: list[Record] = []
        self.torn = b""
        try:
            descriptor = open_own(self.path)
            self._file = open(descriptor, "ab", buffering=0)  # noqa: SIM115
            not_inherited(self)
            if locked(descriptor) is False:
                raise RunError(f"{self.path} is in use by another process: wait for it")
            self.entries, self.torn = scan(self.path)
            if self.torn:
                self._set_torn_aside()
            self._size = os.fstat(descriptor).st_size
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise RunError(f"cannot write the records {self.path}: {error.strerror}") from error
            raise

    def _set_torn_aside(self) -> None:
        with open(open_own(self.path.with_name(self.path.name + ".torn")), "ab") as aside:
            aside.write(self.torn + b"\n")
            aside.flush()
            os.fsync(aside.fileno())
        descriptor = self._file.fileno()
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - len(self.torn))
        os.fsync(descriptor)

    def _check(self) -> None:
        """The file is still the one that was opened, with nothing in it of another process."""
        found = os.fstat(self._file.fileno())
        try:
            same = os.path.samestat(found, os.lstat(self.path))
        except OSError:
            same = False
        if not same:
            raise RunError(f"{self.path} was moved, deleted or replaced while it was written: nothing more is written")
        if found.st_size != self._size:
            raise RunError(
                f"{self.path} has {found.st_size} bytes and not {self._size}: another process writes there; nothing "
                "more is written by this one"
            )
        if self._lock is not None:
            self._lock.check()

    def append(self, kind: str, **fields: Any) -> Record:
        """Write one record and return it as it will be read back.

        Raises:
            InputError: if a field is no plain data.
            RunError: if the disk refuses, and the file then ends with the last whole record; if another process has
                written to the file, or taken it away.
        """
        record: Record = {"n": len(self.entries), "kind": kind, **plain(fields, kind)}
        record["sha"] = digest(record)
        line = _encode(record) + b"\n"
        self._check()
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
            os.fsync(self._file.fileno())
            self.entries.append(record)
            self._size += len(line)
            write_atomically(_count_path(self.path), _count_line(len(self.entries)))
        except OSError as error:
            if len(self.entries) == record["n"]:
                os.ftruncate(self._file.fileno(), self._size)
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
        """Close the file, in this process alone; appending afterwards is an error."""
        file: Any = getattr(self, "_file", None)
        if file is not None:
            file.close()

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
