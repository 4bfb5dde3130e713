"""Which fields of a batch and of an output rotate, about which centre, and which are held fixed.

What a tensor holds is said here and never read off its shape: ``points`` says that it holds positions, ``per`` whether
it has rows for atoms, (samples, atoms, …), or for samples, (samples, …). Positions have rows for atoms unless
``per="sample"`` says otherwise; other inputs turn with their sample whole, which is the same for both. With ``batch``
the atoms of all samples stand one after another, (atoms, …), and that field names the sample of each.
"""

from __future__ import annotations

import functools
import math
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypedDict, Unpack

from torch import Tensor

from equiscope.errors import DeclarationError
from equiscope.symmetry.actions import Action, action
from equiscope.words import nearest

SYMMETRIES = ("SO3", "O3", "O", "SO2", "C4")
PER = ("atom", "sample")
VECTORS = ("1o", "1x1o")
# What a mistyped argument of eq.measure may have meant besides.
_OF_MEASURE = ("rotations", "cosets", "seed", "rtol", "max_passes", "spectrum", "noise_samples", "fold", "progress",
               "forward")


class _Turning:
    """What inputs and outputs share: values are checked, and the action is made once."""

    irreps: str | Action
    points: bool | None
    per: str | None

    def __post_init__(self) -> None:
        if self.points not in (None, True, False):
            raise DeclarationError(f"points must be True, False or None, got {self.points!r}")
        if self.per is not None:
            _check_per("per", self.per)

    @functools.cached_property
    def action(self) -> Action:
        return action(self.irreps)


@dataclass(frozen=True)
class Input(_Turning):
    """How one field of the batch rotates.

    Attributes:
        irreps: an irreps string such as ``"1o"``, ``"cartesian"``, ``"stress"``, ``"voigt"``, or an action.
        points: True for positions, which turn about the declared centre; False for vectors and tensors; None
            (default) means positions if this is the only ``1o`` input.
        per: ``"atom"`` for (samples, atoms, …), whose padding the mask marks, ``"sample"`` for (samples, …). None
            (default) means ``"atom"`` for positions; anything else then turns with its sample whole, padding included.
    """

    irreps: str | Action
    points: bool | None = None
    per: str | None = None

    def __repr__(self) -> str:
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        return f"Input({', '.join(f'{k}={v!r}' for k, v in said.items() if v is not None)})"


@dataclass(frozen=True)
class Output(_Turning):
    """How one output of the model rotates, and the loss it is judged by.

    Attributes:
        irreps: as for :class:`Input`.
        target: name of the batch field with the label; None measures without labels (no percent).
        loss: ``"mse"`` or another name of :mod:`equiscope.decomposition.losses`, or a callable
            ``loss(prediction, target) -> per sample``.
        mask: boolean batch field of the atoms that count; None takes the declaration's mask. A mask of outputs alone
            is taken for that of the real atoms of padded batches too, unless what it leaves out is no padding.
        weight: factor of this output in the total loss.
        per: ``"atom"`` for (samples, atoms, …), ``"sample"`` for (samples, …). None (default) means ``"atom"``, but
            ``"sample"`` where atoms stand one after another and the labels have one row for each sample and not one for
            each atom; the Result says so.
        points: True for positions, which turn about the declared centre as positions among the inputs do, and whose
            size and skill are taken about it; None (default) and False for vectors and tensors. Where None is declared
            and the labels or answers follow the centre, the Result says so.
    """

    irreps: str | Action
    target: str | None = None
    loss: str | Callable[[Tensor, Tensor], Tensor] = "mse"
    mask: str | None = None
    weight: float = 1.0
    per: str | None = None
    points: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points and (self.irreps not in VECTORS if isinstance(self.irreps, str) else self.action.shape != (3,)):
            raise DeclarationError(
                f"an output declared {self.action.label!r} holds no positions: those are vectors, "
                "eq.Output('1o', points=True)"
            )
        if not isinstance(self.weight, int | float) or not 0 <= self.weight < math.inf:
            raise DeclarationError(f"an output's weight must be a finite number >= 0, got {self.weight!r}")
        for role in ("target", "mask"):
            _check_name(role, getattr(self, role))


@dataclass(frozen=True)
class Declaration:
    """The symmetry a model is held to: what rotates, what stays, and how samples are weighed.

    Attributes:
        inputs: batch fields that rotate with the sample.
        outputs: model outputs to be measured; a single one may be a bare tensor.
        fixed: floating batch fields that do not rotate (charges, times); undeclared ones are an error.
        center: ``"origin"``, ``"mean"`` of the real points, or a batch field (samples, 3).
        group: the symmetry claimed: ``"SO3"``, ``"O3"`` or ``"O"``, the octahedral group of 24 rotations, under which
            voxel grids rotate exactly; of images ``"SO2"``, or ``"C4"``, the quarter turns, which are exact.
        mask: boolean batch field (samples, atoms) marking real atoms. With ``batch``, (atoms,), which of them count.
        batch: integer batch field (atoms,) with the sample of each atom, 0 and up, where the atoms of all samples stand
            one after another; then fields per atom are (atoms, …) and there is no padding.
        per: ``{"z": "atom", "box": "sample"}``: the rows of other fields, where samples must be taken apart (layers, a
            second coset of some samples).
        clusters: batch field naming the independent unit of each sample (molecule, protein family).
        ids: integer batch field identifying samples; their position in the data set by default.
        fields: names of the parts of batches that are tuples, lists or one tensor, in order.
        weighting: ``"sample"``: mean over samples of means over components; ``"component"`` pools components.
    """

    inputs: Mapping[str, Input]
    outputs: Mapping[str, Output]
    fixed: Sequence[str] = ()
    center: str = "origin"
    group: str = "SO3"
    mask: str | None = None
    batch: str | None = None
    per: Mapping[str, str] = field(default_factory=dict)
    clusters: str | None = None
    ids: str | None = None
    weighting: str = "sample"
    fields: Sequence[str] = ()
    _of_outputs: bool = field(init=False, repr=False, compare=False, default=False)

    def __post_init__(self) -> None:
        if not self.inputs:
            raise DeclarationError("no input is declared to rotate: give inputs={'pos': '1o'} or the like")
        if not self.outputs:
            raise DeclarationError("no output is declared: give outputs={'forces': '1o'} or the like")
        if self.group not in SYMMETRIES:
            raise DeclarationError(f"group must be one of {SYMMETRIES}, got {self.group!r}")
        if self.weighting not in ("sample", "component"):
            raise DeclarationError(f"weighting must be 'sample' or 'component', got {self.weighting!r}")
        _check_mapping("inputs", self.inputs, "{'pos': '1o'}")
        _check_mapping("outputs", self.outputs, "{'forces': '1o'}")
        for role in ("mask", "batch", "clusters", "ids"):
            _check_name(role, getattr(self, role))
        if not isinstance(self.center, str):
            raise DeclarationError(f"center must be 'origin', 'mean' or the name of a batch field, got {self.center!r}")
        if isinstance(self.fields, str):
            raise DeclarationError(f"fields must be the names of a batch's parts, fields=({self.fields!r},)")
        self._check_fixed()
        self._check_rows()
        as_input = {k: v if isinstance(v, Input) else Input(v) for k, v in self.inputs.items()}
        as_output = {k: v if isinstance(v, Output) else Output(v) for k, v in self.outputs.items()}
        masks = {o.mask for o in as_output.values() if o.mask}
        if self.mask is None and len(masks) == 1:
            object.__setattr__(self, "mask", masks.pop())
            object.__setattr__(self, "_of_outputs", True)
        masked = {k: replace(o, mask=o.mask or self.mask if o.per != "sample" else None) for k, o in as_output.items()}
        object.__setattr__(self, "outputs", masked)
        object.__setattr__(self, "inputs", as_input)
        object.__setattr__(self, "fixed", tuple(self.fixed))
        # Made once and kept, so that what cannot be is refused here.
        for spec in (*as_input.values(), *as_output.values()):
            _ = spec.action
        _ = self.points

    def _check_fixed(self) -> None:
        if isinstance(self.fixed, str) or not isinstance(self.fixed, Iterable):
            example = [self.fixed] if isinstance(self.fixed, str) else ["charge"]
            raise DeclarationError(f"fixed must be a list of batch fields, fixed={example!r}, got {self.fixed!r}")
        if both := sorted(set(self.fixed) & set(self.inputs)):
            raise DeclarationError(f"fields {both} are declared both to rotate (inputs) and to be held fixed")

    def _check_rows(self) -> None:
        _check_mapping("per", self.per, "{'z': 'atom'}")
        for name, per in self.per.items():
            _check_per(f"per[{name!r}]", per)
            own = getattr(self.inputs.get(name), "per", None)
            if own not in (None, per):
                raise DeclarationError(f"per[{name!r}]={per!r} contradicts per={own!r} of the input")
        if self.batch is not None and self.batch in self.inputs:
            raise DeclarationError(f"batch={self.batch!r} names the sample of each atom and cannot rotate")

    @functools.cached_property
    def points(self) -> tuple[str, ...]:
        """The inputs that are positions and turn about the centre."""
        points = self._points_named_or_only()
        for name in points:
            if self.inputs[name].action.shape != (3,):
                raise DeclarationError(
                    f"input {name!r} is declared {self.inputs[name].action.label!r}: positions are vectors, '1o', with "
                    "their atoms on an axis of their own"
                )
        if self.center != "origin" and not points:
            raise DeclarationError(
                f"center={self.center!r} needs positions, but none of {sorted(self.inputs)} is declared as such: "
                "eq.Input('1o', points=True)"
            )
        return points

    def _points_named_or_only(self) -> tuple[str, ...]:
        vectors = [name for name, spec in self.inputs.items() if spec.irreps in VECTORS]
        named = tuple(name for name, spec in self.inputs.items() if spec.points)
        unsaid = [name for name in vectors if self.inputs[name].points is None]
        if named or not unsaid:
            return named
        if len(vectors) == 1:
            return tuple(vectors)
        if self.center != "origin":
            raise DeclarationError(
                f"center={self.center!r} needs to know which of {vectors} are positions: "
                "declare eq.Input('1o', points=True) for positions and points=False for vectors"
            )
        return ()

    @property
    def mask_of_outputs(self) -> bool:
        """Whether the mask is that of the outputs, and none was said of the inputs."""
        return self._of_outputs

    def rows_of_input(self, name: str) -> str:
        """``"atom"`` or ``"sample"`` as said; ``"points"`` for other positions, ``"any"`` for what turns whole."""
        return self.inputs[name].per or self.per.get(name) or ("points" if name in self.points else "any")

    def rows_of_field(self, name: str) -> str | None:
        """``"atom"`` or ``"sample"``, the rows of a batch field as far as they are declared; None otherwise."""
        if name in self.inputs:
            return {"points": "atom", "any": None}.get(per := self.rows_of_input(name), per)
        if name in self.per:
            return self.per[name]
        if name in {self.mask, self.batch, *(o.mask for o in self.outputs.values())}:
            return "atom"
        if name in (self.ids, self.clusters, self.center):
            return "sample"
        return next((o.per or "atom" for o in self.outputs.values() if o.target == name), None)

    @property
    def known_fields(self) -> set[str]:
        """Every batch field the declaration speaks of."""
        named = {self.mask, self.batch, self.clusters, self.ids, *self.fixed, *self.inputs}
        named |= {o.target for o in self.outputs.values()} | {o.mask for o in self.outputs.values()}
        if self.center not in ("origin", "mean"):
            named.add(self.center)
        return {name for name in named if name}


class DeclarationSettings(TypedDict, total=False):
    """What a :class:`Declaration` takes besides inputs and outputs, as keywords of whatever makes one."""

    fixed: Sequence[str]
    center: str
    group: str
    mask: str | None
    batch: str | None
    per: Mapping[str, str]
    clusters: str | None
    ids: str | None
    weighting: str
    fields: Sequence[str]


def _check_mapping(name: str, value: Any, example: str) -> None:
    if value and not isinstance(value, Mapping):
        raise DeclarationError(f"{name} must be a dict such as {example}, got {value!r}")


def _check_per(what: str, value: Any) -> None:
    if value not in PER:
        raise DeclarationError(f"{what} must be 'atom' or 'sample', got {value!r}")


def _check_name(role: str, value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise DeclarationError(f"{role} must be the name of a batch field, got {reprlib.repr(value)}")


def declare(
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    target: str | None = None,
    loss: Any = "mse",
    **settings: Unpack[DeclarationSettings],
) -> Declaration:
    """A declaration from the short form, in which ``target`` and ``loss`` speak for the only output.

    Raises:
        DeclarationError: if the short form is used with several outputs, contradicts an output, or a setting is
            unknown.
    """
    known = sorted(f.name for f in fields(Declaration) if f.init)
    if unknown := sorted(set(settings) - set(known)):
        meant = nearest(unknown[0].removeprefix("n_"), [*known, *_OF_MEASURE])
        raise DeclarationError(f"unknown arguments {unknown}{meant} A declaration takes {known}")
    _check_mapping("inputs", inputs, "{'pos': '1o'}")
    _check_mapping("outputs", outputs, "{'forces': '1o'}")
    if len(outputs) > 1 and target is not None:
        raise DeclarationError(
            f"target={target!r} is ambiguous for the outputs {sorted(outputs)}: "
            "give each its own, outputs={'forces': eq.Output('1o', target='forces'), …}"
        )
    full: dict[str, Output] = {}
    for name, given in outputs.items():
        spec = given if isinstance(given, Output) else Output(given, loss=loss)
        if len(outputs) == 1 and spec.loss == "mse":
            spec = replace(spec, loss=loss)
        if loss not in ("mse", spec.loss):
            raise DeclarationError(f"loss={loss!r} contradicts the own loss={spec.loss!r} of output {name!r}")
        if target is not None and spec.target not in (None, target):
            raise DeclarationError(f"target={target!r} contradicts the output's own target={spec.target!r}")
        full[name] = replace(spec, target=spec.target or target)
    return Declaration(dict(inputs), full, **settings)
