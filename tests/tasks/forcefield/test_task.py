"""The force-field task: batches as functions of (seed, step), augmentation, probes, and refusals."""

import pytest
import torch

import equiscope as eq
from equiscope.errors import InputError
from equiscope.tasks import build
from equiscope.tasks.datasets import store
from equiscope.tasks.datasets.chemistry import Molecule
from equiscope.tasks.forcefield.frames import sample_molecule
from equiscope.tasks.forcefield.generate import ForceFieldData
from equiscope.tasks.forcefield.task import ForceFieldLoss
from equiscope.tasks.molecules.recipe import join

MOLECULES = ["CO", "CCO", "C=O", "CN", "CF", "CC", "CCC", "CC=O", "O", "N"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    made = [sample_molecule(Molecule(i, s), 4, seed=0).arrays() for i, s in enumerate(MOLECULES)]
    metadata = {
        "format": ForceFieldData.FORMAT,
        "format_version": ForceFieldData.FORMAT_VERSION,
        "config": ForceFieldData().content(),
        "source": {},
        "method": "GFN2-xTB (tblite)",
        "versions": {},
        "counts": {},
    }
    return str(store.write(tmp_path_factory.mktemp("data") / "set.npz", join(made, "frames"), metadata))


def _config(path, **changes):
    made = {
        "task": "forcefield",
        "seed": 0,
        "augment": True,
        "batch_size": 6,
        "data": {"path": path, "track_frames": 3, "probe_batch": 2},
        "model": {"name": "edge_transformer", "size": "nano"},
        "loss": {"name": "squared", "forces": 1.0, "energy": 0.01},
    }
    made.update(changes)
    return made


@pytest.fixture
def task(path):
    made = build(_config(path))
    made.prepare(progress=False)
    return made


def _same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_batches_are_functions_of_seed_and_step(path, task):
    again = build(_config(path))
    again.prepare(progress=False)
    steps = [7, 0, 3, 7, 12]
    assert all(_same(task.training_batch(s), again.training_batch(s)) for s in reversed(steps))
    other = build(_config(path, seed=1))
    other.prepare(progress=False)
    assert not torch.equal(task.training_batch(0)["id"], other.training_batch(0)["id"])


def test_every_pass_shows_every_frame_once(task):
    train = len(task._order.items)
    ids = torch.cat([task.training_batch(s)["id"] for s in range(2 * train // 6 + 1)])
    first, second = ids[:train], ids[train : 2 * train]
    assert sorted(first.tolist()) == sorted(second.tolist()) == sorted(task._order.items.tolist())
    assert first.tolist() != second.tolist()


def test_augmentation_turns_positions_and_forces_alike(path, task):
    plain = build(_config(path, augment=False))
    plain.prepare(progress=False)
    turned, given = task.training_batch(2), plain.training_batch(2)
    assert torch.equal(turned["id"], given["id"])
    for i in range(6):
        mask = given["mask"][i]
        both = [torch.cat([b["pos"][i][mask], b["forces"][i][mask]]).double() for b in (given, turned)]
        u, _, v = torch.linalg.svd(both[0].T @ both[1])
        rotation = v.T @ torch.diag(torch.tensor([1.0, 1.0, torch.linalg.det(u @ v)], dtype=torch.float64)) @ u.T
        assert torch.allclose(both[0] @ rotation.T, both[1], atol=1e-5)
        assert not torch.allclose(both[0], both[1], atol=1e-2)
    assert not torch.equal(task.training_batch(2)["pos"], task.training_batch(2 + 5 * len(task._order.items))["pos"])


def test_weights_follow_the_seed_and_leave_the_random_state(path, task):
    state = torch.get_rng_state()
    first, second = task.build_model(), task.build_model()
    assert torch.equal(state, torch.get_rng_state())
    assert _same(first.state_dict(), second.state_dict())
    assert not _same(first.state_dict(), build(_config(path, seed=1)).build_model().state_dict())


def test_probes_are_apart_from_training_and_each_other(task):
    frames = task.data
    molecules = {"train": set(frames.molecule[task._order.items].tolist())}
    for part in ("track", "final"):
        (probe,) = task.probes(part)
        assert probe.headline
        assert probe.name == "forces"
        molecules[part] = {int(m) for batch in probe.batches for m in batch["molecule"]}
    assert not molecules["train"] & molecules["track"]
    assert not molecules["train"] & molecules["final"]
    assert not molecules["track"] & molecules["final"]
    assert [len(batch["id"]) for batch in task.probes("track")[0].batches] == [2, 1]


def test_probe_is_measured(task):
    (probe,) = task.probes("track")
    model = task.build_model()
    result = eq.measure(model, probe.batches, declaration=probe.declaration)
    assert result.samples == 3
    assert 0 < result.percent < 100
    assert "energy" in result.held_fixed


def test_loss_is_standardised_and_trains(task):
    batch, model = task.training_batch(0), task.build_model()
    zero = lambda b: {name: torch.zeros_like(b[name]) for name in ("forces", "energy")}  # noqa: E731
    parts = [task.training_loss(zero, task.training_batch(step)) for step in range(len(task._order.items))]
    assert sum(float(p["energy"]) for p in parts) / len(parts) == pytest.approx(1.0, abs=1e-4)
    loss = task.training_loss(model, batch)["loss"]
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("factor", [0.0, 3.0])
def test_labels_are_scaled_everywhere_and_the_loss_is_not(path, task, factor):
    data = {"path": path, "track_frames": 3, "probe_batch": 2, "labels": factor}
    scaled = build(_config(path, data=data))
    scaled.prepare(progress=False)
    pairs = [(task.training_batch(2), scaled.training_batch(2))]
    pairs += zip(*(one.probes("track")[0].batches for one in (task, scaled)), strict=True)
    for plain, other in pairs:
        for name in plain:
            due = factor * plain[name] if name in ("forces", "energy") else plain[name]
            torch.testing.assert_close(other[name], due)
    batch, net = scaled.training_batch(0), scaled.build_model()
    assert torch.equal(task.training_loss(net, batch)["loss"], scaled.training_loss(net, batch)["loss"])
    with pytest.raises(InputError, match=r"data\.labels must be at least 0, got -1"):
        build(_config(path, data={**data, "labels": -1.0}))


def test_fewer_training_frames(path):
    task = build(_config(path, data={"path": path, "train_frames": 8}))
    task.prepare(progress=False)
    ids = torch.cat([task.training_batch(s)["id"] for s in range(8)])
    assert len(set(ids.tolist())) == 8
    assert len(set(task.data.molecule[ids].tolist())) == 8
    assert task.describe()["used"]["train"] == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "transformer"}}, r"model\.name must be one of edge_transformer, .* got 'transformer'"),
        ({"model": {"name": "escaip", "size": "9M"}}, "no size '9M'"),
        ({"loss": {"name": "l3", "forces": 1.0, "energy": 1.0}}, r"loss\.name"),
        ({"augment": 1.5}, "augment"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"data": {"frame": 10}}, r"unknown data settings \['frame'\]"),
    ],
)
def test_refusals_before_any_data_is_made(changes, message):
    with pytest.raises(InputError, match=message):
        build(_config("nowhere.npz", **changes))


def test_unprepared_task_says_so(path):
    with pytest.raises(InputError, match="prepare"):
        build(_config(path)).training_batch(0)


def _case(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mask = torch.tensor([[True, True, True], [True, False, False]])
    batch = {"forces": draw(2, 3, 3), "energy": draw(2), "mask": mask}
    return {"forces": draw(2, 3, 3), "energy": draw(2)}, batch


def test_squared():
    answer, batch = _case()
    found = ForceFieldLoss("squared", forces=2.0, energy=0.5, force_scale=1.5, energy_scale=3.0)(answer, batch)
    error = (answer["forces"] - batch["forces"]) / 1.5
    first = sum(float(error[0, i, c]) ** 2 for i in range(3) for c in range(3)) / 9
    second = sum(float(error[1, 0, c]) ** 2 for c in range(3)) / 3
    energy = float((((answer["energy"] - batch["energy"]) / 3.0) ** 2).mean())
    assert float(found["forces"]) == pytest.approx((first + second) / 2, abs=1e-12)
    assert float(found["energy"]) == pytest.approx(energy, abs=1e-12)
    assert float(found["loss"]) == pytest.approx(first + second + 0.5 * energy, abs=1e-12)


def test_escaip():
    answer, batch = _case()
    found = ForceFieldLoss("escaip", forces=100.0, energy=4.0, force_scale=2.0, energy_scale=0.5)(answer, batch)
    lengths = [
        float((answer["forces"] - batch["forces"])[s, i].norm()) / 2 for s, i in ((0, 0), (0, 1), (0, 2), (1, 0))
    ]
    energy = float((answer["energy"] - batch["energy"]).abs().mean()) / 0.5
    assert float(found["loss"]) == pytest.approx(100 * sum(lengths) / 4 + 4 * energy, rel=1e-12)


@pytest.mark.parametrize("name", ["squared", "escaip"])
def test_padding_does_not_leak(name):
    answer, batch = _case()
    answer["forces"].requires_grad_(True)
    loss = ForceFieldLoss(name, forces=1.0, energy=1.0)
    before = loss(answer, batch)["loss"]
    batch["forces"][~batch["mask"]] = torch.nan
    after = loss(answer, batch)["loss"]
    after.backward()
    assert torch.equal(after, before)
    assert torch.isfinite(answer["forces"].grad).all()
    assert not answer["forces"].grad[~batch["mask"]].any()


@pytest.mark.parametrize("name", ["squared", "escaip"])
def test_gradient_is_finite_at_a_perfect_prediction(name):
    _, batch = _case()
    answer = {key: batch[key].clone().requires_grad_(True) for key in ("forces", "energy")}
    ForceFieldLoss(name, forces=1.0, energy=1.0)(answer, batch)["loss"].backward()
    assert torch.isfinite(answer["forces"].grad).all()


def test_refusals():
    with pytest.raises(InputError, match=r"loss\.name must be one of squared, escaip, got 'l3'"):
        ForceFieldLoss("l3", 1.0, 1.0)
    with pytest.raises(InputError, match=r"loss\.energy"):
        ForceFieldLoss("squared", 1.0, -1.0)
