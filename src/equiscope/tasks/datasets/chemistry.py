"""RDKit's modules, imported where they are first needed: reading data needs no RDKit."""

from __future__ import annotations

import importlib
from typing import Any

from equiscope.errors import DataError


def rdkit(name: str) -> Any:
    """The module ``rdkit.<name>``.

    Raises:
        DataError: RDKit is not installed.
    """
    try:
        return importlib.import_module(f"rdkit.{name}")
    except ImportError as error:
        raise DataError(
            f"RDKit is needed to make molecules but could not be imported ({error}); "
            "pip install 'equiscope[data]'"
        ) from error
