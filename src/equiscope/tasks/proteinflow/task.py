"""The protein-backbone flow-matching task: chains, flow, model and what is measured along training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration, Input, Output
from equiscope.symmetry.orientation import orientation
from equiscope.tasks.guards import at_least, chosen, one_of, share
from equiscope.tasks.proteinflow.baseline import GaussianChain
from equiscope.tasks.proteinflow.chains import ANGSTROM_TO_NM, ChainSet, ChainSettings, TrainingStream, mix
from equiscope.tasks.proteinflow.flow import (
    FLOW_TIMES,
    clean_estimate,
    distogram_loss,
    draw_noise,
    first_pass,
    flow_loss,
    interpolate,
    time_quantile,
)
from equiscope.tasks.proteinflow.models import Proteina, ProteinaEquivariant
from equiscope.tasks.proteinflow.trunk import SIZES
from equiscope.tasks.seeded import Models, SeededTask, TaskSettings, configured, lengthened
from equiscope.tasks.task import Probe

MODELS: Models = {
    "proteina": (Proteina, SIZES, {}),
    "proteina_equivariant": (ProteinaEquivariant, SIZES, {"smooth_bins": True, "neighbours": 0}),
}
SELF_CONDITIONING = ("zeros", "first_pass")
# Of the paper's vector figures: percent at the minimum and at the later maximum with their steps, and at the end (EMA
# weights), by flow time; before them the middle of the ranges over all flow times.
_END, _FIRST = 1_100_000, [[114, 12.75], [1020, 2.0], [1600, 1.0]]
PAPER: dict[str, list[list[float]]] = {
    "t=0": [[_END, 0.05]],
    "t=0.2": [[20_000, 0.17], [_END, 0.72]],
    "t=0.4": [[8_700, 0.18], [_END, 2.4]],
    "t=0.6": [[7_600, 0.28], [_END, 3.8]],
    "t=0.8": [[2_500, 0.53], [13_000, 9.5], [_END, 4.6]],
    "t=0.9": [[2_050, 0.53], [11_700, 18.1], [_END, 6.5]],
    "t=0.95": [[2_050, 0.49], [_END, 5.2]],
    "t=0.99": [[2_200, 0.35], [_END, 3.2]],
}


@dataclass(frozen=True)
class TrackSettings:
    """What is measured.

    Attributes:
        times: flow times, one probe each; draws: those drawn for every chain of the pooled probes.
        batch_size: chains in a measured batch.
        self_conditioning: what the model gets as first estimate while it is measured. ``"zeros"``: none, as in
            half of the training; the curve is then that of one fixed function of one fixed input. ``"first_pass"``:
            the model's own first estimate, made from the turned input, so that what is measured is the two-pass
            map that the sampler calls.
    """

    times: tuple[float, ...] = FLOW_TIMES
    draws: int = 2
    batch_size: int = 16
    self_conditioning: str = "zeros"

    def __post_init__(self) -> None:
        if not self.times or not all(0 <= t < 1 for t in self.times):
            raise InputError(f"flow times must be in [0, 1), got {list(self.times)}")
        at_least(1, "track.", draws=self.draws, batch_size=self.batch_size)
        one_of(SELF_CONDITIONING, "track.", self_conditioning=self.self_conditioning)


@dataclass(frozen=True, kw_only=True)
class ProteinFlowSettings(TaskSettings):
    """The whole task; the defaults are the run of 20 minutes on two cores.

    Attributes:
        self_conditioning: share of the training batches that see the model's own first estimate.
        distogram: weight of :func:`distogram_loss` in the loss of a model that predicts distances too.
        data: which chains; track: what is measured.
    """

    batch_size: int = 16
    model: str = "proteina"
    size: str = "1M"
    self_conditioning: float = 0.5
    distogram: float = 1.0
    data: ChainSettings = field(default_factory=ChainSettings)
    track: TrackSettings = field(default_factory=TrackSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        share("loss.", self_conditioning=self.self_conditioning)
        at_least(0, "loss.", distogram=self.distogram)

    @property
    def held_out_seed(self) -> int:
        """Runs that differ in ``seed`` alone are measured on the same chains, noise and times."""
        return self.seed if self.data.seed is None else self.data.seed


def build(model: str, size: str, **changes: Any) -> nn.Module:
    """A model by name and size; ``changes`` are sizes of its trunk, see :func:`configured` for what is refused."""
    network, config = configured("protein", MODELS, model, size, changes)
    return network(config)


def declaration(output: str = "velocity") -> Declaration:
    """What rotates: x_t and x_sc about the origin, at which both are centred; the flow time is held fixed."""
    return Declaration(
        inputs={"x_t": Input("1o", points=True), "x_sc": Input("1o", points=True)},
        outputs={output: Output("1o", target=output, loss="mse", mask="mask", per="atom")},
        fixed=("t",),
        mask="mask",
        clusters="chain",
        ids="id",
    )


class ProteinFlow(SeededTask[ProteinFlowSettings, ChainSet]):
    """Flow matching of Cα backbones (Proteina); implements :class:`equiscope.tasks.task.Task`. Lengths in nm."""

    name = "proteinflow"
    losses: ClassVar[Mapping[str, tuple[str, ...]]] = {"flow": ("self_conditioning", "distogram")}
    models = tuple(MODELS)
    # Asked by the host at every step.
    host_fields = ("self_condition",)
    _order: TrainingStream

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ProteinFlow:
        """The task of a configuration with ``seed, augment, batch_size, data, model, loss, track``; impossible values
        are an InputError.
        """
        loss = config.get("loss", {})
        settings = ProteinFlowSettings.of(
            config,
            **{name: loss.get(name) for name in ("self_conditioning", "distogram")},
            data=ChainSettings(**chosen(ChainSettings, "data", config.get("data", {}), cls.name, ())),
            # Other keys of this section belong to the run.
            track=TrackSettings(**chosen(TrackSettings, "track", config.get("track", {}))),
        )
        return cls(settings)

    def prepare(self, progress: bool = True) -> None:
        """Read, cluster and split the chains; nothing is computed twice."""
        if self._data is None:
            s = self.settings
            self._data = ChainSet.load(s.data, s.held_out_seed)
            self._order = TrainingStream(self._data, s.batch_size, s.seed, s.augment, s.self_conditioning)
            if progress:
                parts = {part: len(numbers) for part, numbers in self._data.parts.items()}
                print(f"protein chains: {len(self._data.chains)} in {self._data.clusters.number} clusters, {parts}")

    def _build(self) -> nn.Module:
        return build(self.settings.model, self.settings.size, **self.settings.model_settings)

    def _weights_seed(self) -> int:
        return mix(self.settings.seed, 11)

    def training_batch(self, step: int) -> dict[str, Tensor]:
        """``x_t``, ``x_sc`` (zeros), ``velocity`` (B, N, 3) nm, ``t`` (B,), ``residue``, ``mask`` (B, N), ``chain``
        (cluster), ``id`` (B,), and ``self_condition`` (B,) bool, the same for the whole batch."""
        _ = self.data  # says what is missing before prepare()
        return self._order.batch(step)

    def arranged(self, batch: Mapping[str, Tensor], padded: bool = False) -> dict[str, Tensor]:
        """A training batch as it is, or filled up to one of few lengths."""
        return lengthened(batch) if padded else dict(batch)

    def training_loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean over chains of :func:`flow_loss`, and of the weighted :func:`distogram_loss` of a model that predicts
        distances; ``clean`` is the error of the predicted chain, in nm²."""
        if bool(batch["self_condition"].any()):
            batch = {**batch, "x_sc": first_pass(model, batch)}
        answer = model(batch)
        loss = flow_loss(answer["velocity"], batch["velocity"], batch["mask"])
        clean = loss.detach() * (1 - batch["t"]).square()
        parts = {"loss": loss.mean(), "clean": clean.mean()}
        if "distogram" not in answer or not self.settings.distogram:
            return parts
        chain = clean_estimate(batch["x_t"], batch["velocity"], batch["t"])
        entropy = distogram_loss(answer["distogram"], chain, batch["t"], batch["mask"]).mean()
        return {**parts, "loss": parts["loss"] + self.settings.distogram * entropy, "distogram": entropy.detach()}

    def probes(self, part: str) -> list[Probe]:
        """One probe per flow time, and two pooled over the training law of flow times.

        ``"pooled"`` (the headline) has the training loss: the velocity error, which is Proteina's chain error with
        weight 1/(1 − t)². ``"pooled, unweighted"`` has the chain error |x̂_1 − x_1|² itself, which early times
        dominate. Each chain has one noise x_0, the same at every flow time, rotated along as part of x_t. The final
        probes also measure the pooled two-pass map, whatever the tracked ones do.
        """
        track, numbers = self.settings.track, self._held_out(part)
        noise = self._noise(numbers, part, draws=1)
        forward = _two_pass if track.self_conditioning == "first_pass" else None
        found = []
        for t in track.times:
            times = [torch.full((len(batch),), t) for batch in numbers]
            found.append(Probe(f"t={t:g}", self._batches(numbers, noise, times), declaration(), forward, False))
        pooled, noise, times = self._pooled(numbers, part)
        batches = self._batches(pooled, noise, times)
        found.append(Probe("pooled", batches, declaration(), forward, True))
        clean = [_clean_target(batch) for batch in batches]
        found.append(Probe("pooled, unweighted", clean, declaration("clean"), _clean(forward), False))
        if part == "final" and forward is None:
            found.append(Probe("pooled, self-conditioned", batches, declaration(), _two_pass, False))
        return found

    def baseline(self) -> nn.Module:
        """The linear denoiser of a Gaussian chain with the second moments of the training chains."""
        numbers = self.data.parts["train"].tolist()
        return GaussianChain.fit([ANGSTROM_TO_NM * torch.from_numpy(self.data.chains.ca[i]) for i in numbers])

    def describe(self) -> dict[str, Any]:
        chains = self.data.padded(range(len(self.data.chains)))
        turned = orientation(chains["x_1"], chains["mask"])
        return {
            "content": "Cα traces of protein chains",
            "units": "nm",
            **self.data.describe(),
            "orientation": turned.to_dict(),
            "augment": self.settings.augment,
            "batch_size": self.settings.batch_size,
            "measured_self_conditioning": self.settings.track.self_conditioning,
        }

    def reference(self) -> dict[str, Any]:
        """The paper's curves of the 60M model on the PDB, batch 4."""
        return {
            "label": "Proteina 60M, PDB, batch 4 (paper)",
            "points": {probe: [list(point) for point in _FIRST + points] for probe, points in PAPER.items()},
            "source": "Shen, Nowara, Maser, Cho, TMLR 12/2025, arXiv 2512.02303; read off the authors' figures. The "
            "first three points are the middle of the ranges over all flow times: start 11.5-14 %, 2 % crossed at "
            "900-1,140 steps, 1 % at 1,400-1,800 steps. The maxima of t=0.95 (about 11 %) and t=0.99 (about "
            "3.8 %) are left out: their steps are not known. A mean of ratios over samples, not a ratio of means",
        }

    def _held_out(self, part: str) -> list[list[int]]:
        """Chain numbers of a part in batches of similar length."""
        one_of(("track", "final"), part=part)
        numbers = sorted(self.data.parts[part].tolist(), key=lambda i: (len(self.data.chains.ca[i]), i))
        size = self.settings.track.batch_size
        return [numbers[i : i + size] for i in range(0, len(numbers), size)]

    def _noise(self, numbers: Sequence[Sequence[int]], part: str, draws: int) -> list[Tensor]:
        key = 21 if part == "track" else 22
        generator = torch.Generator().manual_seed(mix(self.settings.held_out_seed, key, draws))
        return [draw_noise(self.data.padded(batch)["mask"], generator) for batch in numbers]

    def _pooled(self, numbers: list[list[int]], part: str) -> tuple[list[list[int]], list[Tensor], list[Tensor]]:
        """Every chain ``draws`` times, at stratified flow times dealt at random."""
        draws = self.settings.track.draws
        repeated = [batch for batch in numbers for _ in range(draws)]
        count = sum(len(batch) for batch in repeated)
        generator = torch.Generator().manual_seed(mix(self.settings.held_out_seed, 23 if part == "track" else 24))
        strata = (torch.arange(count) + torch.rand(count, generator=generator, dtype=torch.float64)) / count
        times = time_quantile(strata)[torch.randperm(count, generator=generator)].float()
        return repeated, self._noise(repeated, part, draws + 1), list(times.split([len(b) for b in repeated]))

    def _batches(
        self, numbers: Sequence[Sequence[int]], noise: Sequence[Tensor], times: Sequence[Tensor]
    ) -> list[dict[str, Tensor]]:
        batches, first = [], 0
        for some, x_0, t in zip(numbers, noise, times, strict=True):
            padded = self.data.padded(some)
            x_t, velocity = interpolate(x_0, padded.pop("x_1"), t)
            # Ids number the samples, not the chains: a chain that comes twice gets rotations of its own.
            padded["id"] = torch.arange(first, first + len(some))
            first += len(some)
            batches.append({"x_t": x_t, "x_sc": torch.zeros_like(x_t), "t": t, "velocity": velocity, **padded})
        return batches


def _two_pass(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return model({**batch, "x_sc": first_pass(model, batch)})


def _clean_target(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch with the chain x_1 = x_t + (1 − t) v as target instead of the velocity."""
    target = clean_estimate(batch["x_t"], batch["velocity"], batch["t"])
    return {**{key: value for key, value in batch.items() if key != "velocity"}, "clean": target}


def _clean(forward: Any) -> Any:
    def predict(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        answer = forward(model, batch) if forward else model(batch)
        return {"clean": clean_estimate(batch["x_t"], answer["velocity"], batch["t"])}

    return predict
