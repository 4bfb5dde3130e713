"""The noise floor: it is the equivariance error of a rounding equivariant model, and it is not of a broken one."""

import math

import numpy as np
import pytest
import torch
from e3nn import o3
from torch import nn

import equiscope as eq
from equiscope.decomposition.arcs import Site
from equiscope.decomposition.batches import DenseBatch
from equiscope.decomposition.computing import Computing
from equiscope.decomposition.losses import LOSSES
from equiscope.decomposition.noise import (
    Known,
    arcs_needed,
    check_repeat,
    chosen,
    floor,
    floors_allowed,
    keys,
    pooled,
    smallest,
    stands_apart,
)
from equiscope.decomposition.samples import FLOOR
from equiscope.decomposition.split import BatchOutput, Labels
from equiscope.errors import NonFiniteError, RandomModelError
from equiscope.symmetry.declaration import Declaration

from .models import random_batch

SHORT = dict(inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y")


class Amplifier(nn.Module):
    """Equivariant in exact arithmetic, but it subtracts large numbers."""

    def __init__(self, gain):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, batch):
        r2 = batch["pos"].square().sum(-1, keepdim=True)
        return {"forces": batch["pos"] * (1 + (self.gain + r2) - self.gain)}


@pytest.mark.parametrize("gain", [0.1, 1.0, 8.0, 64.0])
def test_the_floor_follows_the_models_own_rounding(gain):
    result = eq.measure(Amplifier(gain), [random_batch(32, dtype=torch.float32)], **SHORT)
    assert not result.distinguishable
    assert result.noise_floor / 30 < result.equivariance < 3 * result.noise_floor


def test_the_floor_is_never_under_the_rounding_of_the_dtype():
    class Copy(nn.Module):
        def forward(self, batch):
            return {"forces": batch["pos"]}

    # Small integers survive a turn there and back: the floor seen would be nothing.
    batch = {k: v.round() for k, v in random_batch(8, dtype=torch.float32).items()}
    result = eq.measure(Copy(), [batch], **SHORT)
    eps = torch.finfo(torch.float32).eps
    # One rounding of the input and one of the output, each uniform over at most eps of a number.
    assert result.noise_floor >= 2 * eps**2 / 12 * float(batch["pos"].square().mean()) * 0.99
    assert not result.distinguishable


class Pairs(nn.Module):
    """Forces of Lennard-Jones pairs, each an interatomic distance subtracted from another."""

    def forward(self, batch):
        x = batch["pos"]
        apart = x[:, :, None] - x[:, None]
        r2 = apart.square().sum(-1, keepdim=True) + torch.eye(x.shape[1], dtype=x.dtype)[:, :, None]
        return {"forces": ((1 / r2**7 - 0.5 / r2**4) * apart).sum(2)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rotations", ["D2", "T"])
def test_two_atoms_are_under_the_floor_alone_and_together(rotations, dtype):
    # A few roundings, all alike in several passes: the floor of one pair must not be luck.
    generator = torch.Generator().manual_seed(0)
    first = 5 * torch.randn(60, 1, 3, generator=generator, dtype=torch.float64)
    along = nn.functional.normalize(torch.randn(60, 1, 3, generator=generator, dtype=torch.float64), dim=-1)
    x = torch.cat([first, first + 1.15 * along], dim=1).to(dtype)

    def seen(part, seed):
        return eq.measure(Pairs(), [{"pos": part, "y": part}], rotations=rotations, seed=seed, **SHORT)

    alone = [seen(x[i : i + 1], i).distinguishable for i in range(60)]
    # A few in a thousand may.
    assert sum(alone) <= 1
    assert not seen(x, 0).distinguishable


def test_an_orientation_in_which_roundings_cancel_says_nothing_of_the_others():
    class Sum(nn.Module):
        """A sum of terms along the axes and their opposites: zero, and rounded only where the axes are turned."""

        def forward(self, batch):
            x = batch["pos"]
            scale = 1 + x.square().sum(-1, keepdim=True).sum(1, keepdim=True)
            total = torch.zeros_like(x[:, 0])
            for k in (0, 1, 2, 3, 4, 5):
                total = total + x[:, k] * scale[:, 0] * 1e3
            return {"forces": total[:, None] + x[:, :1]}

    axes = torch.cat([torch.eye(3), -torch.eye(3)])[None].repeat(20, 1, 1)
    scale = torch.rand(20, 1, 1, generator=torch.Generator().manual_seed(1)) + 1
    batch = {"pos": scale * axes, "y": torch.zeros(20, 1, 3)}
    result = eq.measure(Sum(), [batch], **SHORT)
    assert not result.distinguishable
    # More than the dtype alone explains.
    square = float(batch["pos"][:, 0].square().mean())
    assert result.noise_floor > 100 * torch.finfo(torch.float32).eps ** 2 / 6 * square


@pytest.mark.parametrize("samples", [1, 4, 32])
@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("degree", [1, 3])
def test_a_small_fault_is_not_swallowed(samples, dtype, size, degree):
    class Broken(Amplifier):
        def forward(self, batch):
            right, unit = super().forward(batch)["forces"], nn.functional.normalize(batch["pos"], dim=-1)
            wrong = torch.ones_like(unit) if degree == 1 else unit.prod(-1, keepdim=True).expand_as(unit) * 105**0.5
            return {"forces": right + size * right.square().mean().sqrt() * wrong}

    result = eq.measure(Broken(1.0).to(dtype), [random_batch(samples, dtype=dtype)], **SHORT)
    assert math.sqrt(result.relative_equivariance) == pytest.approx(size, rel=0.3, abs=0)
    assert result.distinguishable
    assert result.outputs["forces"].distinguishable
    sound = eq.measure(Amplifier(1.0).to(dtype), [random_batch(samples, dtype=dtype)], **SHORT)
    assert not sound.distinguishable
    assert not sound.outputs["forces"].distinguishable


def columns_of(model, batch, outputs, known, arcs=1, loss="mse", group="SO3", **declared):
    """The floor's columns of each output of a batch with ids 0, 1, …"""
    declaration = Declaration({"pos": "1o"}, outputs, group=group, **declared)
    found = {}
    for name, spec in declaration.outputs.items():
        rows = batch.rows(name, spec.per, None)
        target = batch.fields()["y"] if loss != "mse" else None
        labels = None if target is None else Labels(target, target)
        found[name] = BatchOutput(name, rows, spec.action, LOSSES[loss], labels)
    site = Site(model, batch, declaration, None, (0, list(range(batch.size))), found)
    floors = floor(site, known, arcs)
    return {name: dict(zip(FLOOR, values.T, strict=True)) for name, values in floors.items()}


def mean_floor_of_energies(model, samples, eps, arcs=1):
    """Of one energy a sample of one random vector each, in double precision with the step of ``eps``."""
    generator = torch.Generator().manual_seed(0)
    positions = torch.randn(samples, 1, 3, generator=generator, dtype=torch.float64)
    batch = DenseBatch({"pos": positions, "y": torch.zeros(samples, 1)})
    known = Known(computing=Computing(eps, opaque=False), rounding={})
    return float(columns_of(model, batch, {"energy": "0e"}, known, arcs, fixed=["y"])["energy"]["rounding"].mean())


@pytest.mark.parametrize("degree", [5, 8])
def test_a_fault_leaks_into_the_floor_by_the_curvature_of_the_arc(degree):
    # Half precision's step with double precision's rounding, so that the leak is all there is.
    eps, samples = torch.finfo(torch.float16).eps, 2000
    # Of one component of a spherical harmonic the mean square over the sphere is 1 with this normalisation.
    of_degree = o3.SphericalHarmonics(degree, normalize=True, normalization="component")

    def model(b):
        return {"energy": of_degree(b["pos"][:, 0])[:, :1]}

    expected = eps**2 / 2 * degree * (degree + 1) * (3 * degree**2 + 3 * degree - 1) / 15
    assert mean_floor_of_energies(model, samples, eps) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("arcs", [1, 3])
def test_independent_roundings_give_their_variance(arcs):
    class Rounded(nn.Module):
        """Independent noise of a few units in the last place."""

        def forward(self, batch):
            return {"energy": 1 + 1e-15 * torch.randn(batch["pos"].shape[0], 1, dtype=torch.float64)}

    assert mean_floor_of_energies(Rounded(), 4000, 2.0**-52, arcs) == pytest.approx(1e-30, rel=0.05, abs=0)


def test_rounding_of_few_samples_may_exceed_more_floors():
    assert floors_allowed(np.ones(1)) == pytest.approx(10.828, abs=1e-3)
    assert floors_allowed(np.ones(4)) == pytest.approx(18.467 / 4, abs=1e-3)
    assert [floors_allowed(np.ones(n)) for n in (10, 1000)] == [3, 3]
    # One of a hundred carries it all, however large.
    assert floors_allowed(np.array([1e200] + [1e-9] * 99)) == pytest.approx(10.828, abs=1e-3)
    assert floors_allowed(np.zeros(5)) == floors_allowed(np.array([1.0, -1.0])) == floors_allowed(np.ones(1))


def test_a_floor_that_rests_on_little_may_be_exceeded_by_more():
    # Tabulated F(0.999) of 1 and 10, and of many and 10 degrees of freedom.
    assert floors_allowed(np.ones(1), 10) == pytest.approx(21.04, abs=0.01)
    assert floors_allowed(np.ones(100_000), 10) == pytest.approx(6.76, abs=0.01)
    assert floors_allowed(np.ones(100), 1e9) == 3


def test_few_samples_get_more_arcs():
    assert [arcs_needed(n, 64) for n in (1, 2, 3, 64)] == [3, 2, 1, 1]
    assert [arcs_needed(64, wanted) for wanted in (0, 1, 2, 3)] == [3, 3, 2, 1]


def test_octahedral_copies_are_exact_and_have_no_floor_of_turns():
    class Copy(nn.Module):
        def forward(self, batch):
            return {"forces": batch["pos"]}

    result = eq.measure(Copy(), [random_batch(8, dtype=torch.float32)], group="O", rotations="O", **SHORT)
    assert result.equivariance == 0
    eps = torch.finfo(torch.float32).eps
    square = float(random_batch(8, dtype=torch.float32)["pos"].square().mean())
    assert result.noise_floor == pytest.approx(eps**2 / 6 * square, rel=1e-4, abs=0)


def test_a_real_error_stands_out():
    class Broken(Amplifier):
        def forward(self, batch):
            return {"forces": super().forward(batch)["forces"] + torch.tensor([1e-3, 0.0, 0.0])}

    result = eq.measure(Broken(1.0), [random_batch(32, dtype=torch.float32)], **SHORT)
    assert result.distinguishable
    assert result.equivariance == pytest.approx(1e-6 / 3, rel=0.01)


def test_the_float64_copy_gives_the_size_of_the_rounding():
    quiet, loud = (eq.measure(Amplifier(g), [random_batch(8, dtype=torch.float32)], **SHORT) for g in (1.0, 1e5))
    assert quiet.float64_change < 1e-6
    assert 1e-5 < loud.float64_change < 1e-1
    assert eq.measure(Amplifier(1.0).double(), [random_batch(8)], **SHORT).float64_change is None


def test_a_model_that_refuses_float64_is_measured_all_the_same():
    class Stubborn(Amplifier):
        def forward(self, batch):
            assert batch["pos"].dtype == torch.float32
            return super().forward(batch)

    assert eq.measure(Stubborn(1.0), [random_batch(8, dtype=torch.float32)], **SHORT).float64_change is None


def test_small_wobble_raises_the_floor_and_large_is_an_error():
    class Wobble(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.size = size

        def forward(self, batch):
            return {"forces": batch["pos"] * (1 + self.size * torch.randn(()))}

    torch.manual_seed(0)
    result = eq.measure(Wobble(1e-5), [random_batch(32, dtype=torch.float32)], **SHORT)
    assert result.noise_floor > 1e-12
    with pytest.raises(RandomModelError, match="'forces' changes by"):
        eq.measure(Wobble(0.1), [random_batch(32, dtype=torch.float32)], **SHORT)


def test_repeats_are_relative():
    assert check_repeat({"f": torch.tensor([100.0])}, {"f": torch.tensor([100.01])}) == pytest.approx(1e-4, rel=0.02)
    assert check_repeat({"f": torch.zeros(2)}, {"f": torch.zeros(2)}) == 0
    with pytest.raises(RandomModelError):
        check_repeat({"f": torch.ones(2)}, {"f": torch.full((2,), torch.nan)})


@pytest.mark.parametrize(("size", "refused"), [(0.01, False), (0.05, True)])
def test_what_repeats_may_differ_by_follows_the_precision(size, refused):
    class Atomics(nn.Module):
        """Sums whose order changes: rounding in bfloat16, another one in every call."""

        def forward(self, batch):
            x = batch["pos"].bfloat16().float()
            return {"forces": x * (1 + size * (2 * torch.rand(()) - 1))}

    torch.manual_seed(0)
    batches = [random_batch(8, dtype=torch.float32) for _ in range(4)]
    if refused:
        with pytest.raises(RandomModelError):
            eq.measure(Atomics(), batches * 9, **SHORT)
    else:
        result = eq.measure(Atomics(), batches, **SHORT)
        assert any("identical calls differ by" in n and "up to 3.1 %" in n for n in result.notes)
        assert any("computes in bfloat16 inside" in n for n in result.notes)
        assert not result.distinguishable


def test_the_float64_copy_and_the_dtype_are_lower_bounds():
    batch = DenseBatch(random_batch(4))

    def of(copied=0.0, model=lambda b: b["pos"]):
        return columns_of(model, batch, {"f": "1o"}, Known(rounding={"f": copied}), fixed=["y"])["f"]

    square = batch.fields()["pos"].square().mean((1, 2))
    assert torch.allclose(of()["square"], square, rtol=1e-12)
    assert of(0.3)["rounding"].tolist() == pytest.approx((0.09 * square).tolist(), rel=1e-12)
    half = of(model=lambda b: b["pos"].to(torch.float16))["rounding"]
    assert bool((half >= torch.finfo(torch.float16).eps ** 2 / 6 * 0.999 * square).all())


# Which samples have a floor.


def test_keys_are_uniform_and_differ_between_seeds():
    found = keys(0, range(40_000)).astype(np.float64) / 2.0**64
    assert len(set(keys(0, range(40_000)).tolist())) == 40_000
    counts = np.histogram(found, bins=20, range=(0, 1))[0]
    # chi^2 of 19 degrees of freedom: 43.8 at one in a thousand.
    assert ((counts - 2000) ** 2 / 2000).sum() < 43.8
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 4 / 200
    assert abs(np.corrcoef(found, keys(1, range(40_000)).astype(np.float64))[0, 1]) < 4 / 200
    assert keys(3, [2**63 - 1]).shape == (1,)


@pytest.mark.parametrize(("samples", "expected"), [(1, 1), (12, 12), (40, 12), (160, 40), (1000, 64)])
def test_a_quarter_has_a_floor_but_no_fewer_than_twelve(samples, expected):
    found = smallest(keys(5, range(samples)).tolist(), 64)
    # The quarter is binomial.
    assert abs(len(found) - expected) <= (0 if samples != 160 else 4 * (160 * 3 / 16) ** 0.5)
    assert found == sorted(keys(5, range(samples)).tolist())[: len(found)]


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_of_any_stream_the_same_samples_are_measured(batch):
    own = keys(1, range(600)).tolist()
    wanted = set(smallest(own, 64))
    for order in (range(600), range(599, -1, -1), np.random.default_rng(0).permutation(600)):
        stream, kept, measured = [own[i] for i in order], [], []
        for start in range(0, 600, batch):
            part = stream[start : start + batch]
            places, kept = chosen(kept, part, 64)
            measured += [part[i] for i in places]
        assert wanted <= set(measured)
        assert len(measured) == len(set(measured)) < 64 * (1 + math.log(600 / 64)) + 30
        assert set(kept) == wanted
    assert chosen([], [own[0]] * 3, 64) == ([0], [own[0]])


@pytest.mark.parametrize("passes", [2, 4, 8, 15, 24, 120])
def test_short_measurements_have_a_floor_of_fewer_samples(passes):
    for samples in (1, 3, 20, 64, 1000):
        least = min(samples, 12, max(3, passes / 2))
        share = min(1 / 4, passes / 64)
        found = len(smallest(keys(5, range(samples)).tolist(), 64, passes))
        # Whatever lies under the limit comes on top of the least; the number of those is binomial.
        assert found >= math.floor(least)
        assert found <= min(64, max(least, share * samples + 4 * (samples * share) ** 0.5) + 1)


@pytest.mark.parametrize(
    ("rotations", "cosets"), [("D2", 2), ("D2", 3), ("T", 1.25), ("T", 2), ("O", 2), ("haar", 4), ("haar", 10)]
)
def test_the_floor_takes_a_tenth_of_a_measurement_at_most(rotations, cosets):
    """Samples that went through the model for the floor and for repeats, of all that did."""

    def share(samples, batch):
        counted = []

        def model(b):
            counted.append(len(b["pos"]))
            return {"forces": b["pos"] * b["pos"].square().sum(-1, keepdim=True)}

        data = random_batch(samples, dtype=torch.float32)
        parts = [{k: v[i : i + batch] for k, v in data.items()} for i in range(0, samples, batch)]
        passes = eq.measure(model, parts, rotations=rotations, cosets=cosets, **SHORT).passes
        return 1 - samples * (passes + 1) / sum(counted)

    for samples, batch in ((64, 16), (64, 64), (96, 32), (256, 64)):
        assert 0.005 < share(samples, batch) <= 0.1
    if (rotations, cosets) == ("T", 2):
        assert max(share(64, batch) for batch in (1, 8)) <= 0.1


def test_a_part_that_is_answered_otherwise_is_not_taken_for_a_random_model():
    """Samples that see each other, and a model that takes batches of one size alone, are repeated whole."""

    def together(b):
        return {"forces": b["pos"] - b["pos"].mean(0, keepdim=True)}

    def fixed(b):
        assert len(b["pos"]) == 40
        return {"forces": b["pos"]}

    for model in (together, fixed):
        assert math.isfinite(eq.measure(model, [random_batch(40)], **SHORT).percent)


class Sized(nn.Module):
    """Exactly equivariant, answers as large as each sample says."""

    def __init__(self, seed=0, fault=0.0):
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 1))
        self.fault = fault

    def forward(self, batch):
        x = batch["pos"]
        apart = x[:, :, None] - x[:, None]
        right = (self.net(apart.square().sum(-1, keepdim=True)) * apart).sum(2)
        wrong = self.fault * right.square().mean((1, 2), keepdim=True).sqrt() * torch.ones_like(right)
        return {"forces": (right + wrong) * batch["scale"][:, None, None]}


def sized_batches(seed, dtype, samples=96, spread=1.5):
    """Samples sorted by the size of their answers."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 5, 3, generator=generator, dtype=torch.float64)
    scale = torch.exp(spread * torch.randn(samples, generator=generator, dtype=torch.float64)).sort().values
    data = {"pos": x.to(dtype), "scale": scale.to(dtype)}
    return [{k: v[i : i + 32] for k, v in data.items()} for i in range(0, samples, 32)]


def of_sized(model, batches, **settings):
    return eq.measure(model, batches, inputs={"pos": "1o"}, outputs={"forces": "1o"}, fixed=["scale"], **settings)


SORTED = [(d, w, "T") for d in (torch.float64, torch.float32, torch.bfloat16) for w in (False, True)]


@pytest.mark.parametrize(("dtype", "wrapped", "rotations"), [*SORTED, (torch.float32, False, "D2")])
def test_sorted_data_give_few_false_alarms_and_hide_no_fault(dtype, wrapped, rotations):
    alarms, seen = 0, 0
    for seed in range(12):
        model = Sized(seed).to(dtype)
        called = (lambda b, model=model: model(b)) if wrapped else model
        sound = of_sized(called, sized_batches(seed, dtype), seed=seed, rotations=rotations)
        alarms += sound.distinguishable
        # A constant vector of ten floors.
        model.fault = 10 * (sound.noise_floor / (sound.equivariance / sound.relative_equivariance)) ** 0.5
        seen += of_sized(called, sized_batches(seed, dtype), seed=seed, rotations=rotations).distinguishable
    # One of twelve would be one in eighty of two such alarms if a thousandth were the rate of one.
    assert alarms <= 1
    assert seen >= 11


def test_the_order_of_the_data_does_not_change_the_floor():
    class Scaled(Amplifier):
        """Number by number, so that no sample's rounding depends on its neighbours in the batch."""

        def forward(self, batch):
            return {"forces": super().forward(batch)["forces"] * batch["scale"][:, None, None]}

    batches = sized_batches(0, torch.float32)
    whole = {k: torch.cat([b[k] for b in batches]) for k in batches[0]} | {"id": torch.arange(96)}
    ways = torch.arange(96), torch.arange(95, -1, -1), torch.randperm(96, generator=torch.Generator().manual_seed(0))
    found = [of_sized(Scaled(1.0), [{k: v[i] for k, v in whole.items()} for i in way.split(size)], ids="id")
             for way, size in zip(ways, (96, 32, 7), strict=True)]  # fmt: skip
    assert [r.noise_floor for r in found] == pytest.approx([found[0].noise_floor] * 3, rel=1e-9)


class Coarse(nn.Module):
    """bfloat16 inside under autocast, float32 outside, with a fault if asked."""

    def __init__(self, fault=0.0):
        super().__init__()
        torch.manual_seed(1)
        self.radial = nn.Sequential(nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 16))
        self.mix, self.fault = nn.Linear(16, 1, bias=False), fault

    def forward(self, batch):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            apart = batch["pos"][:, None] - batch["pos"][:, :, None]
            pairs = self.radial(apart.norm(dim=-1, keepdim=True)).to(apart.dtype)
            forces = self.mix(torch.einsum("bijc,bijk->bikc", pairs, apart))[..., 0].float()
        return {"forces": forces + self.fault * forces.square().mean().sqrt()}


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_fault_of_a_percent_is_not_hidden_by_bfloat16(wrapped):
    torch.manual_seed(0)
    batches = [{"pos": torch.randn(16, 8, 3)} for _ in range(4)]

    def seen(fault):
        model = Coarse(fault)
        return eq.measure((lambda b: model(b)) if wrapped else model, batches,
                          inputs={"pos": "1o"}, outputs={"forces": "1o"})  # fmt: skip

    sound, broken = seen(0.0), seen(0.05)
    assert not sound.distinguishable
    assert broken.distinguishable
    # The floor is of the size of what is seen, not ninety times it.
    assert sound.equivariance / 3 < sound.noise_floor < 10 * sound.equivariance


@pytest.mark.parametrize("loss", ["l1", "huber", "l2_norm"])
def test_the_floor_of_other_losses_is_positive_and_hides_no_fault(loss):
    batches = [b | {"y": torch.ones_like(b["pos"])} for b in sized_batches(0, torch.float64, 32, 0.0)]
    arguments = dict(target="y", loss=loss, cosets=4)
    sound = of_sized(Sized().double(), batches, **arguments)
    assert sound.noise_floor > 0
    assert not sound.distinguishable
    assert of_sized(Sized(fault=1e-10).double(), batches, **arguments).distinguishable


def test_floors_are_pooled_relative_to_the_output():
    nan = math.nan
    floors = np.array([[2.0, 1.0, 100.0, 4.0, 0.0], [nan] * 5, [4.0, 3.0, 300.0, 8.0, 0.0], [9.0, 9.0, 9.0, 2.0, 0.5]])
    found = pooled(floors, np.array([1.0, 1.0, 2.0, 1.0]), np.array([5, 1, 4, 3], dtype=np.uint64), 9)
    assert found.checked.tolist() == [0, 2, 3]
    # The last one jumps and lends nothing.
    assert found.rounding == pytest.approx((1 * 1 + 2 * 3) / (1 * 100 + 2 * 300))
    assert found.loss == pytest.approx((1 * 2 + 2 * 4) / (1 * 100 + 2 * 300))
    # Of shares 1 and 6 with 4 and 8 degrees of freedom.
    assert found.freedom == pytest.approx(49 / (1 / 4 + 36 / 8))
    assert found.jumped.tolist() == [3]
    assert found.jump == pytest.approx(math.sqrt(0.5 / 9))
    # Only the two smallest keys among those that have a floor.
    assert pooled(floors, np.ones(4), np.array([5, 1, 4, 3], dtype=np.uint64), 2).checked.tolist() == [2, 3]
    # A loss whose estimate is negative has no negative floor.
    assert pooled(np.array([[-1.0, 1.0, 2.0, 3.0, 0.0]]), np.ones(1), np.zeros(1, dtype=np.uint64), 1).loss == 0


# The answer as given.


def test_a_sample_stands_apart_beyond_what_a_function_reaches():
    spread = np.ones(3)
    found = stands_apart(np.array([82.9, 83.1, 1e9]), spread, np.array([0.0, 0.0, 1e8]), 24)
    assert found.tolist() == [False, True, False]
    # Two passes tell little: F(0.999) of 1 and 1 degrees of freedom is 405284, times 3/2.
    assert stands_apart(np.array([6.07e5, 6.09e5]), np.ones(2), np.zeros(2), 2).tolist() == [False, False]
    assert stands_apart(np.array([6.09e5]), np.ones(1), np.zeros(1), 2).tolist() == [True]
    # As little where 24 are worth two, unless it is rounding that is known better.
    few = stands_apart(np.array([4e4, 4e4]), np.ones(2), np.array([0.0, 2.0]), 24, np.array([2.0, 2.0]))
    assert few.tolist() == [False, True]


@pytest.mark.parametrize(("rotations", "cosets"), [("T", 2), ("O", 2), ("T", 4), ("T", 1.25), ("O", 1.5), ("haar", 10)])
def test_errors_that_a_set_of_rotations_keeps_whole_are_no_singular_orientations(rotations, cosets):
    """sum x^4 is the same under all of T and O: the passes of a coset are one, and two cosets are few."""
    pos = torch.randn(400, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batch, energies = {"pos": pos, "id": torch.arange(400)}, {"e": eq.Output("0e", per="sample")}
    quartic = lambda b: {"e": (b["pos"] ** 4).sum((1, 2))}  # noqa: E731
    settings = dict(inputs={"pos": "1o"}, outputs=energies, rotations=rotations, cosets=cosets)
    result = eq.measure(quartic, [batch], **settings)
    assert result.outputs["e"].as_given_apart == 0
    given = lambda b: (b["pos"] == pos[b["id"]]).all((1, 2))  # noqa: E731
    spurious = lambda b: {"e": quartic(b)["e"] + 1e9 * given(b)}  # noqa: E731
    found = eq.measure(spurious, [batch], **settings)
    assert found.outputs["e"].as_given_apart > 10
    exact = lambda b: {"e": (b["pos"] ** 2).sum((1, 2)) * (1 + 1e-3 * given(b))}  # noqa: E731
    assert eq.measure(exact, [batch], **settings).outputs["e"].as_given_apart == 400
    if isinstance(cosets, int):
        declared = eq.Declaration({"pos": "1o"}, energies)
        with pytest.raises(AssertionError, match="e") as caught:
            eq.testing.assert_equivariant(quartic, [batch], declared, rotations=rotations)
        assert "stands apart" not in str(caught.value)


def test_frames_of_principal_axes_round_with_tails():
    """An exact model, whose singular vectors are ten times less exact in one of a hundred orientations."""

    def framed(b):
        centred = b["pos"] - b["pos"].mean(1, keepdim=True)
        axes = torch.linalg.svd(centred, full_matrices=False)[2]
        inner = centred @ axes.mT
        signs = (inner**3).sum(1, keepdim=True).sign()
        return {"f": (torch.tanh(inner * signs @ mixing.to(inner)) * signs) @ axes}

    generator = torch.Generator().manual_seed(1)
    pos, mixing = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((300, 4, 3), (3, 3)))
    for given in (pos, pos.float()):
        result = eq.measure(framed, [{"pos": given}], inputs={"pos": "1o"}, outputs={"f": "1o"})
        assert result.outputs["f"].as_given_apart == 0
        assert result.relative_equivariance < 100 * torch.finfo(given.dtype).eps ** 2


def aligned(x, size, axis=1):
    """A spurious force on atoms with a bond exactly along an axis."""
    apart = x[:, None] - x[:, :, None]
    others = [k for k in range(3) if k != axis]
    along = (apart[..., others].abs().sum(-1) < 1e-9) & (apart[..., axis].abs() > 1e-9)
    return size * along.any(2)[..., None] * torch.tensor([1.0, 0, 0], dtype=x.dtype)


@pytest.mark.parametrize("cosets", [2, 1.5])
@pytest.mark.parametrize("size", [1.0, 1e-5, math.nan])
def test_a_spurious_answer_as_given_is_named(size, cosets):
    # A fault far above the floor, or none.
    faint = 1e-9 if size == 1e-5 else 0
    data = random_batch(40, 3)
    data["pos"][37, 1] = data["pos"][37, 0] + torch.tensor([0, 1.2, 0])

    def model(batch):
        x = batch["pos"]
        extra = aligned(x, size).nan_to_num(nan=0.0) if not math.isnan(size) else torch.where(
            aligned(x, 1.0) > 0, math.nan, 0.0)  # fmt: skip
        return {"forces": x * torch.tanh(x.square().sum(-1, keepdim=True)) + faint * x[..., [1, 0, 2]] + extra}

    batches = [{k: v[i : i + 20] for k, v in data.items()} for i in (0, 20)]
    if math.isnan(size):
        with pytest.raises(NonFiniteError, match=r"as given.*ids \[37\]"):
            eq.measure(model, batches, cosets=cosets, **SHORT)
        return
    result = eq.measure(model, batches, cosets=cosets, **SHORT)
    (note,) = [n for n in result.notes if "stands apart" in n]
    assert "for 1 of 40 samples (ids [37])" in note
    assert result.outputs["forces"].as_given_apart == 1
    assert result.distinguishable


def test_the_deviation_as_given_is_from_the_twirled_prediction():
    # A constant vector c is twirled away: |c|^2 / 3 of each component is the deviation, and the variance.
    result = eq.measure(lambda b: {"forces": torch.ones_like(b["pos"])}, [random_batch(8)], cosets=40, **SHORT)
    own = result.outputs["forces"]
    assert own.as_given_deviation == pytest.approx(1, rel=0.1)
    assert own.as_given_apart == 0
    assert not any("stands apart" in n for n in result.notes)
