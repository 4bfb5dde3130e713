"""Force-field models by name and size: the one place where a configuration becomes a network."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from torch import nn

from equiscope.errors import InputError
from equiscope.tasks.forcefield import sizes
from equiscope.tasks.forcefield.edge_transformer import EdgeTransformer
from equiscope.tasks.forcefield.escaip import Escaip
from equiscope.tasks.forcefield.nequip_field import NequipField

MODELS: dict[str, tuple[type[nn.Module], dict[str, Any], dict[str, Any]]] = {
    "edge_transformer": (EdgeTransformer, sizes.EDGE_TRANSFORMER, {}),
    "escaip": (Escaip, sizes.ESCAIP, {"tied": False}),
    "escaip_tied": (Escaip, sizes.ESCAIP, {"tied": True}),
    "nequip": (NequipField, sizes.NEQUIP, {"forces": "gradient"}),
    "nequip_direct": (NequipField, sizes.NEQUIP_DIRECT, {"forces": "direct"}),
}
"""Name → (class, sizes, settings that the name stands for)."""


def build(name: str, size: str = "nano", **overrides: Any) -> nn.Module:
    """A freshly initialised model (weights from torch's global generator, in the default dtype and device).

    Args:
        name: ``edge_transformer``, ``escaip``, ``escaip_tied`` (the exactly equivariant twin of ``escaip``), ``nequip``
            or ``nequip_direct`` (the equivariant peer with gradient or direct forces; needs the extra ``peers``).
        size: ``nano``, ``1M``, ``4M`` or ``6M`` (``nequip``: ``nano`` or ``1M``).
        overrides: fields of the model's configuration, for example ``cutoff=6.0`` or ``layers=4``.

    Raises:
        InputError: an unknown name, size or field, or a field that the name already settles.
    """
    if name not in MODELS:
        raise InputError(f"there is no force-field model {name!r}: choose one of {sorted(MODELS)}")
    model, configurations, settled = MODELS[name]
    if size not in configurations:
        raise InputError(f"{name} has no size {size!r}: choose one of {list(configurations)}")
    known = {f.name for f in fields(configurations[size])} - set(settled)
    unknown = sorted(set(overrides) - known)
    if unknown:
        raise InputError(f"{name} has no setting {unknown}: choose among {sorted(known)}")
    if "elements" in overrides:
        overrides["elements"] = tuple(int(z) for z in overrides["elements"])
    return model(replace(configurations[size], **settled, **overrides))
