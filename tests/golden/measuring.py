"""What the measure says: every loss, group, rotation set, mask, weight, cluster, centre, output, and its metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

import equiscope as eq
from tests.golden.models import Net, cut, molecules
from tests.golden.registry import add, case

SIZES = (5, 12)
FORCES = {"forces": eq.Output("1o", target="forces")}
LOSSES = ("mse", "l1", "huber", "l2_norm")


def told(result: eq.Result, samples: bool = True) -> dict[str, Any]:
    """What of a Result is frozen.

    Left out: ``model_calls``, which batches and folded passes change; the noise floor and the rounding of a float64
    copy, which are rounding themselves (whether the error stands out of it is kept).
    """
    entries: dict[str, Any] = {
        "percent": result.percent,
        "percent_interval": [*result.percent_interval, result.percent_error],
        "mean_of_ratios_percent": result.mean_of_ratios_percent,
        "losses": [result.total, result.twirled, result.equivariance, result.loss_as_given],
        "skill": [result.r2, result.relative_equivariance],
        "words": [result.interval_kind, result.rotations, result.group, result.weighting, result.loss, result.center],
        "counts": [result.samples, result.clusters, result.seed],
        "design": [float(result.passes), float(result.cosets)],
        "distinguishable": result.distinguishable,
        "rotated": [f"{k}: {v}" for k, v in result.rotated.items()],
        "held_fixed": list(result.held_fixed),
        "orientation": list(result.orientation) if result.orientation is not None else None,
        "notes": list(result.notes),
    }
    for name, output in result.outputs.items():
        entries[f"{name}.percent"] = [output.percent, output.contribution_percent]
        entries[f"{name}.losses"] = [output.total, output.twirled, output.equivariance, output.loss_as_given]
        entries[f"{name}.skill"] = [output.r2, output.relative_equivariance]
        entries[f"{name}.words"] = [output.loss, float(output.weight), output.distinguishable]
    if result.spectrum is not None:
        s = result.spectrum
        entries["spectrum.degrees"] = s["degrees"]
        entries["spectrum.shares"] = [*s["share"], s["remainder"], *s["error"], s["remainder_error"]]
    if result.variance_parts is not None:
        entries["variance_parts"] = list(result.variance_parts.values())
    if samples and result.per_sample is not None:
        entries["per_sample"] = [result.per_sample.total, result.per_sample.equivariance]
        entries["per_sample.names"] = [str(v) for v in (*result.per_sample.ids, *result.per_sample.clusters)]
    return entries


def measured(size: int, inputs: Mapping[str, Any], outputs: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """Figures of the golden net on the golden molecules, with the fields that are declared."""
    net = Net(mask=settings.get("mask") is not None)
    return told(eq.measure(net, batches(size, inputs, outputs, settings), inputs=inputs, outputs=outputs, **settings))


def batches(size: int, inputs: Any, outputs: Any, settings: Mapping[str, Any], count: int = 12) -> list[Any]:
    named = [settings.get(k) for k in ("mask", "clusters", "ids")]
    center = settings.get("center", "origin")
    named += [*settings.get("fixed", ()), None if center in ("origin", "mean") else center]
    labels = [o.target for o in outputs.values() if isinstance(o, eq.Output)]
    return cut(molecules(count), size, *inputs, *(n for n in (*named, *labels) if n))


def family(name: str, sizes: tuple[int, ...] = SIZES, **settings: Any) -> None:
    """Register one measurement of the net's forces, or of the outputs given."""
    inputs = settings.pop("inputs", {"pos": eq.Input("1o", points=True)})
    outputs = settings.pop("outputs", FORCES)
    add(_make(inputs, outputs, settings), name, sizes)


def _make(inputs: Any, outputs: Any, settings: Mapping[str, Any]) -> Callable[[int], Mapping[str, Any]]:
    def make(size: int) -> Mapping[str, Any]:
        return measured(size, inputs, outputs, **settings)

    return make


def cubed(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A user's own convex loss, one value a sample."""
    return (prediction - target).abs().pow(3).flatten(1).mean(1)


# Losses.
for _name in LOSSES:
    family(f"loss_{_name}", outputs={"forces": eq.Output("1o", target="forces", loss=_name)},
           cosets=2 if _name == "mse" else 4)  # fmt: skip
for _name in ("cross_entropy_logits", "cross_entropy_probabilities"):
    family(f"loss_{_name}", outputs={"kind": eq.Output("4x0e", target="kind", loss=_name)}, cosets=4)
family("loss_own", outputs={"forces": eq.Output("1o", target="forces", loss=cubed)}, cosets=4)
family("loss_l1_masked", outputs={"forces": eq.Output("1o", target="forces", loss="l1")}, cosets=4, mask="real")
family("no_labels", outputs={"forces": eq.Output("1o")})

# Groups and sets of rotations.
for _name in ("T", "D2", "O", "I"):
    family(f"set_{_name}", rotations=_name)
family("set_haar", rotations="haar", cosets=9)
family("set_superfibonacci", rotations="superfibonacci-8")
family("set_lebedev", rotations="lebedev-5")
family("set_unshifted", rotations="I", cosets=1, shift=False)
for _name in ("T", "haar"):
    family(f"mirrors_{_name}", rotations=_name, group="O3", cosets=3)
for _name in ("O", "T", "D2", "haar"):
    family(f"octahedral_{_name}", rotations=_name, group="O", cosets=3)
family("cosets_4", cosets=4)
family("seed_7", seed=7)

# What is declared of samples and atoms.
family("masked", mask="real")
family("masked_about_the_mean", mask="real", center="mean")
family("about_a_field", center="middle")
family("fixed_charges", fixed=("charge",))
family("clusters", clusters="family", ids="id")
family("weighted_by_component", mask="real", weighting="component", clusters="family")
family("no_noise_samples", noise_samples=0)

# Several inputs and outputs.
TURNING = {
    "pos": eq.Input("1o", points=True), "field": eq.Input("1o", points=False), "cell": eq.Input("1o", points=False),
}  # fmt: skip
SEVERAL = {
    "forces": eq.Output("1o", target="forces", weight=3.0),
    "energy": eq.Output("0e", target="energy", per="sample", weight=0.5),
    "stress": eq.Output("voigt", target="stress", per="sample"),
    "tensor": eq.Output("cartesian", target="tensor", per="sample", weight=0.0),
}
family("several_outputs", inputs=TURNING, outputs=SEVERAL, center="mean", mask="real")
family("several_outputs_mirrored", inputs=TURNING, outputs=SEVERAL, group="O3", fixed=("charge",), clusters="family")
family("some_outputs_without_labels", inputs=TURNING,
       outputs={**SEVERAL, "energy": eq.Output("0e", per="sample")})  # fmt: skip
family("losses_mixed", inputs=TURNING, cosets=4, outputs={
    "forces": eq.Output("1o", target="forces", loss="l2_norm"), "stress": SEVERAL["stress"],
    "energy": eq.Output("0e", target="energy", per="sample", loss="huber", weight=2.0),
})  # fmt: skip
family("symmetric_stress", outputs={"tensor": eq.Output("stress", target="tensor", per="sample")})
family("irreps", outputs={"stress": eq.Output("0e+2e", target="stress", per="sample")})

family("pseudoscalars", outputs={"energy": eq.Output("0o", target="energy", per="sample")}, group="O3")

# Spectra.
family("spectrum", spectrum=True)
family("spectrum_of_the_icosahedral", rotations="I", spectrum=True, clusters="family")
family("spectrum_beyond_the_set", rotations="T", cosets=4, spectrum=4)
family("spectrum_of_several", inputs=TURNING, outputs=SEVERAL, rotations="O", spectrum=True)


def verdict(model: Any, inputs: Mapping[str, Any], given: list[Any], **settings: Any) -> Mapping[str, Any]:
    """Where the error is rounding itself: the other losses, and whether it is told from rounding."""
    found = eq.measure(model, given, inputs=inputs, outputs=FORCES, **settings)
    return {
        "distinguishable": found.distinguishable,
        "said": any("not distinguishable" in note for note in found.notes),
        "words": [found.interval_kind, found.loss],
        "counts": [found.samples, found.clusters],
    }


@case(*SIZES)
def symmetric_net(size: int) -> Mapping[str, Any]:
    """f(x) = 2 x."""
    return verdict(lambda batch: 2 * batch["pos"], {"pos": "1o"}, cut(molecules(), size, "pos", "forces"))


@case(*SIZES)
def symmetric_net_in_single_precision(size: int) -> Mapping[str, Any]:
    """f(x) = x tanh |x|^2, a float32 copy of whose inputs is all it sees."""

    def model(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        x = batch["pos"]
        return x * torch.tanh(x.square().sum(-1, keepdim=True))

    given = [{k: v.float() for k, v in b.items()} for b in cut(molecules(), size, "pos", "forces")]
    return verdict(model, {"pos": "1o"}, given)


@case(*SIZES)
def broken_net_in_single_precision(size: int) -> Mapping[str, Any]:
    given = [{k: v.float() for k, v in b.items()} for b in cut(molecules(), size, "pos", "forces")]
    return verdict(Net().float(), {"pos": "1o"}, given)


@case(*SIZES)
def stored_and_read(size: int) -> Mapping[str, Any]:
    """A Result that went through plain types; the words it prints."""
    found = eq.measure(Net(), cut(molecules(), size, "pos", "forces"), inputs={"pos": "1o"}, outputs=FORCES)
    return {**told(eq.Result.from_dict(found.to_dict())), "printed": str(found)}


@case(*SIZES)
def metric(size: int) -> Mapping[str, Any]:
    settings = {"mask": "real", "clusters": "family", "ids": "id"}
    found = eq.EquivarianceError(inputs={"pos": "1o"}, outputs=FORCES, **settings)
    for batch in batches(size, {"pos": "1o"}, FORCES, settings):
        found.update(Net(mask=True), batch)
    # Clusters that are not integers are named by a hash here.
    entries = {k: v for k, v in told(found.result()).items() if k != "per_sample.names"}
    return {**entries, "computed": float(found.compute())}


@case(*SIZES)
def metric_of_l1(size: int) -> Mapping[str, Any]:
    outputs = {"forces": eq.Output("1o", target="forces", loss="l1"), "energy": SEVERAL["energy"]}
    found = eq.EquivarianceError(inputs={"pos": "1o"}, outputs=outputs, cosets=4, rotations="D2", seed=3)
    for batch in batches(size, {"pos": "1o"}, outputs, {}):
        found(Net(), batch)
    return told(found.result())
