"""The precision ladder: the same orbits in several precisions, and what each adds to the equivariance error.

For every precision p and sample i the measure gives E_pi, the equivariance error, on the same rotations of the same
inputs. With S_i = mean |f|^2 of the first precision that runs (the reference, float64 by default),

    relative error of p       sum E_pi / sum S_i
    added by p                sum (E_pi - E_0i) / sum S_i
    share of arithmetic       sum (E_pi - E_0i) / sum E_pi

each with a 95 % interval over clusters; as the orbits are the same, what a broken symmetry does in every precision
cancels sample by sample. Rounding is independent of the symmetry error and adds its variance, of the order of eps^2.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from equiscope.decomposition import statistics
from equiscope.decomposition.batches import kept
from equiscope.decomposition.collect import Collector
from equiscope.decomposition.computing import allowing_tf32
from equiscope.decomposition.measure import device_of, resolve_declaration
from equiscope.decomposition.plan import make_plan
from equiscope.decomposition.pool import host, sample_weights
from equiscope.decomposition.preserve import untouched
from equiscope.decomposition.ragged import batch_of
from equiscope.errors import DataError, DeclarationError, EquiscopeError, InputError, first_line
from equiscope.signatures import handing_on
from equiscope.symmetry.declaration import Declaration, DeclarationSettings
from equiscope.words import aligned, minus

DEFAULT = ("float64", "float32", "bfloat16")
OTHER_NAMES = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "fp64": "float64"}
EXPLAINED = "relative error: root mean square over rotations beside that of the output; the rest is of squares"
NAMES = ("float64", "float32", "tf32", "bfloat16", "float16", "compiled")


@dataclass(frozen=True)
class Figures:
    """What one precision gave of one output, a row a sample in the order of the batches.

    Attributes:
        equivariance, square: (n,) equivariance error and mean |f|^2, weighted alike.
        clusters: (n,) labels.
    """

    equivariance: statistics.Array
    square: statistics.Array
    clusters: Sequence[Any]


@dataclass(frozen=True)
class Rung:
    """One output in one precision.

    Attributes:
        precision, output: their names.
        relative: sum E / sum S, the relative equivariance error (a square), and its interval.
        added: sum (E - E_0) / sum S over the reference and its interval; NaN for the reference itself.
        arithmetic: the share of the error that the precision adds, and its interval; NaN for the reference.
        samples, clusters: behind the intervals.
    """

    precision: str
    output: str
    relative: float
    relative_interval: tuple[float, float]
    added: float
    added_interval: tuple[float, float]
    arithmetic: float
    arithmetic_interval: tuple[float, float]
    samples: int
    clusters: int


@dataclass(frozen=True)
class Ladder:
    """The same orbits in several precisions.

    Attributes:
        rungs: a row a precision and output, in the order asked for.
        reference: the precision that others are compared with.
        seconds: of each precision that ran.
        unavailable: precision → why it did not run here.
        how: precision → what was done to have it.
    """

    rungs: tuple[Rung, ...]
    reference: str
    seconds: Mapping[str, float]
    unavailable: Mapping[str, str]
    how: Mapping[str, str]

    def __str__(self) -> str:
        more = f"more than in {self.reference} (95 % CI)"
        body = [["precision", "output", "relative error", more, "arithmetic", "seconds"]]
        for r in self.rungs:
            low, high = r.added_interval
            own = r.precision == self.reference
            share = "–" if own or np.isnan(r.arithmetic) else "{} % ({} to {})".format(
                *(minus(f"{100 * v:z.0f}") for v in (r.arithmetic, *r.arithmetic_interval)))  # fmt: skip
            added = "reference" if own else f"{r.added:+.2g} ({low:+.2g} to {high:+.2g})"
            seconds = f"{self.seconds[r.precision]:.1f}"
            body.append([r.precision, r.output, f"{_root(r.relative):.2g}", added, share, seconds])
        lines = aligned(body)
        lines += [f"{name}: not measured here: {why}" for name, why in self.unavailable.items()]
        return "\n".join([*lines, EXPLAINED])

    def to_dict(self) -> dict[str, Any]:
        """Plain types for storage."""
        plain = dataclasses.asdict(self)
        plain["rungs"] = [{k: list(v) if isinstance(v, tuple) else v for k, v in r.items()} for r in plain["rungs"]]
        return plain


def _root(value: float) -> float:
    return max(value, 0.0) ** 0.5


def checked(names: Sequence[str] | str) -> tuple[str, ...]:
    """The names in full, each once.

    Raises:
        InputError: for none, or one that is not known.
    """
    given = names.split(",") if isinstance(names, str) else list(names)
    full = tuple(dict.fromkeys(OTHER_NAMES.get(str(name).strip(), str(name).strip()) for name in given))
    if not full or any(name not in NAMES for name in full):
        raise InputError(f"precisions must be of {', '.join(NAMES)}, got {given}")
    return full


@handing_on(Declaration)
def precisions(
    model: nn.Module | Callable[[Any], Any],
    batches: Iterable[Any],
    declaration: Declaration | None = None,
    *,
    names: Sequence[str] | str = DEFAULT,
    inputs: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
    target: str | None = None,
    loss: Any = "mse",
    forward: Callable[[Any, Any], Any] | None = None,
    rotations: str = "T",
    cosets: float | None = None,
    seed: int = 0,
    **settings: Unpack[DeclarationSettings],
) -> Ladder:
    """Measure a model on the same orbits in several precisions: which part of its equivariance error is arithmetic.

    Args:
        model: as for :func:`equiscope.measure`; copies of it are converted, it is left as it was.
        names: of ``"float64"`` and ``"float32"`` (parameters and inputs of that type), ``"tf32"`` (float32 with
            TF32 products, on a card that has it; off in all others), ``"bfloat16"`` and ``"float16"`` (float32 under
            autocast, as models are run in them), ``"compiled"`` (float32 through ``torch.compile``). The first that
            runs is the reference.
        batches, declaration, inputs, outputs, target, loss, forward, rotations, cosets, seed: as for
            :func:`equiscope.measure`.
        fixed, center, group, mask, batch, per, clusters, ids, weighting, fields: likewise.

    Returns:
        A :class:`Ladder`; precisions that this machine or this model does not have are named in it with the reason.

    Raises:
        InputError: an unknown precision, or none that runs (with the first reason). Else as
            :func:`equiscope.measure`.
    """
    wanted = checked(names)
    declaration = resolve_declaration(declaration, inputs, outputs, target, loss, settings)
    plan = make_plan(declaration, forward, rotations, cosets, seed)
    listed = kept(batches)

    def figures(prepared: Any, dtype: torch.dtype) -> dict[str, Figures]:
        collector = Collector(prepared, plan, 0)
        with untouched(prepared):
            for native in listed:
                batch = batch_of(native, declaration)
                cast = {k: v.to(dtype) for k, v in batch.fields().items() if v.is_floating_point()}
                collector.run(batch.with_fields(cast))
        samples, weighting = collector.samples(), declaration.weighting
        found = {}
        for name, values in samples.figures.items():
            weights = sample_weights(values, weighting)
            found[name] = Figures(weights * host(values.variance), weights * host(values.square), samples.clusters)
        return found

    return climbed(model, device_of(model), wanted, figures)


def climbed(
    model: Any, device: torch.device, names: Sequence[str], figures: Callable[[Any, torch.dtype], dict[str, Figures]]
) -> Ladder:
    """The ladder of a model, or of what holds modules: ``figures(prepared model, dtype of its inputs)`` measures."""
    found: dict[str, dict[str, Figures]] = {}
    seconds: dict[str, float] = {}
    missing: dict[str, str] = {}
    how: dict[str, str] = {}
    first: Exception | None = None
    for name in names:
        begun = time.perf_counter()
        try:
            with in_precision(model, name, device) as (prepared, dtype, said):
                found[name] = figures(prepared, dtype)
        except (DeclarationError, DataError):
            # Wrong in every precision.
            raise
        except Exception as error:
            # A model may lack an operation in a precision, or insist on its own.
            missing[name] = str(error).splitlines()[0] if isinstance(error, EquiscopeError) else first_line(error)
            first = first or error
            continue
        seconds[name], how[name] = time.perf_counter() - begun, said
    if not found:
        raise InputError(f"none of {', '.join(names)} runs here: {missing[names[0]]}") from first
    reference = next(iter(found))
    rungs = [_rung(name, output, found[reference][output], own)
             for name, outputs in found.items() for output, own in outputs.items()]  # fmt: skip
    return Ladder(tuple(rungs), reference, seconds, missing, how)


@contextlib.contextmanager
def in_precision(model: Any, name: str, device: torch.device) -> Iterator[tuple[Any, torch.dtype, str]]:
    """A copy of the model in a precision, the dtype of its inputs, and what was done; TF32 as before afterwards.

    A copy is made of whatever holds modules; in it every outermost module is converted.

    Raises:
        InputError: for a precision that the machine does not have, or a model that cannot be copied.
    """
    if name == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        where = f"the {device.type.upper()}" if device.type != "cuda" else torch.cuda.get_device_name(device)
        raise InputError(f"TF32 is arithmetic of NVIDIA cards from Ampere on, the model is on {where}")
    dtype = torch.float64 if name == "float64" else torch.float32
    said = f"parameters and inputs in {str(dtype).removeprefix('torch.')}"
    try:
        prepared = copy.deepcopy(model)
    except Exception as error:
        raise InputError(f"the model cannot be copied to another precision: {first_line(error)}") from error
    inside = contextlib.ExitStack()
    with inside:
        inside.enter_context(allowing_tf32(name == "tf32"))
        if name in ("bfloat16", "float16"):
            inside.enter_context(torch.autocast(device.type, dtype=getattr(torch, name)))
            said += f", {name} by autocast"
        for module in outermost(prepared):
            module.to(dtype)
            if module is not prepared:
                # What holds it makes its inputs in a precision of its own.
                module.register_forward_pre_hook(lambda _, args, kwargs: _cast((args, kwargs), dtype), with_kwargs=True)
            if name == "compiled":
                module.compile()
                said += ", compiled"
        yield prepared, dtype, said + (", TF32 products" if name == "tf32" else "")


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating tensors in another type, in dicts, lists and tuples as deep as they go."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        changed = copy.copy(value)
        changed.update({k: _cast(v, dtype) for k, v in value.items()})
        return changed
    if type(value) in (list, tuple):
        return type(value)(_cast(v, dtype) for v in value)
    return value


def outermost(model: Any) -> list[nn.Module]:
    """The modules that a model or a calculator holds and that no other module holds, three attributes deep."""
    if isinstance(model, nn.Module):
        return [model]
    found: dict[int, nn.Module] = {}
    layer, seen = [model], {id(model)}
    for _ in range(3):
        held: list[Any] = []
        for holder in layer:
            values = holder if isinstance(holder, list | tuple) else getattr(holder, "__dict__", {}).values()
            held += [v for v in values if id(v) not in seen and (hasattr(v, "__dict__") or isinstance(v, list | tuple))]
        seen.update(map(id, held))
        found.update({id(v): v for v in held if isinstance(v, nn.Module)})
        layer = [v for v in held if not isinstance(v, nn.Module | type)]
    inner = {id(m) for module in found.values() for m in list(module.modules())[1:]}
    return [module for key, module in found.items() if key not in inner]


def _rung(precision: str, output: str, reference: Figures, own: Figures) -> Rung:
    """One row: the ratios and their intervals over clusters."""
    codes, count = statistics.encode(own.clusters)
    e, e0, s = (
        statistics.cluster_totals(v, codes, count) for v in (own.equivariance, reference.equivariance, reference.square)
    )
    relative, its = _ratio(e, s)
    nothing = np.nan, (np.nan, np.nan)
    added, added_interval = _ratio(e - e0, s) if own is not reference else nothing
    share, share_interval = _ratio(e - e0, e) if own is not reference else nothing
    figures = relative, its, added, added_interval, share, share_interval
    return Rung(precision, output, *figures, samples=len(own.clusters), clusters=count)


def _ratio(a: statistics.Array, b: statistics.Array) -> tuple[float, tuple[float, float]]:
    """sum a / sum b with its interval on the linear scale; none with one cluster or without a denominator."""
    if not b.sum() > 0:
        return np.nan, (np.nan, np.nan)
    if len(a) < 2:
        return float(a.sum() / b.sum()), (np.nan, np.nan)
    value, residual, left_out = statistics.influence(a, b)
    found, _, _ = statistics.spread(residual, left_out)
    return float(value), (float(value - found.below), float(value + found.above))
