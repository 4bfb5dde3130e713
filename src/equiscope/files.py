"""Opening files of others: what is there, compressed or not, text of any encoding, and never more than it can hold."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from equiscope.errors import DataError, EquiscopeError

LARGEST_UNPACKED = 1 << 30
"""Bytes that any file may unpack to; beyond them at most :data:`LARGEST_RATIO` times what is stored."""
LARGEST_RATIO = 200
LONGEST_LINE = 1 << 24
LARGEST_FRAME = 10**6
"""Atoms of one frame at most: a number of atoms beyond it is a damaged header."""
REMARK = "read with a remark: "
"""Begins the reasons, among those counted, of what was read all the same."""
NOT_UTF8 = f"{REMARK}line with bytes that are no UTF-8 (read as '�')"
PACKED = (".gz", ".bz2", ".xz", ".zst")


class FileError(DataError):
    """A file is not what it should be, damaged or cut short; one of many in a folder is counted and left out."""


class Refused(FileError):
    """Nothing may be read on: the file would run or read something else, or a package is missing."""


def needed(module: str, package: str | None = None) -> Any:
    """An optional module, imported where it is first needed.

    Raises:
        Refused: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = package or module.split(".")[0]
        raise Refused(f"{name} is needed here and not installed ({error}): pip install 'equiscope[data]'") from error


def existing(path: str | Path, what: str) -> Path:
    """The path, if there is a file or a folder.

    Raises:
        DataError: there is nothing, or what never ends (a pipe, a device).
    """
    found = Path(path)
    try:
        kind = found.stat().st_mode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"there is no {what} at {path} ({reason})") from error
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise DataError(f"{path} is a pipe or a device, not the {what} that is asked for")
    return found


@contextmanager
def readable(path: str | Path, what: str) -> Iterator[None]:
    """Whatever a parser raises for the file becomes an error that names it.

    Raises:
        FileError: the file is no ``what``, or is damaged or cut short, with the parser's own words.
    """
    try:
        yield
    except EquiscopeError as error:
        if type(error) is DataError and str(path) not in str(error):
            raise FileError(f"{path}: {error}") from error
        raise
    except Exception as error:
        raise FileError(f"{path} is no {what}, or is damaged or cut short: {said(error)}") from error


def said(error: BaseException) -> str:
    """An exception in one line: its words alone where they are ours, its type before them otherwise."""
    words = " ".join(str(error).split())
    return words[:300] if isinstance(error, EquiscopeError) else f"{type(error).__name__}: {words}"[:300]


def check_size(unpacked: int, stored: int, what: str) -> None:
    """Nothing if so many bytes may come out of what is stored.

    Raises:
        FileError: far more than any real data: a damaged header, or made to fill the memory.
    """
    if unpacked > max(LARGEST_UNPACKED, LARGEST_RATIO * stored):
        raise FileError(f"{what} holds {stored:,} bytes and claims to unpack to {unpacked:,} or more: it is refused")


class _Bounded(io.RawIOBase):
    """A readable stream that ends in a typed error where its content is damaged or grows beyond measure."""

    def __init__(self, stream: Any, stored: int, path: Path, what: str) -> None:
        self._stream, self._stored, self._path, self._what = stream, stored, path, what
        self._seen = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._seen

    def readinto(self, buffer: Any) -> int:
        with readable(self._path, self._what):
            content = self._stream.read(len(buffer))
        self._seen += len(content)
        check_size(self._seen, self._stored, str(self._path))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Zstandard:
    """Frame after frame of a Zstandard file; the package's own reader takes a file that is cut short for whole."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._new = raw, needed("zstandard").ZstdDecompressor().decompressobj
        self._frame, self._left = self._new(), b""

    def read(self, size: int) -> bytes:
        while not self._left:
            packed = self._frame.unused_data if self._frame.eof else b""
            # So few that what they unpack to fits the memory.
            packed = packed or self._raw.read(1 << 10)
            if not packed and not self._frame.eof:
                raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            if not packed:
                return b""
            self._frame = self._new() if self._frame.eof else self._frame
            self._left = self._frame.decompress(packed)
        content, self._left = self._left[:size], self._left[size:]
        return content

    def close(self) -> None:
        self._raw.close()


# The first bytes of a compressed file, whatever its name.
_UNPACK: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
    (b"\x28\xb5\x2f\xfd", _Zstandard),
)


@contextmanager
def opened(path: str | Path, what: str, as_named: bool = True) -> Iterator[io.BufferedReader]:
    """The bytes of a file, unpacked if it is compressed with gzip, bzip2, xz or Zstandard.

    Its first bytes decide; with ``as_named`` a file that is called .gz and is not compressed is damaged.

    Raises:
        DataError: there is no such file, or (while it is read) it is damaged, cut short or grows beyond measure.
    """
    path = existing(path, what)
    with readable(path, what), path.open("rb") as raw:
        head = raw.read(6)
        raw.seek(0)
        unpack = next((unpack for magic, unpack in _UNPACK if head.startswith(magic)), None)
        if as_named and unpack is None and path.suffix in PACKED:
            raise FileError(f"{path} is no {what}, or is damaged: it is not compressed as its name says")
        stream = unpack(raw) if unpack else raw
        bounded: Any = _Bounded(stream, path.stat().st_size, path, what)
        with io.BufferedReader(bounded, 1 << 16) as file:
            yield file


def text_lines(path: str | Path, what: str, counts: Counter[str] | None = None) -> Iterator[str]:
    """The lines of a text file, compressed or not; bytes that are no UTF-8 are read as '�', and such lines counted.

    Raises:
        DataError: as :func:`opened`; a line longer than any in a text file.
    """
    with opened(path, what) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace") as text:
        while line := text.readline(LONGEST_LINE):
            if len(line) == LONGEST_LINE:
                raise FileError(f"{path} has a line of more than {LONGEST_LINE:,} characters: it is no {what}")
            if "\ufffd" in line and counts is not None:
                counts[NOT_UTF8] += 1
            yield line


def frame_texts(path: str | Path, counts: Counter[str] | None = None) -> Iterator[str]:
    """The text of each frame of an (extended) XYZ file: the number of atoms N, a comment, N lines, ASE's VEC lines.

    Raises:
        DataError: no such file, or a line with something else where a number of atoms must stand.
    """
    what = "extended XYZ file"
    lines = text_lines(path, what, counts)
    number, line = 1, next(lines, "")
    while line:
        if not line.strip():
            number, line = number + 1, next(lines, "")
            continue
        word = line.strip()
        if not (word.isascii() and word.isdigit()):
            raise FileError(f"{path}, line {number}: expected a number of atoms, got {word[:60]!r}")
        if len(word) > 12 or int(word) > LARGEST_FRAME:
            most = f"more than the {LARGEST_FRAME:,} a frame may have"
            raise FileError(f"{path}, line {number}: {word[:40]} atoms, {most}")
        frame = [line]
        for _ in range(int(word) + 1):
            # A file that ends early gives a short frame, which its parser refuses with its own words.
            if not (line := next(lines, "")):
                break
            frame.append(line)
        number, line = number + len(frame), next(lines, "")
        while line.startswith("VEC"):
            frame.append(line)
            number, line = number + 1, next(lines, "")
        yield "".join(frame)
