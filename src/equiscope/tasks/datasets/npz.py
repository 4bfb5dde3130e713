"""Arrays of an ``.npz`` archive: their headers first, their rows a bounded piece at a time, never through pickle."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from equiscope.errors import DataError
from equiscope.files import check_size, existing, readable

_LARGEST_WHOLE = 1 << 28


@dataclass(frozen=True)
class Column:
    """An array of which nothing but the header was read."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


class Archive:
    """An open npz file.

    Attributes:
        path: of the file; names: of its arrays.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self._archive = path, archive
        self.names = {name.removesuffix(".npy") for name in archive.namelist()}

    def column(self, name: str) -> Column:
        """Shape and dtype of an array.

        Raises:
            DataError: objects; columns stored first, which cannot be streamed; another size than its header says.
        """
        with self._member(name) as (_, column):
            return column

    def whole(self, name: str) -> np.ndarray:
        """A small array.

        Raises:
            DataError: as :meth:`column`; an array of more than 256 MiB.
        """
        with self._member(name) as (file, column):
            size = math.prod(column.shape) * column.dtype.itemsize
            if size > _LARGEST_WHOLE:
                raise DataError(f"array {name} of {self.path} has shape {column.shape}: far too large for what it is")
            return np.frombuffer(file.read(size), column.dtype).reshape(column.shape)

    def rows(self, name: str, slices: Iterable[slice]) -> Iterator[np.ndarray]:
        """An array, the rows of one slice after another; the slices must follow one another from 0.

        Raises:
            DataError: as :meth:`column`; the array is cut short.
        """
        with self._member(name) as (file, column):
            width = column.dtype.itemsize * math.prod(column.shape[1:])
            for rows in slices:
                count = rows.stop - rows.start
                content = file.read(count * width)
                if len(content) != count * width:
                    raise DataError(f"array {name} of {self.path} is cut short at frame {rows.start}")
                yield np.frombuffer(content, column.dtype).reshape(count, *column.shape[1:])

    @contextmanager
    def _member(self, name: str) -> Iterator[tuple[IO[bytes], Column]]:
        about = self._archive.getinfo(f"{name}.npy")
        where = f"array {name} of {self.path}"
        check_size(about.file_size, about.compress_size, where)
        with self._archive.open(about) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, columns_first, dtype = read(file)
            if dtype.hasobject:
                raise DataError(f"{where} holds Python objects, which only pickle could read: it is refused")
            if columns_first and len(shape) > 1:
                raise DataError(f"{where} is stored column by column: write it again with numpy.ascontiguousarray")
            size, held = math.prod(shape) * dtype.itemsize, about.file_size - file.tell()
            if size != held:
                raise DataError(f"{where} has shape {shape} of {dtype}, {size:,} bytes, but holds {held:,}")
            yield file, Column(name, tuple(shape), dtype)


@contextmanager
def opened(path: str | Path) -> Iterator[Archive]:
    """An npz file, for as long as it is read; whatever is wrong with it is a DataError.

    Raises:
        DataError: no such file, no npz, one that is damaged or cut short.
    """
    path = existing(path, "npz file")
    with readable(path, "npz file"), zipfile.ZipFile(path) as archive:
        yield Archive(path, archive)
