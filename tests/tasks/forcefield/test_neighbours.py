"""Neighbour lists: against brute force, symmetric, bounded in memory, blind to padding and other samples."""

import pytest
import torch

from equiscope.errors import InputError
from equiscope.tasks.forcefield import models, neighbours
from equiscope.tasks.seeded import few_sizes, lengthened
from tests.tasks.forcefield.molecules import random_batch

CUTOFF = 3.5


def brute_force(batch: dict, cutoff: float) -> set[tuple[int, int]]:
    """Pairs of places in the flattened batch, by two plain loops over each sample."""
    found = set()
    length = batch["mask"].shape[1]
    for sample, (pos, mask) in enumerate(zip(batch["pos"], batch["mask"], strict=True)):
        for i in range(length):
            for j in range(length):
                if i != j and mask[i] and mask[j] and (pos[i] - pos[j]).norm() < cutoff:
                    found.add((sample * length + i, sample * length + j))
    return found


def edges(batch: dict, **settings) -> tuple[neighbours.FlatAtoms, neighbours.Neighbours]:
    atoms = neighbours.flatten(batch)
    return atoms, neighbours.find(atoms, settings.pop("cutoff", CUTOFF), **settings)


@pytest.mark.parametrize("pad", [0.0, 999.0, float("nan")])
@pytest.mark.parametrize("pairs_at_once", [1, 7, 40, 1 << 20])
def test_edges_equal_brute_force(pad: float, pairs_at_once: int) -> None:
    batch = random_batch([9, 1, 14, 2, 14], pad=pad)
    batch["mask"][2, 3] = False  # padding may lie anywhere
    batch["pos"][2, 3] = pad
    atoms, found = edges(batch, pairs_at_once=pairs_at_once)
    pairs = list(zip(atoms.place[found.centre].tolist(), atoms.place[found.neighbour].tolist(), strict=True))
    assert pairs == sorted(brute_force(batch, CUTOFF))


def test_reverse_table_and_slots_agree_with_the_edges() -> None:
    atoms, found = edges(random_batch([9, 1, 14, 2]))
    assert torch.equal(found.centre[found.reverse], found.neighbour)
    assert torch.equal(found.neighbour[found.reverse], found.centre)
    number = torch.arange(len(found.centre))
    assert torch.equal(found.table.flatten()[found.slot], number)
    assert torch.equal(found.table[found.valid].sort().values, number)
    rows = torch.arange(len(atoms.sample))[:, None].expand_as(found.table)
    assert torch.equal(found.centre[found.table[found.valid]], rows[found.valid])


def test_positions_on_the_cutoff_stay_symmetric_in_float32() -> None:
    batch = random_batch([200] * 4, dtype=torch.float32)
    # Points of a lattice, shifted: many pairs lie within rounding of the cutoff.
    batch["pos"] = (batch["pos"] / 0.5).round() * 0.5 + 0.1
    _, found = edges(batch, cutoff=1.5)
    assert torch.equal(found.centre[found.reverse], found.neighbour)


def test_memory_is_bounded_for_a_large_molecule(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch([3000], dtype=torch.float32)
    batch["pos"] = batch["pos"] * 8
    largest = 0
    blocks = neighbours._blocks

    def watched(count: int, longest: int, limit: int) -> list:
        nonlocal largest
        made = blocks(count, longest, limit)
        largest = max((end - begin) * (high - low) for begin, end, low, high in made)
        return made

    monkeypatch.setattr(neighbours, "_blocks", watched)
    _, found = edges(batch, pairs_at_once=50_000)
    assert 0 < largest <= 50_000
    # Mean number of neighbours of a uniform density, less what the surface of the box cuts off.
    expected = 3000 * (3000 / 56**3) * 4 / 3 * torch.pi * CUTOFF**3
    assert 0.8 * expected < len(found.centre) < expected


def test_nearest_keeps_the_shortest() -> None:
    batch = random_batch([14, 3, 1])
    atoms, found = edges(batch, nearest=4)
    _, complete = edges(batch)
    assert found.reverse is None
    length = (atoms.pos[complete.centre] - atoms.pos[complete.neighbour]).norm(dim=1)
    for atom in range(len(atoms.sample)):
        own = complete.centre == atom
        expected = complete.neighbour[own][length[own].argsort()[:4]].sort().values
        assert torch.equal(found.neighbour[found.centre == atom], expected)


def test_a_single_atom_has_no_edges() -> None:
    _, found = edges(random_batch([1, 1]))
    assert len(found.centre) == 0
    assert found.table.shape == (2, 0)


def test_sums_and_padding_of_per_atom_values() -> None:
    batch = random_batch([2, 3])
    atoms = neighbours.flatten(batch)
    values = torch.arange(5.0)
    assert atoms.sum_samples(values).tolist() == [1.0, 9.0]
    assert atoms.pad(values).tolist() == [[0.0, 1.0, 0.0], [2.0, 3.0, 4.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.pop("species"), r"has no \['species'\]"),
        (lambda b: b.update(mask=b["mask"].float()), "must be boolean"),
        (lambda b: b.update(pos=b["pos"][:, :2]), r"\(2, 2, 3\)"),
        (lambda b: b["mask"][1].fill_(False), r"samples \[1\].*no atoms"),
    ],
)
def test_bad_batches_are_named(change, message: str) -> None:
    batch = random_batch([3, 3])
    change(batch)
    with pytest.raises(InputError, match=message):
        neighbours.flatten(batch)


@pytest.mark.parametrize("settings", [{"cutoff": 0.0}, {"cutoff": float("nan")}, {"nearest": 0}])
def test_impossible_settings_are_refused(settings: dict) -> None:
    with pytest.raises(InputError, match="must be"):
        edges(random_batch([3]), **settings)


@pytest.mark.parametrize(("name", "settings"), [("edge_transformer", {}), ("escaip", {}), ("escaip", {"nearest": 3})])
@pytest.mark.parametrize("padded", [False, True])
def test_a_prepared_batch_gives_what_the_plain_one_does(name, settings, padded):
    """Values, and gradients of every weight, in float64; the shapes of the padded one are few."""
    torch.manual_seed(0)
    model = models.build(name, "nano", **settings).double()
    batch = _uneven(5, 13)
    made = neighbours.prepared(lengthened(batch) if padded else batch, 5.0, settings.get("nearest"), padded)
    found, due = model(made), model(batch)
    assert torch.allclose(found["energy"], due["energy"], rtol=1e-12, atol=1e-13)
    assert torch.allclose(found["forces"][:, :13], due["forces"], rtol=1e-12, atol=1e-13)
    assert not found["forces"][:, 13:].any()
    weights = list(model.parameters())
    grads = [torch.autograd.grad(sum(v.square().sum() for v in out.values()), weights) for out in (found, due)]
    for mine, theirs in zip(*grads, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-12)
    if padded:
        assert all(len(v) == few_sizes(len(v)) for k, v in made.items() if k.startswith(("atoms.", "edges.")))


def test_few_sizes_are_few_and_close():
    sizes = [few_sizes(count) for count in range(1, 10_000)]
    assert all(count <= size <= max(count, 9 / 8 * count) for count, size in enumerate(sizes, 1))
    # Eight to an octave, from eight on: 7 + 8 · log2(10,000 / 8) at most.
    assert len(set(sizes)) <= 7 + 8 * 11


def _uneven(samples, length):
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(length) < torch.randint(2, length + 1, (samples,), generator=generator)[:, None]
    pos = 2 * torch.randn(samples, length, 3, generator=generator, dtype=torch.float64)
    # What stands in the padding is never read.
    species = torch.where(mask, torch.randint(6, 9, (samples, length), generator=generator), 99)
    return {"pos": torch.where(mask[..., None], pos, torch.nan), "species": species, "mask": mask}
