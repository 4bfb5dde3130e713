"""Pickles of molecules read without executing anything: containers, numbers and RDKit molecules, nothing else."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from equiscope.errors import DataError
from equiscope.files import Refused, existing, opened
from equiscope.tasks.datasets.chemistry import rdkit


class _Forbidden(pickle.UnpicklingError):
    """A pickle asks for what could run a program."""


class MoleculeBytes:
    """Stands for an RDKit molecule while a pickle is read: its bytes (``content``) are kept, RDKit is not called."""

    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        if not isinstance(content, bytes):
            raise _Forbidden(f"a molecule made of {type(content).__name__}, not of bytes")
        self.content = content

    def __setstate__(self, state: Any) -> None:
        """RDKit adds an empty state; anything in it is left out."""

    def molecule(self) -> Any:
        """The RDKit molecule; a DataError where RDKit cannot read the bytes, or is not installed."""
        Chem = rdkit("Chem")
        try:
            return Chem.Mol(self.content)
        except Exception as error:
            raise DataError(f"a molecule of the pickle is damaged: {error}") from error


def _encode(text: str, encoding: str) -> bytes:
    """What Python 2 pickles call ``_codecs.encode`` for: bytes written as latin-1 text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _Forbidden(f"encode({type(text).__name__}, {encoding!r})")
    return text.encode("latin1")


# A name of a pickle -> what stands for it here; every other name is refused, dotted ones included.
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("rdkit.Chem.rdchem", "Mol"): MoleculeBytes,
    ("_codecs", "encode"): _encode,
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module, name))
        if found is None:
            raise _Forbidden(f"it asks for {module}.{name}")
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise _Forbidden("it asks for an object outside the file")


def load(path: str | Path) -> Any:
    """The content of a pickle of lists, dicts, numbers, text and RDKit molecules (as :class:`MoleculeBytes`).

    A pickle is a program. This reader knows two names, and both stand for functions of this file that only keep
    bytes: whatever else a pickle asks for is refused before it could be called. A pickle is one object, so its
    memory is about the size of the file.

    Raises:
        Refused: it asks for anything else than the above. DataError: no such file, or a damaged one.
    """
    path = existing(path, "pickle")
    with opened(path, "pickle") as file:
        try:
            return _Restricted(file).load()
        except _Forbidden as error:
            raise Refused(
                f"{path} is refused: {error}, and a pickle can run any program when it is opened. Only lists, dicts, "
                "numbers, text and RDKit molecules are read; if you trust the file, write its geometries as "
                "extended XYZ yourself and read that"
            ) from error
        except Exception as error:
            raise DataError(f"{path} is no sound pickle: {type(error).__name__}: {error}") from error
