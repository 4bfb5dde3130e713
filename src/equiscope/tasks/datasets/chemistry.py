"""RDKit's modules, imported where they are first needed: reading data needs no RDKit."""

from __future__ import annotations

from typing import Any

from equiscope.files import needed


def rdkit(name: str) -> Any:
    """The module ``rdkit.<name>``.

    Raises:
        Refused: RDKit is not installed.
    """
    return needed(f"rdkit.{name}", "RDKit")
