"""What is measured, and the walk over it: the declaration, its losses, the rotations of each sample, and the call.

The rotations of a sample are random cosets K u of a set K, u first and then k, drawn by a seed.

A whole number of cosets gives every sample as many. A number between one and two, say 1.25, gives every sample one and
a random quarter of the samples a second: two-phase sampling (Cochran, Sampling Techniques, ch. 12). Per sample, one
coset shows W, the variance within it; two show B = |P_1 - P_2|^2 / 2 too, and E[W + B] is the equivariance error. The
estimate is mean(W) + mean over the quarter of B; where K removes most of the error from P, B is small and hardly needs
more samples than that.

Which samples are in the share s = cosets - 1 depends on (seed, id) alone, never on batches or processes, and still
their number is exact. Ids are cut into blocks of L = ceil(8 / s) in a row. From block j, by its own random permutation,

    k_j = floor((j + 1) L s + u) - floor(j L s + u)  >= 8

are taken, u uniform in [0, 1) from the seed. So q whole blocks hold floor(q L s + u) second cosets: any L samples
numbered from 0 on hold 8 or more with every seed, and N of them exactly N s where both are whole.

Unbiased: u is uniform, so E k_j = L s, and the permutation is uniform, so every id is taken with probability s whatever
its data. Over whole blocks with N s whole the number k taken is fixed, and E[sum over the taken of B / k] =
sum s B / k = mean(B). Otherwise k varies by what falls into the one block that is cut short (by less than one with
whole blocks); the mean over the taken then weighs that block and the others alike up to the relative variance of k,
under 1/60 and falling as 1 / k^2. Scattered ids, each in a block of its own, are taken independently of each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equiscope.decomposition.batches import Batch
from equiscope.decomposition.calling import Call
from equiscope.decomposition.losses import Loss
from equiscope.decomposition.losses import loss as find_loss
from equiscope.decomposition.orbit import Forward, check_forward
from equiscope.decomposition.spectrum import degrees_available
from equiscope.decomposition.split import JACKKNIFE_COSETS, Lone
from equiscope.decomposition.symmetries import families
from equiscope.decomposition.symmetries.moves import Moves
from equiscope.decomposition.symmetries.nested import Scheme
from equiscope.errors import InputError, check_count
from equiscope.symmetry.declaration import Declaration
from equiscope.symmetry.rotations import RotationSet, rotation_set, uniform_keyed

# Far above any coset's stream and those of the noise floor.
SELECTION_STREAM = 1 << 41
# Independent rotations of a sample, the published way, where nobody says how many; and the fewest second cosets that
# say enough of their own spread.
DEFAULT_HAAR, SECOND_COSETS = 10, 8


@dataclass(frozen=True)
class Pass:
    """One pass over a batch.

    Attributes:
        turns: the rotation of each sample, (samples, 3, 3) float64.
        weight: of the rotation in the set K.
        last_of_coset: whether a coset is complete with it.
        moves: of another symmetry, in place of the rotation.
    """

    turns: Tensor
    weight: float
    last_of_coset: bool
    moves: Moves | None = None


@dataclass(frozen=True)
class Design:
    """The rotations of every sample.

    Attributes:
        rotations: the set K: its matrices, weights and exact degree.
        cosets: independent cosets K u of a sample, whole, or between one and two.
        seed: rotations are a pure function of (seed, sample id, coset).
        shift: False for the set K itself, unshifted.
    """

    rotations: RotationSet
    cosets: float
    seed: int
    shift: bool = True

    @property
    def passes(self) -> float:
        """Rotations (or other moves) of a sample, on average."""
        passes = self.cosets * len(self.rotations)
        return int(passes) if float(passes).is_integer() else passes

    @property
    def partial(self) -> bool:
        """Whether only a part of the samples gets a second coset."""
        return not float(self.cosets).is_integer()

    @property
    def lone(self) -> Lone:
        """What one coset alone is to :meth:`equiscope.decomposition.split.OutputSplit.values`."""
        if self.partial:
            return "partial"
        return "whole" if self.cosets == 1 else "refuse"

    def coset(self, shift: Tensor) -> Iterator[Pass]:
        """The passes K u of the coset of each sample's own u, (samples, 3, 3)."""
        matrices, last = self.rotations.matrices.to(shift.device, non_blocking=True), len(self.rotations) - 1
        for place, (matrix, weight) in enumerate(zip(matrices, self.rotations.weights.tolist(), strict=True)):
            yield Pass(matrix @ shift, weight, place == last)

    def described(self, model_calls: int) -> dict[str, Any]:
        """The fields of a Result that describe the design."""
        return {
            "passes": self.passes,
            "model_calls": model_calls,
            "rotations": self.rotations.name,
            "cosets": self.cosets,
            "seed": self.seed,
        }

    def second(self, ids: Sequence[int]) -> Tensor:
        """Which samples of a partial design get their second coset, (samples,) boolean: a function of (seed, id)."""
        numbers = np.asarray(ids, dtype=np.int64)
        length = second_cosets_need(self.cosets)
        blocks = {int(j): self._taken(int(j), length) for j in np.unique(numbers // length)}
        return torch.tensor([bool(blocks[i // length][i % length]) for i in numbers.tolist()], device="cpu")

    def _taken(self, block: int, length: int) -> np.ndarray[Any, Any]:
        """Which ids of a block of ``length`` get a second coset, (length,) boolean."""
        # Exact arithmetic: ids reach 2^63, where block x length x share keeps no fraction in floating point.
        share, start = _share(self.cosets), Fraction(self._stream(-1).random())
        low, high = (int(j * length * share + start) for j in (block, block + 1))
        taken = np.zeros(length, dtype=bool)
        taken[self._stream(block).permutation(length)[: high - low]] = True
        return taken

    def _stream(self, block: int) -> np.random.Generator:
        key, counter = [self.seed, max(block, 0)], [0, 0, int(block < 0), SELECTION_STREAM]
        return np.random.Generator(np.random.Philox(key=key, counter=counter))


def second_cosets_need(cosets: float) -> int:
    """Fewest samples of a partial design, ceil(8 / (cosets - 1)): so many hold 8 second cosets or more."""
    return math.ceil(SECOND_COSETS / _share(cosets))


def _share(cosets: float) -> Fraction:
    """cosets - 1 as the simple fraction that was meant: 2/5 for 1.4, which in binary lies beside it."""
    return Fraction(cosets).limit_denominator(10**6) - 1 or Fraction(cosets) - 1


@dataclass(frozen=True)
class Plan:
    """What is measured, valid as :func:`make_plan` makes it.

    Attributes:
        declaration: what rotates, and how outputs are judged.
        losses: of every output; none where nothing is judged.
        design: the rotations of every sample.
        forward: ``forward(model, batch)`` calls the model; None for the batch, or the fields that its signature names.
        highest_degree: of the spectrum, 0 without one.
        scheme: other symmetries than rotations alone, and how they are drawn.
        fold: most passes that share a call of the model; None for as many as the device likes.
    """

    declaration: Declaration
    losses: Mapping[str, Loss]
    design: Design
    forward: Forward | None = None
    highest_degree: int = 0
    scheme: Scheme | None = None
    fold: int | None = None

    @property
    def call(self) -> Forward:
        """How the model is called: ``forward``, or in the way that its first call shows to work."""
        return self.forward or Call(self.declaration)

    def walk(
        self, ids: Sequence[int], device: torch.device, first: int = 0, cosets: int | None = None
    ) -> Iterator[Pass]:
        """The passes of samples with these ids: all cosets of the design, or ``cosets`` of them from the ``first``."""
        group, design = self.declaration.group, self.design
        for stream in range(first, first + (int(design.cosets) if cosets is None else cosets)):
            if self.scheme is not None:
                still = torch.eye(3, dtype=torch.float64, device=device).expand(len(ids), 3, 3)
                size = len(design.rotations) // self.scheme.cells
                for moves, weight, last in self.scheme.walk(design.seed, ids, stream, size):
                    yield Pass(still, weight, last, moves)
                continue
            shift = torch.eye(3, dtype=torch.float64, device="cpu").expand(len(ids), 3, 3)
            if design.shift:
                shift = uniform_keyed(group, design.seed, ids, stream)
            # Not waited for: what is copied lies in ordinary memory, which is read before the call returns.
            yield from design.coset(shift.to(device, non_blocking=True))

    def fitted(self, batch: Batch) -> Plan:
        """The same with as many passes as the symmetries of this batch have: crystals differ in theirs."""
        own = self.design.rotations
        placed = own if self.scheme is None else self.scheme.placed(batch, self.declaration)
        return self if len(placed) == len(own) else replace(self, design=replace(self.design, rotations=placed))

    def with_cosets(self, cosets: int) -> Plan:
        """The same with another number of cosets."""
        return replace(self, design=replace(self.design, cosets=cosets))


def make_plan(
    declaration: Declaration,
    forward: Forward | None = None,
    rotations: str = "T",
    cosets: float | None = 2,
    seed: int = 0,
    *,
    shift: bool = True,
    spectrum: bool | int = False,
    alone: bool = False,
    judged: bool = True,
    symmetry: Any = "rotation",
    fold: int | str = "auto",
) -> Plan:
    """The plan of these arguments.

    Args:
        declaration, forward, rotations, cosets, seed, shift, spectrum: as for :func:`equiscope.measure`.
        alone: one coset may stand alone, for the average over it or its own variance, as may one rotation for the loss
            of the turned batch.
        judged: False where no loss is taken: for averages of predictions, or of features.
        symmetry: as for :func:`equiscope.measure`; a plan of another than rotations has moves in place of them.
        fold: most passes that share a call of the model, ``"auto"`` for as many as the device likes
            (:mod:`equiscope.decomposition.fold`).

    Raises:
        InputError: for an unknown set, a number of cosets that leaves the split biased, a spectrum that the design or
            a loss cannot give, or a ``forward`` that is no function.
    """
    check_forward(forward)
    together = None if fold == "auto" else fold
    if isinstance(together, str):
        raise InputError(f"fold must be 'auto' or how many passes share a call, 1 for none, got {fold!r}")
    if together is not None:
        check_count("fold", together, 1)
    losses = {name: find_loss(spec.loss) for name, spec in declaration.outputs.items()} if judged else {}
    if symmetry != "rotation" and (found := families(symmetry, rotations, declaration.group)):
        if spectrum is not False or not shift:
            raise InputError(f"spectrum and shift=False are of rotations: leave them out of symmetry={symmetry!r}")
        scheme = Scheme(found)
        design = scheme_design(scheme, declaration, cosets, seed, losses)
        return Plan(declaration, losses, design, forward, scheme=scheme, fold=together)
    design = make_design(rotations, cosets, seed, declaration.group, losses, shift, alone)
    for one in (*(i.action for i in declaration.inputs.values()), *(o.action for o in declaration.outputs.values())):
        if (check := getattr(one, "check", None)) is not None and hasattr(one, "trusted"):
            # Looked at here and not in every pass, which would wait for a device; a floor draws from the whole group.
            drawn = design.shift or judged
            check(uniform_keyed(declaration.group, 0, range(8)) if drawn else design.rotations.matrices)
    if spectrum is not False:
        refuse_dependent(design)
    highest = degrees_available(design.rotations, design.cosets, spectrum, declaration.group)
    others = sorted({spec.name for spec in losses.values() if not spec.exact})
    if highest and others:
        raise InputError(f"the spectrum takes the variance of squared error apart, got loss {', '.join(others)}")
    return Plan(declaration, losses, design, forward, highest, fold=together)


def declared(given: Plan | Declaration) -> Declaration:
    """What rotates."""
    return given.declaration if isinstance(given, Plan) else given


def as_plan(given: Plan | Declaration, design: Mapping[str, Any], **more: Any) -> Plan:
    """A plan as it is; of a declaration, the plan of these arguments of :func:`make_plan`.

    Raises:
        InputError: for anything else, or both a plan and a design, and what :func:`make_plan` refuses.
    """
    plan = make_plan(given, **{**more, **design}) if isinstance(given, Declaration) else given
    if not isinstance(plan, Plan):
        raise InputError(f"say what rotates by an equiscope.Declaration or a plan of it, got {type(given).__name__}")
    if plan.scheme is not None:
        raise InputError("analyses are of rotations: leave out symmetry=…, of which equiscope.measure says the error")
    if design and plan is given:
        raise InputError(f"a plan says all of the design: leave out {', '.join(design)}, or give the declaration")
    return plan


def make_design(
    rotations: str, cosets: float | None, seed: int, group: str, losses: Mapping[str, Loss], shift: bool = True,
    alone: bool = False,
) -> Design:  # fmt: skip
    """The design named, checked against the claimed group and the losses.

    Raises:
        InputError: for an unknown set, or a number of cosets that leaves the split biased.
    """
    if cosets is None:
        cosets = DEFAULT_HAAR if rotations == "haar" else _fewest(losses)
    check_cosets(cosets, fractional=not alone)
    check_count("seed", seed)
    chosen = rotation_set(rotations, group)
    if group == rotations:
        # The set is the whole group: its mean is the group's, and a second coset would be the same set again.
        return Design(chosen, 1, seed, shift=False)
    design = Design(chosen, cosets, seed, shift)
    if not shift:
        if cosets != 1 or (len(chosen) < 2 and not alone):
            raise InputError(
                "cosets must be exactly 1 with shift=False, which takes one set of rotations as it is: give cosets=1 "
                f"and a set, got {cosets}, {chosen.name!r}"
            )
        return design
    if design.partial and len(chosen) < 2:
        raise InputError(f"cosets={cosets} needs a set of several rotations, got {chosen.name!r}: cosets=2")
    if not (alone and cosets == 1 and (_fewest(losses) == 2 or len(chosen) == 1)):
        refuse_biased(design, losses)
    return design


def scheme_design(
    scheme: Scheme, declaration: Declaration, cosets: float | None, seed: int, losses: Mapping[str, Loss]
) -> Design:
    """The design of other symmetries: all of a finite group once, cosets of one, or stairs of several.

    Raises:
        InputError: for a declaration without what they move, a number of cosets that leaves the split biased, or
            several symmetries with a loss whose variance cannot be taken apart.
    """
    for family in scheme.families:
        family.declared(declaration)
    placed = scheme.placed(None, declaration)
    if scheme.several and _fewest(losses) > 2:
        raise InputError(
            f"symmetry={scheme.label!r} takes variances apart, which only squared error has: give loss='mse', or one "
            "symmetry at a time"
        )
    if cosets is None:
        cosets = 1 if scheme.exact or scheme.several else _fewest(losses) if len(placed) > 1 else DEFAULT_HAAR
    check_cosets(cosets, fractional=False)
    check_count("seed", seed)
    if scheme.exact:
        return Design(placed, 1, seed, shift=False)
    design = Design(placed, cosets, seed, shift=not scheme.several)
    refuse_biased(design, losses)
    return design


def _fewest(losses: Mapping[str, Loss]) -> int:
    """Independent cosets that an unbiased split needs."""
    return 2 if all(spec.exact for spec in losses.values()) else JACKKNIFE_COSETS


def refuse_dependent(design: Design) -> None:
    """What adds cosets or takes them apart needs independent ones of every sample.

    Raises:
        InputError: otherwise.
    """
    if not design.shift or design.partial:
        raise InputError(
            "rtol and spectrum need two or more independent cosets of every sample: leave shift=True and give a whole "
            f"number, got cosets={design.cosets}"
        )


def refuse_biased(design: Design, losses: Mapping[str, Loss]) -> None:
    """A split by independent cosets has as many as its losses need, or by some of the samples for squared error.

    Raises:
        InputError: otherwise.
    """
    needed = _fewest(losses)
    if design.shift and design.cosets < needed and not (design.partial and needed == 2):
        names = ", ".join(sorted({spec.name for spec in losses.values()})) or "a variance"
        raise InputError(
            f"cosets={design.cosets} is too few: {names} needs at least {needed} independent cosets for an unbiased "
            "split (for the set of rotations as it is, without their random turn, give shift=False)"
        )


def check_cosets(cosets: float, fractional: bool = True) -> None:
    """A whole number of cosets, or one between one and two where only a part of the samples gets a second.

    Raises:
        InputError: with the value seen.
    """
    if isinstance(cosets, int) and not isinstance(cosets, bool) and 1 <= cosets < 2**63:
        return
    if fractional and isinstance(cosets, float) and 1 < cosets < 2:
        return
    also = ", or a number between 1 and 2 (a second coset on a part of the samples)" if fractional else ""
    raise InputError(f"cosets must be an integer >= 1 and < 2**63{also}, got {cosets!r}")
