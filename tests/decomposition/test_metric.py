"""The torchmetrics metric: the same figures as ``measure`` however the samples are batched, sharded or repeated."""

import dataclasses
import math
import os
import pickle
import runpy
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import DistributedSampler

import equiscope as eq
from equiscope.decomposition.metric import EquivarianceError
from equiscope.errors import InputError, RandomModelError

SAMPLES, ATOMS = 23, 5
# The noise floor is rounding itself, which differs between batches; the number of calls counts batches.
VARYING = ("model_calls", "noise_floor", "noise_floor_percent")


class Net(nn.Module):
    """A force model that is nearly equivariant: a symmetric pair force and a small coordinate network."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.mlp = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 3)).double()

    def forward(self, batch):
        pos, real = batch["pos"], batch["mask"]
        centred = pos - (pos * real[..., None]).sum(1, keepdim=True) / real.sum(1)[:, None, None]
        forces = -centred + 0.3 * self.mlp(centred)
        return {"forces": torch.where(real[..., None], forces, 0.0)}


class EnergyNet(nn.Module):
    """Gradient forces, so that the metric must work with autograd."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.mlp = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1)).double()

    def forward(self, batch):
        pos = batch["pos"].requires_grad_()
        energy = (self.mlp(pos)[..., 0] * batch["mask"]).sum(1)
        (gradient,) = torch.autograd.grad(energy.sum(), pos)
        return {"energy": energy.detach(), "forces": -gradient}


def dataset(samples=SAMPLES, seed=5):
    g = torch.Generator().manual_seed(seed)
    pos = torch.randn(samples, ATOMS, 3, generator=g, dtype=torch.float64)
    mask = torch.arange(ATOMS)[None] < torch.randint(2, ATOMS + 1, (samples, 1), generator=g)
    forces = -pos + 0.5 * torch.randn(samples, ATOMS, 3, generator=g, dtype=torch.float64)
    forces = torch.where(mask[..., None], forces, 0.0)
    ids = torch.arange(samples) * 7 + 3
    energy = forces.square().sum((1, 2))
    return {"pos": pos, "mask": mask, "forces": forces, "id": ids, "molecule": ids % 4, "energy": energy}


def take(data, rows):
    return {k: v[torch.as_tensor(list(rows), dtype=torch.int64)] for k, v in data.items()}


def batches(data, rows, size):
    rows = list(rows)
    return [take(data, rows[i : i + size]) for i in range(0, len(rows), size)]


def declaration(**changes):
    settings = {"fixed": ("energy",), "clusters": "molecule", "ids": "id", "mask": "mask"} | changes
    output = eq.Output("1o", target="forces", loss=settings.pop("loss", "mse"))
    return eq.Declaration(inputs={"pos": "1o"}, outputs={"forces": output}, **settings)


def fed(metric, model, given):
    for batch in given:
        metric.update(model, batch)
    return metric


def assert_same(a, b, tolerance=1e-12, skip=("model_calls",)):
    """Every figure of two results agrees; notes, counts and names are equal."""
    for name, x in _numbers(a.to_dict()):
        if name.split(".")[-1] in skip:
            continue
        y = dict(_numbers(b.to_dict()))[name]
        if isinstance(x, float) and isinstance(y, float):
            both_nan = math.isnan(x) and math.isnan(y)
            assert both_nan or math.isclose(x, y, rel_tol=tolerance, abs_tol=1e-300), (name, x, y)
        else:
            assert x == y, name


def _numbers(value, path=""):
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _numbers(part, f"{path}.{key}")
    elif isinstance(value, list):
        for i, part in enumerate(value):
            yield from _numbers(part, f"{path}.{i}")
    else:
        yield path, value


def test_agrees_with_measure_in_other_batches():
    data, model = dataset(), Net()
    expected = eq.measure(model, batches(data, range(SAMPLES), 23), declaration(), noise_samples=100)
    metric = fed(EquivarianceError(declaration(), noise_samples=100), model, batches(data, reversed(range(SAMPLES)), 4))
    percent = metric.compute()
    assert percent.dtype == torch.float64
    assert 0.1 < float(percent) < 50
    assert math.isclose(float(percent), expected.percent, rel_tol=1e-12)
    assert_same(metric.result(), expected, skip=VARYING)
    assert metric.result().noise_floor == pytest.approx(expected.noise_floor, rel=0.5, abs=0)


@pytest.mark.parametrize("loss", ["l2_norm", "l1", "huber"])
def test_other_losses_have_the_skill_of_measure(loss):
    data, model, chosen = dataset(), Net(), declaration(loss=loss)
    expected = eq.measure(model, batches(data, range(SAMPLES), 6), chosen, cosets=4, rotations="D2")
    metric = EquivarianceError(chosen, cosets=4, rotations="D2")
    given = batches(data, reversed(range(SAMPLES)), 6)
    result = fed(metric, model, [*given, given[0]]).result()
    assert result.loss == loss
    assert result.r2 == pytest.approx(expected.r2, rel=1e-12)
    assert result.percent == pytest.approx(expected.percent, rel=1e-12)


def test_integer_labels():
    data = dataset()
    data["kind"] = (data["pos"][..., 0].mean(1) > 0).long()

    def model(batch):
        size = batch["pos"].norm(dim=-1).mean(1) + 0.3 * batch["pos"][:, 0, 0]
        return {"logits": torch.stack([size, -size], dim=-1)}

    output = eq.Output("2x0e", target="kind", loss="cross_entropy_probabilities", per="sample")
    chosen = eq.Declaration({"pos": "1o"}, {"logits": output}, fixed=("energy", "forces"), ids="id")
    expected = eq.measure(model, batches(data, range(SAMPLES), 6), chosen, cosets=4, rotations="D2")
    metric = EquivarianceError(chosen, cosets=4, rotations="D2")
    assert_same(fed(metric, model, batches(data, range(SAMPLES), 5)).result(), expected, 1e-10, skip=VARYING)


def test_a_callable_loss():
    def mean_norm(prediction, target):
        return (prediction - target).norm(dim=-1).mean(dim=1)

    data, model, chosen = dataset(), Net(), declaration(loss=mean_norm)
    expected = eq.measure(model, batches(data, range(SAMPLES), 6), chosen, cosets=4, rotations="D2")
    metric = EquivarianceError(chosen, cosets=4, rotations="D2")
    result = fed(metric, model, batches(data, range(SAMPLES), 5)).result()
    assert result.loss == "mean_norm"
    # A user's loss acts on whole tensors, which a table of figures does not keep: only measure knows its skill.
    assert math.isnan(result.r2)
    assert -10 < expected.r2 < 1
    assert any(n.startswith("skill unknown: the loss of the best constant answer is not known") for n in result.notes)
    expected, result = (
        dataclasses.replace(r, notes=tuple(n for n in r.notes if "best constant" not in n)) for r in (expected, result)
    )
    assert_same(result, expected, 1e-10, skip=(*VARYING, "r2"))


def test_the_floor_is_that_of_measure_in_other_batches_and_another_order():
    class Scaled(nn.Module):
        """Number by number, so that no sample's rounding depends on its neighbours in the batch."""

        def forward(self, batch):
            return batch["pos"] * (1.0 + batch["pos"].square().sum(-1, keepdim=True))

    data, model, chosen = dataset(), Scaled(), declaration()
    expected = eq.measure(model, batches(data, range(SAMPLES), 23), chosen).noise_floor
    metric = fed(EquivarianceError(chosen), model, batches(data, reversed(range(SAMPLES)), 4))
    assert metric.result().noise_floor == pytest.approx(expected, rel=1e-9, abs=0)
    metric.reset()
    assert metric.rounding is None


def test_several_outputs_without_points_and_without_labels():
    data, model = dataset(), EnergyNet()
    outputs = {"energy": eq.Output("0e", target="energy", per="sample", weight=0.1), "forces": eq.Output("1o")}
    chosen = eq.Declaration(
        {"pos": eq.Input("1o", points=False)}, outputs, mask="mask", ids="id", fixed=("forces",), weighting="component"
    )
    expected = eq.measure(model, batches(data, range(SAMPLES), 23), chosen)
    with torch.inference_mode():
        result = fed(EquivarianceError(chosen), model, batches(data, range(SAMPLES), 7)).result()
    assert result.orientation is None
    assert_same(result, expected, 1e-10, skip=VARYING)


def test_padded_duplicates_count_once():
    data, model = dataset(), Net()
    once = fed(EquivarianceError(declaration()), model, batches(data, range(SAMPLES), 6)).result()
    twice = fed(EquivarianceError(declaration()), model, batches(data, [*range(SAMPLES), 0, 5, 0], 6)).result()
    assert twice.samples == SAMPLES
    assert_same(twice, once, skip=VARYING)


def test_two_samples_with_one_id_are_refused():
    data, model = dataset(), Net()
    data["id"][4] = data["id"][2]
    metric = fed(EquivarianceError(declaration()), model, batches(data, range(SAMPLES), 6))
    with pytest.raises(InputError, match=r"ids \[17\].*two different samples share an id; field 'id'"):
        metric.compute()


def test_a_model_that_changed_between_updates_is_refused():
    data, model = dataset(), Net()
    metric = fed(EquivarianceError(declaration()), model, batches(data, range(SAMPLES), 6))
    fed(metric, Net(seed=2), batches(data, range(6), 6))
    with pytest.raises(InputError, match="model changed between updates; call reset"):
        metric.compute()
    metric.reset()
    again = fed(metric, Net(seed=2), batches(data, range(6), 6)).result()
    assert again.samples == 6
    assert again.percent == eq.measure(Net(seed=2), [take(data, range(6))], declaration()).percent


def test_positions_serve_as_ids_in_one_process():
    data, model = dataset(), Net()
    chosen = declaration(ids=None)
    expected = eq.measure(model, batches(data, range(SAMPLES), 6), chosen)
    whole = fed(EquivarianceError(chosen), model, batches(data, range(SAMPLES), 6))
    assert_same(whole.result(), expected)
    metric = EquivarianceError(chosen)
    for start in (12, 0, 18, 6):
        metric.update(model, take(data, range(start, min(start + 6, SAMPLES))), first_id=start)
    assert float(metric.compute()) == pytest.approx(expected.percent, rel=1e-12)


def test_forward_returns_the_batch_and_adds_it():
    data, model = dataset(), Net()
    chosen = declaration(ids=None)
    given = batches(data, range(SAMPLES), 6)
    metric = EquivarianceError(chosen)
    values, sofar = [], []
    for batch in given:
        values.append(float(metric(model, batch)))
        sofar.append(float(metric.compute()))
    assert len(set(sofar)) == len(sofar)
    assert values[0] == pytest.approx(eq.measure(model, given[:1], chosen).percent, rel=1e-12)
    assert float(metric.compute()) == pytest.approx(eq.measure(model, given, chosen).percent, rel=1e-12)
    assert len(set(values)) == len(values)


def test_reset_clone_and_pickle():
    data, model = dataset(), Net()
    given = batches(data, range(SAMPLES), 6)
    metric = fed(EquivarianceError(declaration()), model, given[:2])
    half = float(metric.compute())
    copies = [metric.clone(), pickle.loads(pickle.dumps(metric))]
    whole = float(fed(metric, model, given[2:]).compute())
    assert whole != half
    for copy in copies:
        assert float(copy.compute()) == half
        assert copy.result().samples == 12
        assert float(fed(copy, model, given[2:]).compute()) == whole
    calls = metric.result().model_calls
    metric.reset()
    assert float(fed(metric, model, given).compute()) == whole
    assert metric.result().model_calls == calls
    assert metric.result().noise_floor > 0


def test_model_is_left_alone_and_random_models_are_refused():
    data, model = dataset(), Net().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    fed(EquivarianceError(declaration()), model, batches(data, range(6), 3))
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(RandomModelError):
        EquivarianceError(declaration()).update(lambda b: {"forces": torch.randn_like(b["pos"])}, take(data, range(3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cosets": 1}, "cosets=1 is too few"),
        ({"cosets": 2, "declaration": declaration(loss="l1")}, "l1 needs at least 4"),
        ({"noise_samples": -1}, "noise_samples"),
        ({"declaration": None}, "say what rotates"),
        ({"inputs": {"pos": "1o"}}, "not both"),
        ({"rotations": "C5"}, "unknown rotations 'C5'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        EquivarianceError(**({"declaration": declaration()} | arguments))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_measured():
    with pytest.raises(InputError, match="nothing was measured"):
        EquivarianceError(declaration()).compute()


def test_without_torchmetrics_the_extra_is_named(monkeypatch):
    source = sys.modules[EquivarianceError.__module__].__file__
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(ImportError, match=r"pip install equiscope\[lightning\]"):
        runpy.run_path(source)


# Uneven on purpose: a process with one sample, one with none, clusters (id % 4) that straddle all of them.
UNEVEN = {
    1: [list(range(SAMPLES))],
    2: [list(range(0, 19)), list(range(19, SAMPLES))],
    4: [list(range(0, 15)), [15], [], list(range(16, SAMPLES))],
}


def padded(count, rank):
    sampler = DistributedSampler(range(SAMPLES), num_replicas=count, rank=rank, shuffle=True, seed=3)
    return list(sampler)


def worker(rank, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=4)
    data, model, out = dataset(), Net(), {}
    groups = {n: torch.distributed.new_group(list(range(n))) for n in (1, 2, 4)}
    for count, group in groups.items():
        if rank >= count:
            continue
        for kind, rows in (("uneven", UNEVEN[count][rank]), ("padded", padded(count, rank))):
            for loss, cosets in (("mse", 2), ("l2_norm", 4)):
                metric = EquivarianceError(
                    declaration(loss=loss), cosets=cosets, rotations="D2", metric_arguments={"process_group": group}
                )
                fed(metric, model, batches(data, rows, 4))
                percent = float(metric.compute())
                local = sum(len(part) for part in metric.ids)
                out[count, kind, loss] = (percent, metric.result(), local)
    try:
        EquivarianceError(declaration(ids=None)).update(model, take(data, range(3)))
    except InputError as error:
        out["without ids"] = str(error)
    torch.save(out, f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_one_two_and_four_processes_agree(tmp_path, free_port):
    # A fork server imports the library once for all four processes.
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload(["equiscope.decomposition.metric"])
    arguments = (free_port, str(tmp_path))
    torch.multiprocessing.start_processes(worker, args=arguments, nprocs=4, start_method="forkserver")
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(4)]
    data = dataset()
    for loss, cosets in (("mse", 2), ("l2_norm", 4)):
        given = batches(data, range(SAMPLES), 23)
        expected = eq.measure(Net(), given, declaration(loss=loss), cosets=cosets, rotations="D2")
        for kind in ("uneven", "padded"):
            for count in (1, 2, 4):
                for rank in range(count):
                    percent, result, _ = ranks[rank][count, kind, loss]
                    where = (loss, kind, count, rank)
                    assert math.isclose(percent, expected.percent, rel_tol=1e-12), where
                    assert (result.samples, result.clusters) == (SAMPLES, 4), where
                    assert_same(result, expected, 1e-11, skip=VARYING)
    # Gathering leaves each process with its own shard.
    assert [ranks[r][4, "uneven", "mse"][2] for r in range(4)] == [15, 1, 0, 7]
    assert sum(ranks[r][4, "padded", "mse"][2] for r in range(4)) == 24
    assert "declare ids" in ranks[0]["without ids"]


@pytest.fixture
def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_declaration_is_not_changed():
    chosen = declaration()
    copy = dataclasses.replace(chosen)
    EquivarianceError(chosen)
    assert chosen == copy


@pytest.mark.parametrize("loss", ["mse", "l1", "l2_norm"])
def test_conformers_that_share_an_id_are_not_dropped(loss):
    """Their energies agree to a hundredth, and so do those of the model."""
    pos = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = {"pos": pos, "energy": -1e3 + pos[..., 0].sum(1), "molecule": torch.arange(6) // 3}
    energies = {"energy": eq.Output("0e", target="energy", per="sample", loss=loss)}
    metric = EquivarianceError(inputs={"pos": "1o"}, outputs=energies, ids="molecule")
    metric.update(lambda batch: {"energy": -1e3 + batch["pos"][..., 1].sum(1)}, batch)
    with pytest.raises(InputError, match="two different samples share an id; field 'molecule' must identify samples"):
        metric.compute()


def test_names_of_clusters_are_of_any_size_and_positions_are_none_below_zero():
    batch = {"pos": torch.randn(6, 4, 3).double(), "y": torch.randn(6, 4, 3).double()}
    made = [
        EquivarianceError(inputs={"pos": "1o"}, outputs={"f": "1o"}, target="y", clusters="c") for _ in range(2)
    ]
    for metric, names in zip(made, ([2**63 + i // 2 for i in range(6)], ["a", "a", "b", "b", "c", "c"]), strict=True):
        metric.update(lambda b: b["pos"] ** 2, batch | {"c": names})
    a, b = (metric.result() for metric in made)
    assert (a.clusters, a.percent_interval) == (3, b.percent_interval)
    with pytest.raises(InputError, match="first_id must be an integer >= 0, got -1"):
        made[0].update(lambda b: b["pos"], batch | {"c": [0] * 6}, first_id=-1)


def test_what_was_called_by_names_is_pickled():
    batch = {"pos": torch.randn(6, 4, 3).double(), "y": torch.randn(6, 4, 3).double()}
    declared = dict(inputs={"pos": "1o"}, outputs={"f": "1o"})
    metric = EquivarianceError(**declared, target="y")
    metric.update(nn.Softplus(), batch)
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()
    twirled = eq.Twirled(nn.Softplus(), **declared)
    wanted = twirled(batch)["f"]
    assert torch.equal(pickle.loads(pickle.dumps(twirled))(batch)["f"], wanted)
