"""Other readings of the same numbers: what a model that fails as declared may be exact in.

The orders of six numbers for a symmetric tensor, the axes, orders and signs of real spherical harmonics, multiplicity
first or last, rows or columns, parities: each convention R makes of a declared action D another one,

    D_R(g) = R^-1 D(g) R,

with R the map from the numbers as given to those that D is declared on. A failed
:func:`equiscope.testing.assert_equivariant` names the reading under which the model passes.

Real harmonics: e3nn's Y_l(x, y, z) have y as their polar axis, so that l = 1 is (x, y, z); elsewhere z is polar and
l = 1 in the order m = -1, 0, 1 is (y, z, x). With P (x, y, z) = (y, z, x), Y_polar(x) = Y_e3nn(P x) = D(P) Y_e3nn(x).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from operator import itemgetter, methodcaller
from typing import Any

import torch
from e3nn import o3
from torch import Tensor

from equiscope.decomposition.batches import as_batch
from equiscope.decomposition.calling import Call, found_outputs
from equiscope.decomposition.orbit import Forward
from equiscope.errors import EquiscopeError, InputError
from equiscope.symmetry.actions import Action, IrrepsAction, MatrixAction, VoigtAction, action, wigner_d
from equiscope.symmetry.declaration import Declaration

#: Orders of the six numbers of a symmetric tensor, ASE's being xx yy zz yz xz xy.
VOIGT_ORDERS = {
    "vasp": "xx yy zz xy yz xz",
    "lammps": "xx yy zz xy xz yz",
    "upper": "xx xy xz yy yz zz",
    "lower": "xx xy yy xz yz zz",
}
#: Factors on the off-diagonal numbers of a symmetric tensor.
SHEARS = {"mandel": 2**0.5, "engineering": 2.0}
ORDERS: dict[str, Callable[[int], list[int]]] = {
    "m = -l..l": lambda degree: list(range(-degree, degree + 1)),
    "m = l..-l": lambda degree: list(range(degree, -degree - 1, -1)),
    "m = 0, 1, -1, …": lambda degree: sorted(range(-degree, degree + 1), key=lambda m: (abs(m), -m)),
}
PHASES: dict[str, Callable[[int], int]] = {
    "": lambda m: 1,
    ", signs (-1)^m": lambda m: (-1) ** abs(m),
    ", signs (-1)^m for m > 0": lambda m: (-1) ** max(m, 0),
}
_ASE = "xx yy zz yz xz xy"
_CYCLE = torch.eye(3, dtype=torch.float64, device="cpu")[[1, 2, 0]]


@dataclass(frozen=True, eq=False)
class Reread:
    """An action on numbers kept in another convention: read, turn, write back.

    Attributes:
        base: the action of the numbers once they are read.
        read, write: from the numbers as given, rows (n, c, *shape), to those of ``base``, and back.
    """

    label: str
    base: Action
    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]

    def act(self, rotations: Tensor, values: Tensor) -> Tensor:
        return self.write(self.base.act(rotations, self.read(values.double())))

    def canonical(self, values: Tensor) -> Tensor:
        return self.base.canonical(self.read(values))

    def invariants(self, symmetry: str) -> Tensor:
        return self.base.invariants(symmetry)


@dataclass(frozen=True)
class Convention:
    """A convention: its name, what the numbers are in it, what to do about it, and how they turn."""

    name: str
    text: str
    remedy: str
    action: Action


def readings(spec: Action, group: str = "SO3") -> Iterator[Convention]:
    """Every other reading of what is declared to turn as ``spec``; parities only where ``group`` is O3."""
    if isinstance(spec, VoigtAction):
        yield from _six_numbers(spec)
        yield Convention("0e+2e", "irreps 0e+2e", "declare '0e+2e'", IrrepsAction("0e+2e"))
    elif isinstance(spec, MatrixAction):
        yield _columns(action("1o"), spec.label)
        yield _rows()
    elif isinstance(spec, IrrepsAction):
        if spec.shape == (3,):
            yield _columns(spec, spec.label)
        yield from _conventions(spec)
        if spec.shape == (6,):
            yield Convention("voigt", f"a symmetric tensor in the order {_ASE}", "declare 'voigt'", VoigtAction())
            yield from _six_numbers(VoigtAction())
        if spec.shape == (9,):
            yield _flat_matrix()
        if group == "O3":
            yield from _parities(spec)


def reread(irreps: str | Action, name: str) -> Action:
    """The action of a tensor in another convention, to be declared in place of an irreps string.

        eq.Output(testing.reread("voigt", "vasp"), per="sample")

    Args:
        irreps: how it is declared, as for :class:`equiscope.Input`.
        name: of the convention, such as ``"vasp"`` or ``"engineering"``.

    Raises:
        InputError: for a name that is no reading of such a tensor; the message lists them.
    """
    spec = action(irreps)
    known = {reading.name: reading.action for reading in readings(spec, "O3")}
    if name not in known:
        raise InputError(f"{name!r} is no other reading of {spec.label!r}: it has {', '.join(map(repr, known))}")
    return known[name]


def _six_numbers(spec: VoigtAction) -> Iterator[Convention]:
    for name, order in VOIGT_ORDERS.items():
        place, back = _places(order, _ASE), _places(_ASE, order)
        made = Reread(f"{spec.label} ({name})", spec, itemgetter((..., place)), itemgetter((..., back)), (6,))
        yield Convention(name, f"in the order {order} ({name})", f"reorder it to ASE's, values[..., {place}]", made)
    for name, factor in SHEARS.items():
        scale = torch.tensor([1, 1, 1, factor, factor, factor], dtype=torch.float64, device="cpu")
        made = Reread(f"{spec.label} ({name})", spec, partial(_scale, 1 / scale), partial(_scale, scale), (6,))
        yield Convention(name, f"{name} shears, off-diagonals times {factor:.3g}", "divide them by it", made)


def _places(order: str, wanted: str) -> list[int]:
    """Where in ``order`` each of the ``wanted`` components stands."""
    return [order.split().index(component) for component in wanted.split()]


def _scale(factors: Tensor, values: Tensor) -> Tensor:
    return values * factors.to(values)


def _columns(spec: Action, label: str) -> Convention:
    """Matrices (…, 3, 3) whose columns are the vectors."""
    made = Reread(f"{spec.label} in columns", spec, _from_columns, _to_columns, (3, 3))
    remedy = "give its transpose, values.mT" if label == spec.label else f"give values.mT, declared {spec.label!r}"
    return Convention("columns", "three vectors, one in each column", remedy, made)


def _from_columns(values: Tensor) -> Tensor:
    return values.mT.flatten(1, 2)


def _to_columns(values: Tensor) -> Tensor:
    return values.unflatten(1, (-1, 3)).mT


def _rows() -> Convention:
    read, write = methodcaller("flatten", 1, 2), methodcaller("unflatten", 1, (-1, 3))
    made = Reread("1o in rows", action("1o"), read, write, (3, 3))
    return Convention("rows", "three vectors, one in each row", "declare eq.Output('1o', points=False)", made)


def _flat_matrix() -> Convention:
    read, write = methodcaller("unflatten", -1, (3, 3)), methodcaller("flatten", -2)
    made = Reread("cartesian, flat", MatrixAction(), read, write, (9,))
    remedy = "give values.unflatten(-1, (3, 3)), declared 'cartesian'"
    return Convention("cartesian", "a 3 x 3 matrix, row after row", remedy, made)


def _conventions(spec: IrrepsAction) -> Iterator[Convention]:
    """Layouts and harmonics, each once and none that changes nothing."""
    degrees = sorted({irrep.l for _, irrep in spec.irreps})
    seen = [(False, tuple(map(_identity, degrees)))]
    last = any(multiplicity > 1 and irrep.l > 0 for multiplicity, irrep in spec.irreps)
    for swapped, (name, maps) in itertools.product((False, True)[: 1 + last], _harmonics(degrees)):
        if any(swapped == s and all(map(torch.equal, maps, m)) for s, m in seen):
            continue
        seen.append((swapped, maps))
        own = ", ".join(filter(None, ["ir_mul" if swapped else "", name]))
        told = spec, swapped, dict(zip(degrees, maps, strict=True))
        read, write = partial(_read_blocks, *told), partial(_write_blocks, *told)
        made = Reread(f"{spec.label} ({own})", spec, read, write, spec.shape)
        what = ["features with the multiplicity last (ir_mul)"] if swapped else []
        what += [f"real harmonics with {name}"] if name else []
        yield Convention(own, ", ".join(what), f"declare testing.reread({spec.label!r}, {own!r})", made)


def _harmonics(degrees: Sequence[int]) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """Names of conventions and, for each degree, the map from its numbers to e3nn's."""
    yield "", tuple(map(_identity, degrees))
    for phase, order, vectors in itertools.product(PHASES, ORDERS, (False, True)):
        name = f"z polar, {order}{phase}" + (", but l = 1 as x, y, z" if vectors else "")
        maps = (_identity(1) if vectors and degree == 1 else _to_e3nn(degree, order, phase) for degree in degrees)
        yield name, tuple(maps)


def _identity(degree: int) -> Tensor:
    return torch.eye(2 * degree + 1, dtype=torch.float64, device="cpu")


@cache
def _to_e3nn(degree: int, order: str, phase: str) -> Tensor:
    """D(P)^-1 Q (2l+1, 2l+1) with Q from the order and signs of a convention to m = -l..l."""
    placed = torch.zeros(2 * degree + 1, 2 * degree + 1, dtype=torch.float64, device="cpu")
    for place, m in enumerate(ORDERS[order](degree)):
        placed[m + degree, place] = PHASES[phase](m)
    return wigner_d(degree, _CYCLE.mT[None])[0] @ placed


def _read_blocks(spec: IrrepsAction, swapped: bool, maps: Mapping[int, Tensor], values: Tensor) -> Tensor:
    parts = []
    for part, (multiplicity, irrep) in _blocks(spec, values):
        part = part.unflatten(-1, (irrep.dim, multiplicity) if swapped else (multiplicity, irrep.dim))
        parts.append(((part.mT if swapped else part) @ maps[irrep.l].mT.to(part)).flatten(-2))
    return torch.cat(parts, dim=-1)


def _write_blocks(spec: IrrepsAction, swapped: bool, maps: Mapping[int, Tensor], values: Tensor) -> Tensor:
    parts = []
    for part, (multiplicity, irrep) in _blocks(spec, values):
        # The maps are orthogonal.
        part = part.unflatten(-1, (multiplicity, irrep.dim)) @ maps[irrep.l].to(part)
        parts.append((part.mT if swapped else part).flatten(-2))
    return torch.cat(parts, dim=-1)


def _blocks(spec: IrrepsAction, values: Tensor) -> Iterator[tuple[Tensor, Any]]:
    return zip(values.split([n * irrep.dim for n, irrep in spec.irreps], dim=-1), spec.irreps, strict=True)


def _parities(spec: IrrepsAction) -> Iterator[Convention]:
    """All parities the other way, then those of one irrep."""
    blocks = list(spec.irreps)
    every = [range(len(blocks)), *([place] for place in range(len(blocks)) if len(blocks) > 1)]
    for flipped in every:
        signs = [o3.Irrep(irrep.l, -irrep.p if i in flipped else irrep.p) for i, (_, irrep) in enumerate(blocks)]
        counts = [f"{count}x" if count > 1 else "" for count, _ in blocks]
        label = "+".join(f"{count}{irrep}" for count, irrep in zip(counts, signs, strict=True))
        yield Convention(label, f"of the other parity, {label}", f"declare {label!r}", IrrepsAction(label))


def hints(declaration: Declaration, broken: Sequence[str], passes: Callable[[Declaration], bool]) -> tuple[str, ...]:
    """Which reading of an output, of an input, or of all fields alike would make a model pass that does not.

    Args:
        broken: the outputs that fail as declared.
        passes: whether the model passes under another declaration.
    """
    fits = partial(_fits, passes)
    found = {}
    for name in broken:
        spec = declaration.outputs[name]
        for reading in readings(spec.action, declaration.group):
            if fits(replace(declaration, outputs={name: replace(spec, irreps=reading.action)})):
                found[name] = f"output {name!r} is exact read as {reading.text}: {reading.remedy}"
                break
    if len(found) == len(broken):
        return tuple(found.values())
    return (*found.values(), *_of_inputs(declaration, fits))


def _of_inputs(declaration: Declaration, fits: Callable[[Declaration], bool]) -> Iterator[str]:
    """The first reading of one input, or of all fields that have it, under which every output passes."""
    tried = {name: spec for name, spec in declaration.inputs.items() if name not in declaration.points}
    known = {name: list(readings(spec.action, declaration.group)) for name, spec in tried.items()}
    for name, others in known.items():
        for reading in others:
            if fits(_reading_inputs(declaration, {name: reading.action})):
                yield f"it is exact with input {name!r} read as {reading.text}: {reading.remedy}"
                return
    outputs = {name: list(readings(spec.action, declaration.group)) for name, spec in declaration.outputs.items()}
    texts = [reading.text for others in known.values() for reading in others]
    for text in dict.fromkeys(texts):
        of_inputs = {name: r.action for name, others in known.items() for r in others if r.text == text}
        of_outputs = {name: r.action for name, others in outputs.items() for r in others if r.text == text}
        turned = {n: replace(s, irreps=of_outputs.get(n, s.irreps)) for n, s in declaration.outputs.items()}
        if of_outputs and fits(replace(_reading_inputs(declaration, of_inputs), outputs=turned)):
            yield f"it is exact with {sorted([*of_inputs, *of_outputs])} read as {text}"
            return


def _reading_inputs(declaration: Declaration, actions: Mapping[str, Action]) -> Declaration:
    inputs = {name: replace(spec, irreps=actions.get(name, spec.irreps)) for name, spec in declaration.inputs.items()}
    return replace(declaration, inputs=inputs)


def _fits(passes: Callable[[Declaration], bool], chosen: Declaration) -> bool:
    """Whether the model passes; a reading whose shape does not fit the numbers is none."""
    try:
        return passes(chosen)
    except EquiscopeError:
        return False


def remembered(forward: Forward | None, declaration: Declaration) -> Forward:
    """``forward`` that answers from memory where it saw the model and the batch before: readings share their passes."""
    kept: dict[Any, dict[str, Tensor]] = {}
    call = Call(declaration) if forward is None else forward

    def called(model: Any, native: Any) -> Any:
        digest = hashlib.blake2b()
        for name, value in sorted(as_batch(native).fields().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
        key = id(model), digest.digest()
        if key not in kept:
            answer = found_outputs(call(model, native), declaration)
            kept[key] = {name: value.detach() for name, value in answer.items()}
        return kept[key]

    return called
