"""Training steps on a device: nothing waits for it, batches come ahead, compiled steps and those of other precision.

On the processor in the suite where that means something; ``make gpu`` runs the same on a card.
"""

import contextlib
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from equiscope import records
from equiscope.errors import InputError, RunError
from equiscope.runs import train as runs
from equiscope.runs.checkpoint import load
from equiscope.runs.config import configuration
from equiscope.runs.module import Ahead, Steps, arrange, build_optimizer, compiled, update_average
from equiscope.tasks import build
from equiscope.tasks.forcefield import models, neighbours
from equiscope.tasks.forcefield.task import ForceFieldLoss
from equiscope.tasks.proteinflow.task import ProteinFlow
from equiscope.tasks.seeded import lengthened
from tests.faults.attacks import stopped
from tests.runs.ends import assert_same_end
from tests.runs.toy import Toy, config
from tests.tasks.proteinflow.common import batch as chains
from tests.tasks.proteinflow.common import make

NO_CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="no card here")
CARD = pytest.param("cuda", marks=[pytest.mark.gpu, NO_CARD])
DEVICES = ["cpu", CARD]
# Operations whose answer the host must have before it goes on; an index that is a mask is counted first.
WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::bincount", "aten::_unique2", "aten::masked_select")


class Waits(TorchDispatchMode):
    """Counts operations for which the host would wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        masks = name == "aten::index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in WAITS or masks:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def no_waiting(device):
    """On a card the driver is asked, elsewhere the operations are counted."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield Waits()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    else:
        with Waits() as waits:
            yield waits


def molecules(samples, length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(length) < torch.randint(2, length + 1, (samples, 1), generator=generator)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    species = torch.where(mask, torch.randint(6, 9, (samples, length), generator=generator), 0)
    filled = {name: torch.where(mask[..., None], draw(samples, length, 3), 0) for name in ("pos", "forces")}
    return {**filled, "species": species, "mask": mask, "energy": draw(samples)}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["edge_transformer", "escaip"])
def test_a_training_step_does_not_wait_for_the_device(device, name):
    """Forward, loss, backward, clipping, fused optimiser and average, of a batch prepared on the host."""
    torch.manual_seed(0)
    model, mean = (models.build(name, "nano").to(device) for _ in range(2))
    optimizer = build_optimizer(model.parameters(), {"name": "adamw", "lr": 1e-3}, fused=True)
    made = neighbours.prepared(molecules(4, 9), 5.0)
    batch = {key: value.to(device) for key, value in made.items()}
    loss = ForceFieldLoss("squared", forces=1.0, energy=1.0)

    def step():
        loss(model(batch), batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        update_average(mean, model, 3, 0.9)
        optimizer.zero_grad()

    step()
    with no_waiting(device) as waits:
        step()
    assert waits.seen == []
    # The counter can count: without what the host prepared there is something to wait for.
    plain = {key: value for key, value in batch.items() if "." not in key}
    with Waits() as waits:
        model(plain)
    assert len(waits.seen) >= 4


def flow_step():
    """The flow's task, its model and a batch, each step in two passes."""
    return ProteinFlow.from_config({}), make("proteina"), {**chains(dtype=torch.float32), "self_condition": Told(True)}


def voxel_step():
    settings = ["task=voxels", "run=x", "grid.size=12", "grid.resolution=0.8", "+model.width=4",
                "+model.multipliers=[1,2]", "+model.attention=[false,true]", "+model.heads=1"]  # fmt: skip
    task = build(configuration(settings))
    task._data, task._scale = "known", 1.0
    batch = {name: value for name, value in molecules(3, 5).items() if name in ("pos", "species", "mask")}
    return task, task._build(), {**batch, "noise_seed": torch.arange(3)}


class Told:
    """A field that stays on the host, where it is read without waiting."""

    def __init__(self, value):
        self.value = value

    def any(self):
        return self.value


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("made", [flow_step, voxel_step])
def test_a_step_of_the_other_tasks_does_not_wait_either(device, made):
    task, model, batch = made()
    model = model.to(device).train()
    optimizer = build_optimizer(model.parameters(), {"name": "adamw", "lr": 1e-3}, fused=True)
    batch = {k: v if k in task.host_fields else v.to(device) for k, v in batch.items()}

    def step():
        task.training_loss(model, batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()
    with no_waiting(device) as waits:
        step()
    assert waits.seen == []


@pytest.mark.parametrize("device", DEVICES)
def test_batches_made_ahead_are_the_same(device):
    steps = Steps(Toy(0, 4), 6)
    ahead = Ahead(steps, 6, pinned=device == "cuda")
    for step in (3, 4, 5, 0, 2):
        for name, value in ahead[step].items():
            assert torch.equal(value, steps[step][name])
            assert value.is_pinned() == (device == "cuda")


def test_an_error_in_a_batch_made_ahead_comes_with_its_own_step():
    ahead = Ahead(Steps(Toy(0, 5), 4, 0, 2), 4, pinned=False)
    with pytest.raises(InputError, match="multiple of the number of processes"):
        ahead[0]


@pytest.mark.parametrize("device", DEVICES)
def test_compiled_steps_meet_few_shapes(device):
    """Six batches of other atoms and edges each are compiled for four times at most; torch gives up at eight."""
    torch.manual_seed(0)
    torch.compiler.reset()
    model, counted = models.build("edge_transformer", "nano", layers=1).to(device), []

    def backend(graph, examples):
        counted.append(graph)
        return graph.forward

    called = torch.compile(model, backend=backend, fullgraph=True)
    for seed in range(6):
        made = neighbours.prepared(lengthened(molecules(8, 12 + 2 * seed, seed)), 5.0, padded=True)
        batch = {key: value.to(device) for key, value in made.items()}
        assert torch.allclose(called(batch)["energy"], model(batch)["energy"], atol=1e-6)
    assert len(counted) <= 4


def _train(root, device, **changes):
    changes = {"trainer__accelerator": device, "data": {"dropout": 0.0}, **changes}
    return runs.train(config(root, **changes), show_progress=False)


def _losses(folder):
    return torch.tensor([r["loss"] for r in records.read(folder.records) if r["kind"] == "train"])


ON_CARD = [pytest.param("cuda", backend, marks=CARD.marks) for backend in (True, "cudagraphs")]
BACKENDS = [("cpu", "aot_eager"), *ON_CARD]


@pytest.mark.parametrize(("device", "backend"), BACKENDS)
def test_a_compiled_run_is_the_run(tmp_path, device, backend):
    """The same losses to rounding, the same names of stored weights, and a stopped run that goes on."""
    plain = _train(tmp_path / "plain", device)
    fast = _train(tmp_path / "fast", device, trainer__compile=backend)
    assert torch.allclose(_losses(plain), _losses(fast), rtol=1e-4)
    again = stopped(tmp_path / "half", trainer__compile=backend, trainer__accelerator=device, data={"dropout": 0.0})
    _train(tmp_path / "half", device, trainer__compile=backend)
    if device == "cpu":
        assert_same_end(again, fast)
    weights = [load(folder.checkpoint)["state_dict"] for folder in (plain, fast)]
    assert weights[0].keys() == weights[1].keys()
    assert records.read(fast.records)[0]["computing"]["compile"] == ("inductor" if backend is True else backend)
    with pytest.raises(RunError, match=r"other settings.*trainer\.compile"):
        _train(tmp_path / "fast", device)


def test_what_cannot_be_compiled_is_refused():
    class Differentiating(torch.nn.Linear):
        compilable = False

    with pytest.raises(InputError, match="Differentiating cannot be compiled"):
        compiled(Differentiating(1, 1), "eager")
    with pytest.raises(InputError, match=r"trainer\.compile must be true, false or a backend"):
        runs.train(config("nowhere", trainer__compile="fortran"))


class Watched(Toy):
    """Notes what its model computes in while it is trained and while it is measured."""

    seen: set = set()  # noqa: RUF012

    def build_model(self):
        net = super().build_model()
        net[0].register_forward_hook(
            lambda module, given, out: self.seen.add(
                (module.weight.requires_grad, str(out.dtype), torch.get_float32_matmul_precision())
            )
        )
        return net


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("changes", "steps", "measured", "told"),
    [
        ({"trainer__matmul": "high"}, ("torch.float32", "high"), ("torch.float32", "highest"), "float32"),
        ({"trainer__precision": "bf16-mixed"}, ("torch.bfloat16", "highest"), ("torch.float32", "highest"), "float32"),
        ({"trainer__precision": "bf16-true"}, ("torch.bfloat16", "highest"), ("torch.float32", "highest"), "float32"),
        ({"trainer__precision": "64-true"}, ("torch.float64", "highest"), ("torch.float64", "highest"), "float64"),
        (
            {"trainer__matmul": "high", "track__precision": "trained", "final__precision": "trained"},
            ("torch.float32", "high"), ("torch.float32", "high"), "as trained (32-true)",
        ),
    ],
)  # fmt: skip
def test_what_is_measured_is_float32_unless_told_otherwise(tmp_path, device, changes, steps, measured, told):
    Watched.seen.clear()
    before = torch.get_float32_matmul_precision()
    folder = _train(tmp_path, device, task=f"{__name__}:Watched", trainer__max_steps=6, track__points=2, **changes)
    # Weights of the average, which is what is measured, are frozen; a copy of 16 bits in float64 checks the floor.
    assert {seen[1:] for seen in Watched.seen if seen[0]} == {steps}
    assert measured in {seen[1:] for seen in Watched.seen if not seen[0]}
    assert all(seen[2] == measured[1] for seen in Watched.seen if not seen[0])
    assert torch.get_float32_matmul_precision() == before
    (first, *_) = records.read(folder.records)
    assert first["computing"]["measured"] == {"track": told, "final": told}
    assert first["computing"]["training"] == changes.get("trainer__precision", "32-true")
    assert first["hardware"]


def test_settings_of_the_arithmetic_are_refused_in_a_sentence():
    with pytest.raises(InputError, match=r"trainer\.matmul must be one of highest, high, medium"):
        runs.train(config("nowhere", trainer__matmul="tf32"))
    with pytest.raises(InputError, match=r"track\.precision and final\.precision are null or trained"):
        runs.train(config("nowhere", track__precision="bf16"))


@pytest.mark.parametrize("device", [CARD])
def test_two_processes_on_one_card_train_as_one_alone(tmp_path, device):
    text = (
        "import sys\nfrom equiscope.runs.train import train\nfrom tests.runs.toy import config\n"
        "train(config(sys.argv[1], trainer__accelerator='cuda', data={'dropout': 0.0}), show_progress=False)\n"
    )
    pair = [subprocess.Popen([sys.executable, "-c", text, str(tmp_path / name)]) for name in "ab"]
    assert [one.wait(120) for one in pair] == [0, 0]
    alone = _losses(_train(tmp_path / "alone", device))
    for name in "ab":
        book = records.read(tmp_path / name / "toy" / "a" / "records.jsonl")
        assert torch.allclose(torch.tensor([r["loss"] for r in book if r["kind"] == "train"]), alone, rtol=1e-4)
        assert book[-1]["gpu_seconds"] > 0


def test_a_task_that_arranges_nothing_is_taken_as_it_is():
    batch = Toy(0, 4).training_batch(0)
    assert arrange(Toy(0, 4), True, batch) is batch
