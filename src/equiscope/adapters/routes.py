"""ASE calculators of SevenNet, MACE and Orb through their packages' own torch-sim models: many structures a call.

A calculator answers one structure at a time; the same network answers hundreds at once as a torch-sim model. Where
torch-sim is there (Python 3.12 or later) such a calculator is measured so, on a copy of its network, once both have
answered the first structure alike; anything else is asked one structure after another. ``most_atoms=1`` does so too.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from ase import Atoms

from equiscope.adapters import ase_structures as st
from equiscope.adapters.ase_calls import Calculators
from equiscope.adapters.many import DTYPES, Engine, joined
from equiscope.errors import InputError

ALIKE = 1e-3
"""Largest difference of two answers to one structure beside their size: rounding of float32, and what gradients do."""


def _sevennet(calculator: Any) -> Any:
    kind = importlib.import_module("sevenn.torchsim").SevenNetModel
    return kind(copy.deepcopy(calculator.model), modal=calculator.modal, device=calculator.device)


def _mace(calculator: Any) -> Any:
    kind = importlib.import_module("mace.calculators.mace_torchsim").MaceTorchSimModel
    (network,) = calculator.models
    if calculator.model_type != "MACE":
        raise InputError(f"a MACE of type {calculator.model_type} reads more than positions, cell and elements")
    dtype = DTYPES[calculator.default_dtype]
    return kind(copy.deepcopy(network), torch.device(calculator.device), dtype, head=calculator.head)


def _orb(calculator: Any) -> Any:
    kind = importlib.import_module("orb_models.forcefield.inference.orb_torchsim").OrbTorchSimModel
    if calculator.expects_charge_and_spin:
        raise InputError("an Orb that reads charge and spin of each structure")
    return kind(copy.deepcopy(calculator.model), calculator.adapter, device=calculator.device)


ROUTES: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("sevenn", "SevenNetCalculator"): _sevennet,
    ("mace", "MACECalculator"): _mace,
    ("orb_models", "ORBCalculator"): _orb,
}


def routed(calculator: Any, first: Atoms, outputs: Sequence[str] | None = None) -> Engine | None:
    """The engine that answers as this calculator does, many structures a call; None where there is none.

    Args:
        calculator: any. first: a structure on which both must agree. outputs: that will be asked for.
    """
    kind = type(calculator)
    # A class made from one of theirs may answer otherwise.
    make = ROUTES.get((kind.__module__.partition(".")[0], kind.__name__))
    if make is None or importlib.util.find_spec("torch_sim") is None:
        return None
    try:
        from equiscope.adapters.torch_sim_engine import TorchSim

        engine: Engine = TorchSim(make(calculator))
        wanted = [o for o in outputs or engine.outputs if o != "stress" or st.has_stress(first)]
        if not {*wanted} <= {*engine.outputs} or _apart(engine, Calculators(calculator), first, wanted) > ALIKE:
            return None
    except Exception:
        # Whatever keeps the calculator from being answered so, it still answers by itself.
        return None
    engine.name = kind.__name__
    engine.note = (  # type: ignore[attr-defined]
        f"many structures a call: {kind.__name__} was measured as the torch-sim model of its package, which answered "
        "the first structure alike (most_atoms=1: one after another, as the calculator)"
    )
    return engine


def _apart(engine: Engine, alone: Engine, atoms: Atoms, wanted: Sequence[str]) -> float:
    """The largest relative difference between the answers of two engines to a structure."""
    plan = st.AsePlan(tuple(wanted))
    theirs = engine.answer(joined([0], [atoms], plan, [0], engine.dtype or torch.float64, engine.device), wanted)
    own = alone.answer(joined([0], [atoms], plan, [0]), wanted)
    apart = [0.0]
    for name in wanted:
        one, other = theirs[name].double().cpu(), own[name].double().cpu()
        size = float(other.abs().max())
        apart.append(float((one.reshape(other.shape) - other).abs().max()) / size if size else float(one.abs().max()))
    return max(apart)
