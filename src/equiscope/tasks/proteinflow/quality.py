"""What a person can judge drawn backbones by: geometry of the trace, compactness, handedness, against real chains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wasserstein_distance

from equiscope.errors import InputError

IDEAL_STEP, STEP_TOLERANCE = 3.8, 0.2  # Å
CLASH = 3.6  # Å between Cα at least three residues apart; real chains have next to none
HELIX_TURN = (20.0, 80.0)  # degrees: the Cα dihedral of a right-handed helix is about +50


def step_lengths(traces: Sequence[np.ndarray]) -> np.ndarray:
    """Distances of consecutive Cα, pooled over chains, Å; traces are (L, 3) in Å."""
    edges = (np.diff(np.asarray(ca, dtype=np.float64), axis=0) for ca in traces)
    return np.concatenate([np.linalg.norm(edge, axis=1) for edge in edges])


def radius_of_gyration(ca: np.ndarray) -> float:
    """√(mean |x − mean x|²) of a trace (L, 3), in its unit."""
    return float(np.sqrt(np.square(ca - ca.mean(axis=0)).sum(axis=1).mean()))


def dihedrals(ca: np.ndarray) -> np.ndarray:
    """Dihedral angles of four consecutive Cα in degrees, (L − 3,) in (−180, 180].

    About +50° in a right-handed α-helix, −50° in its mirror image, about −170° in a β-strand.
    """
    edges = np.diff(np.asarray(ca, dtype=np.float64), axis=0)
    first, second, third = edges[:-2], edges[1:-1], edges[2:]
    left, right = np.cross(first, second), np.cross(second, third)
    sine = np.einsum("ij,ij->i", first, right) * np.linalg.norm(second, axis=1)
    return np.degrees(np.arctan2(sine, np.einsum("ij,ij->i", left, right)))


def clash_share(traces: Sequence[np.ndarray]) -> float:
    """Share of residues with another Cα, three or more residues away, nearer than 3.6 Å."""
    bad = total = 0
    for ca in traces:
        apart = np.linalg.norm(ca[:, None] - ca[None], axis=-1)
        index = np.arange(len(ca))
        near = (apart < CLASH) & (np.abs(index[:, None] - index[None]) >= 3)
        bad, total = bad + int(near.any(axis=1).sum()), total + len(ca)
    return bad / total


@dataclass(frozen=True)
class Quality:
    """Figures of a set of traces; lengths in Å.

    Attributes:
        step_mean, step_sd: of the distance of consecutive Cα (real: 3.80 ± 0.04).
        step_share: share of those within 0.2 Å of 3.8 Å; clash_share: of residues with a clash.
        step_distance: Wasserstein-1 distance of their distribution to that of the real chains; for real chains
            themselves, between their two halves: what no sampler can be expected to beat.
        right_turns, left_turns: share of Cα dihedrals of a right- or left-handed helix (20 to 80°, −80 to −20°).
        gyration_mean, gyration_real: mean radius of gyration, and that of real chains of these lengths, from the power
            law fitted to them.
    """

    chains: int
    step_mean: float
    step_sd: float
    step_share: float
    step_distance: float
    clash_share: float
    right_turns: float
    left_turns: float
    gyration_mean: float
    gyration_real: float

    def __str__(self) -> str:
        return (
            f"{self.chains} chains: CA-CA {self.step_mean:.2f} ± {self.step_sd:.2f} Å, "
            f"{100 * self.step_share:.0f} % within {STEP_TOLERANCE} Å of {IDEAL_STEP} Å "
            f"(distance to real {self.step_distance:.3f} Å); clashes {100 * self.clash_share:.1f} %; helix turns "
            f"{100 * self.right_turns:.0f} % right, {100 * self.left_turns:.0f} % left-handed; radius of gyration "
            f"{self.gyration_mean:.1f} Å (real chains of that length {self.gyration_real:.1f} Å)"
        )


@dataclass(frozen=True)
class RealChains:
    """Real chains to judge by: pooled step lengths, and R_g = prefactor · L^exponent fitted to them."""

    traces: tuple[np.ndarray, ...]
    prefactor: float
    exponent: float

    @classmethod
    def of(cls, traces: Sequence[np.ndarray], trend: Sequence[np.ndarray] | None = None) -> RealChains:
        """Fit the power law to two ``traces`` or more, its exponent to ``trend`` if given: more lengths, steadier."""
        if len(traces) < 2:
            raise InputError(f"two real chains or more are needed to compare with, got {len(traces)}")
        (lengths, radii), (spread, sizes) = (
            np.log([(len(ca), radius_of_gyration(ca)) for ca in some]).T for some in (traces, trend or traces)
        )
        exponent = np.polyfit(spread, sizes, 1)[0] if np.ptp(spread) > 0 else 0.0
        return cls(tuple(traces), float(np.exp(radii.mean() - exponent * lengths.mean())), float(exponent))

    def gyration(self, length: np.ndarray | int) -> np.ndarray:
        """Typical radius of gyration (Å) of a real chain of ``length`` residues."""
        return self.prefactor * np.asarray(length, dtype=np.float64) ** self.exponent

    def quality(self) -> Quality:
        """The real chains' own figures."""
        halves = step_lengths(self.traces[::2]), step_lengths(self.traces[1::2])
        return _figures(self.traces, self, float(wasserstein_distance(*halves)))


def judge(traces: Sequence[np.ndarray], real: RealChains) -> Quality:
    """The figures of drawn traces (L, 3) in Å beside real chains."""
    if not len(traces):
        raise InputError("there is no trace to judge")
    distance = wasserstein_distance(step_lengths(traces), step_lengths(real.traces))
    return _figures(traces, real, float(distance))


def _figures(traces: Sequence[np.ndarray], real: RealChains, distance: float) -> Quality:
    steps = step_lengths(traces)
    turns = np.concatenate([dihedrals(ca) for ca in traces]) if any(len(ca) > 3 for ca in traces) else np.zeros(0)
    low, high = HELIX_TURN
    count = max(len(turns), 1)
    return Quality(
        chains=len(traces),
        step_mean=float(steps.mean()),
        step_sd=float(steps.std()),
        step_share=float((np.abs(steps - IDEAL_STEP) < STEP_TOLERANCE).mean()),
        step_distance=distance,
        clash_share=clash_share(traces),
        right_turns=float(((turns > low) & (turns < high)).sum() / count),
        left_turns=float(((turns < -low) & (turns > -high)).sum() / count),
        gyration_mean=float(np.mean([radius_of_gyration(ca) for ca in traces])),
        gyration_real=float(np.mean(real.gyration(np.array([len(ca) for ca in traces])))),
    )
