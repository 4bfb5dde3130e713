"""The Lightning callback: when it measures, what it logs, that training does not notice, and two processes."""

import csv
import math
import os
import runpy
import sys
import warnings

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import equiscope as eq
from equiscope.adapters.lightning import EquivarianceTracker, Schedule
from equiscope.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty.*"),
]
LOSSES = ("total", "twirled", "equivariance", "noise_floor")
NAMES = ("percent", "interval_low", "interval_high", "r2", "relative_equivariance", *LOSSES)


class Atoms(Dataset):
    def __init__(self, count, seed):
        g = torch.Generator().manual_seed(seed)
        self.pos = torch.randn(count, 4, 3, generator=g)
        self.forces = -self.pos + 0.1 * torch.randn(count, 4, 3, generator=g)

    def __len__(self):
        return len(self.pos)

    def __getitem__(self, i):
        return {"pos": self.pos[i], "forces": self.forces[i], "id": i}


class Module(pl.LightningModule):
    """A plain user module: gradient-free or gradient forces, dropout, a buffer, its own batches."""

    def __init__(self, gradient=False):
        super().__init__()
        self.gradient = gradient
        self.net = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Dropout(0.1), nn.Linear(16, 1 if gradient else 3))
        self.seen = []

    def forward(self, batch):
        if not self.gradient:
            return {"forces": self.net(batch["pos"])}
        with torch.enable_grad():
            pos = batch["pos"].requires_grad_()
            (force,) = torch.autograd.grad(self.net(pos).sum(), pos, create_graph=self.training)
        return {"forces": -force}

    def training_step(self, batch, _):
        self.seen.append(torch.rand(()).item())
        return (self(batch)["forces"] - batch["forces"]).square().mean()

    def validation_step(self, batch, _):
        self.log("val", (self(batch)["forces"] - batch["forces"]).square().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def held_out():
    return DataLoader(Atoms(10, seed=1), batch_size=4)


def declared(**settings):
    return eq.Declaration({"pos": "1o"}, {"forces": eq.Output("1o", target="forces")}, **({"ids": "id"} | settings))


def fit(tmp_path, *callbacks, module=None, resume=None, **settings):
    pl.seed_everything(0, verbose=False)
    module = Module() if module is None else module
    defaults = {"max_epochs": 2, "logger": CSVLogger(tmp_path, name="log", version="", flush_logs_every_n_steps=1)}
    trainer = pl.Trainer(
        **(defaults | settings),
        callbacks=list(callbacks),
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        default_root_dir=tmp_path,
    )
    trainer.fit(module, DataLoader(Atoms(20, seed=0), batch_size=4, shuffle=True), held_out(), ckpt_path=resume)
    return trainer, module


def logged(tmp_path):
    with open(tmp_path / "log" / "metrics.csv") as lines:
        rows = list(csv.DictReader(lines))
    return {int(r["step"]): r for r in rows if r.get("equivariance/percent")}


@pytest.mark.parametrize("gradient", [False, True])
def test_at_validation_end_through_the_logger_and_in_memory(tmp_path, gradient):
    tracker = EquivarianceTracker(held_out(), declared())
    trainer, module = fit(tmp_path, tracker, module=Module(gradient))
    assert [t.step for t in tracker.history] == [5, 10]
    assert [t.epoch for t in tracker.history] == [0, 1]
    expected = eq.measure(module, held_out(), declared())
    last = tracker.results[-1]
    assert last.percent == pytest.approx(expected.percent, rel=1e-6)
    assert last.percent_interval == pytest.approx(expected.percent_interval, rel=1e-6)
    assert tracker.results[0].percent != last.percent
    rows = logged(tmp_path)
    assert sorted(rows) == [5, 10]
    for name in NAMES:
        assert math.isfinite(float(rows[10][f"equivariance/{name}"])), name
    assert float(rows[10]["equivariance/percent"]) == pytest.approx(last.percent, rel=1e-12)
    assert float(rows[10]["equivariance/interval_low"]) == pytest.approx(last.percent_interval[0], rel=1e-12)
    assert float(rows[10]["equivariance/interval_high"]) == pytest.approx(last.percent_interval[1], rel=1e-12)
    assert float(trainer.callback_metrics["equivariance/r2"]) == pytest.approx(last.r2, rel=1e-6)


@pytest.mark.parametrize("when", ["validation", 1])
def test_training_does_not_notice(tmp_path, when):
    _, untracked = fit(tmp_path / "a")
    # A shuffling loader draws from the global random state every time it starts.
    loader = DataLoader(Atoms(10, seed=1), batch_size=4, shuffle=True)
    tracker = EquivarianceTracker(loader, declared(), when=when)
    _, tracked = fit(tmp_path / "b", tracker)
    assert len(tracker.history) > 1
    assert tracked.seen == untracked.seen
    for a, b in zip(tracked.parameters(), untracked.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("when", "steps"),
    [(4, [0, 4, 8]), ([3, 3, 7, 99], [3, 7]), ("log", [0, 1, 2, 3, 4, 6, 7, 10]), (1, list(range(11)))],
)
def test_steps(tmp_path, when, steps):
    tracker = EquivarianceTracker(lambda: held_out(), declared(), when=when, rotations="D2")
    fit(tmp_path, tracker)
    assert [t.step for t in tracker.history] == steps
    assert sorted(logged(tmp_path)) == steps


def test_accumulated_gradients_count_optimizer_steps(tmp_path):
    tracker = EquivarianceTracker(held_out(), declared(), when=1, rotations="D2")
    fit(tmp_path, tracker, accumulate_grad_batches=5)
    assert [t.step for t in tracker.history] == [0, 1, 2]


def test_schedule():
    log = Schedule("log", per_decade=1)
    assert [s for s in range(2000) if log.due(s - 1, s)] == [0, 1, 10, 100, 1000]
    assert Schedule(10).due(9, 12)
    assert not Schedule(10).due(10, 19)
    assert not Schedule("validation").due(-1, 100)
    for bad in (0, -1, True, "often", [], [1.5], [-1], 2.5, None):
        with pytest.raises(InputError, match="when must be"):
            Schedule(bad)
    for bad in (0, True, 1.5):
        with pytest.raises(InputError, match="per_decade"):
            Schedule("log", per_decade=bad)


class Validated(Module):
    """Keeps a copy of the weights that each validation sees, by step."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__()
        self.validated = {}

    def validation_step(self, batch, number):
        if not self.trainer.sanity_checking:
            self.validated[self.trainer.global_step] = {k: v.clone() for k, v in self.state_dict().items()}


def total_of(weights):
    module = Module()
    module.load_state_dict(weights)
    return eq.measure(module, held_out(), declared(), rotations="D2").total


AVERAGES = {
    "running": lambda: WeightAveraging(),
    "exponential": lambda: EMAWeightAveraging(decay=0.5),
    "stochastic": lambda: StochasticWeightAveraging(swa_lrs=1e-2, swa_epoch_start=1),
}


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("when", ["validation", 1, "log"])
def test_the_weights_that_validation_sees_in_either_order(tmp_path, average, when):
    found, ends = [], []
    for order in (1, -1):
        tracker = EquivarianceTracker(held_out(), declared(), when=when, rotations="D2")
        callbacks = [AVERAGES[average](), tracker][::order]
        _, module = fit(tmp_path / str(order), *callbacks, module=Validated())
        measured = {t.step: t.result.total for t in tracker.history}
        assert set(module.validated) == {5, 10}
        for step, weights in module.validated.items():
            if step in measured:
                assert measured[step] == pytest.approx(total_of(weights), rel=1e-5), (order, step)
        assert 10 in measured
        found.append(measured)
        ends.append(list(module.state_dict().values()))
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    # Neither order nor tracker changes what training ends with.
    _, untracked = fit(tmp_path / "untracked", AVERAGES[average](), module=Validated())
    for end in ends:
        assert all(torch.equal(a, b) for a, b in zip(end, untracked.state_dict().values(), strict=True))


def test_averaged_weights_are_not_the_raw_ones(tmp_path):
    """The comparison above can fail: averages and raw weights differ in their loss."""
    raw = EquivarianceTracker(held_out(), declared(), rotations="D2")
    fit(tmp_path / "raw", raw, module=Validated())
    averaged = EquivarianceTracker(held_out(), declared(), rotations="D2")
    fit(tmp_path / "averaged", averaged, WeightAveraging(), module=Validated())
    for a, b in zip(raw.results, averaged.results, strict=True):
        assert abs(a.total / b.total - 1) > 0.01


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("order", [1, -1])
def test_a_measurement_put_off_to_the_end_is_of_what_the_last_validation_saw(tmp_path, average, order):
    tracker = EquivarianceTracker(held_out(), declared(), budget=1e-9, rotations="D2")
    _, module = fit(tmp_path, *[AVERAGES[average](), tracker][::order], module=Validated())
    assert [t.step for t in tracker.history] == [5, 10]
    assert tracker.results[-1].total == pytest.approx(total_of(module.validated[10]), rel=1e-5)


class Unvalidated(Module):
    validation_step = pl.LightningModule.validation_step


@pytest.mark.parametrize(
    ("when", "settings", "steps", "words"),
    [
        ("validation", {"module": Unvalidated}, [], "nothing will be measured, as this fit has no validation"),
        ("validation", {"limit_val_batches": 0}, [], "nothing will be measured, as this fit has no validation"),
        ("validation", {"check_val_every_n_epoch": 3}, [], "the last step, 10, will not be measured"),
        ("validation", {"check_val_every_n_epoch": 2, "max_epochs": 3}, [10], "the last step, 15, will not be"),
        ("validation", {"val_check_interval": 2}, [2, 4, 7, 9], "the last step, 10, will not be measured"),
        ("validation", {"max_steps": 8, "max_epochs": -1}, [5], "the last step, 8, will not be measured"),
        ("validation", {"val_check_interval": 4, "check_val_every_n_epoch": None}, [4, 8], "the last step, 10, will"),
        (4, {}, [0, 4, 8], "step 8 is the last to be measured, training ends at step 10: name it too"),
        ([40, 50], {}, [], "nothing will be measured, training ends at step 10"),
        ("log", {"max_epochs": 1}, [0, 1, 2, 3, 4], "step 4 is the last to be measured"),
        ("validation", {}, [5, 10], None),
        ("validation", {"check_val_every_n_epoch": 2}, [10], None),
        ("validation", {"max_steps": 10, "max_epochs": -1}, [5, 10], None),
        ("validation", {"max_steps": 8, "max_epochs": -1, "val_check_interval": 3}, [3, 8], None),
        ("validation", {"val_check_interval": 5, "check_val_every_n_epoch": None}, [5, 10], None),
        ("validation", {"accumulate_grad_batches": 2}, [3, 6], None),
        (5, {}, [0, 5, 10], None),
        ([3, 10], {}, [3, 10], None),
    ],
)
def test_a_fit_that_will_not_measure_its_last_step_says_so_at_its_start(tmp_path, when, settings, steps, words):
    tracker = EquivarianceTracker(held_out(), declared(), when=when, rotations="D2")
    module = settings.pop("module", Module)()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, tracker, module=module, **settings)
    told = [str(w.message) for w in caught if "EquivarianceTracker" in str(w.message)]
    assert [t.step for t in tracker.history] == steps
    assert len(told) == (words is not None)
    if words is not None:
        assert f"EquivarianceTracker 'equivariance', when={when!r}: {words}" in told[0]


def test_other_callbacks_see_the_figures(tmp_path):
    tracker = EquivarianceTracker(held_out(), declared())
    keep = ModelCheckpoint(tmp_path, monitor="equivariance/percent", mode="min", save_top_k=1)
    stop = EarlyStopping(monitor="equivariance/r2", mode="max", stopping_threshold=-1e9)
    trainer, _ = fit(tmp_path, tracker, keep, stop, max_epochs=4)
    assert trainer.current_epoch == 1
    assert float(keep.best_model_score) == pytest.approx(tracker.results[0].percent, rel=1e-6)


def test_resume_keeps_the_history(tmp_path):
    whole = EquivarianceTracker(held_out(), declared(), when=3, rotations="D2")
    fit(tmp_path / "a", whole)
    first = EquivarianceTracker(held_out(), declared(), when=3, rotations="D2")
    trainer, _ = fit(tmp_path / "b", first, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    again = EquivarianceTracker(held_out(), declared(), when=3, rotations="D2")
    fit(tmp_path / "b", again, resume=tmp_path / "half.ckpt", module=Module())
    assert [t.step for t in again.history] == [t.step for t in whole.history] == [0, 3, 6, 9]
    assert again.results[1] == first.results[1]
    assert [t.seconds for t in again.history[:2]] == [t.seconds for t in first.history]


def test_a_second_fit_starts_again(tmp_path):
    tracker = EquivarianceTracker(held_out(), declared(), when=4, rotations="D2")
    fit(tmp_path, tracker, max_epochs=1)
    fit(tmp_path, tracker, max_epochs=1)
    assert [t.step for t in tracker.history] == [0, 4, 0, 4]


class Clock:
    """Time that passes by what is done: 1 s a training batch, 3 s a measurement."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


def test_budget(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("equiscope.adapters.lightning.time", clock)
    tracker = EquivarianceTracker(held_out(), declared(), when=1, rotations="D2", budget=0.3)
    call = tracker._called

    def slow(trainer):
        clock.now += 3.0
        return call(trainer)

    class Ticking(Module):
        def training_step(self, batch, number):
            clock.now += 1.0
            return super().training_step(batch, number)

    monkeypatch.setattr(tracker, "_called", slow)
    fit(tmp_path, tracker, module=Ticking(), max_epochs=8)
    # Measurement k fits once 3 k <= 0.3 t, with t = steps + 3 (k - 1); the last, put off, is made at the end.
    assert [t.step for t in tracker.history] == [0, 17, 24, 31, 38, 40]
    assert tracker.spent == 18.0


def test_one_float64_pass_serves_all_measurements(tmp_path):
    dtypes = []

    def forward(module, batch):
        dtypes.append(module.net[0].weight.dtype)
        return module(batch)

    tracker = EquivarianceTracker(held_out(), declared(), forward=forward)
    fit(tmp_path, tracker)
    assert dtypes.count(torch.float64) == 1
    first, second = (r.float64_change for r in tracker.results)
    assert 0 < first == second < 1e-5


def test_precision_of_the_trainer(tmp_path):
    seen = []

    def forward(module, batch):
        answer = module(batch)
        if module is not trained:
            # The float64 copy of the noise floor.
            return answer
        seen.append((answer["forces"].dtype, torch.get_default_dtype()))
        return answer

    for precision, output, default in (
        ("64-true", torch.float64, torch.float64),
        ("bf16-mixed", torch.bfloat16, torch.float32),
        ("bf16-true", torch.bfloat16, torch.bfloat16),
    ):
        seen.clear()
        trained = Module()
        tracker = EquivarianceTracker(held_out(), declared(), rotations="D2", forward=forward)
        fit(tmp_path / precision, tracker, module=trained, precision=precision, max_epochs=1)
        assert set(seen) == {(output, default)}
        assert tracker.results[0].noise_floor > 0
    assert tracker.results[0].noise_floor > 1e-8


def test_without_labels_only_finite_figures_are_logged(tmp_path):
    chosen = eq.Declaration({"pos": "1o"}, {"forces": "1o"}, ids="id", fixed=["forces"])
    tracker = EquivarianceTracker(held_out(), chosen, name="unlabelled")
    trainer, _ = fit(tmp_path, tracker, max_epochs=1)
    names = {k for k in trainer.callback_metrics if k.startswith("unlabelled/")}
    assert names == {f"unlabelled/{n}" for n in ("equivariance", "relative_equivariance", "noise_floor")}


def test_validate_alone_and_no_logger(tmp_path):
    fields = {"inputs": {"pos": "1o"}, "outputs": {"forces": "1o"}, "target": "forces"}
    tracker = EquivarianceTracker(held_out(), **fields, budget=0.1)
    trainer = pl.Trainer(
        callbacks=[tracker], accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    for _ in range(2):
        trainer.validate(Module(), held_out(), verbose=False)
    assert len(tracker.history) == 2


def test_a_function_that_hands_out_used_up_batches_says_what_to_return():
    fields = {"inputs": {"pos": "1o"}, "outputs": {"forces": "1o"}, "target": "forces"}
    once = iter(held_out())
    tracker = EquivarianceTracker(lambda: once, **fields)
    trainer = pl.Trainer(
        callbacks=[tracker], accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.validate(Module(), held_out(), verbose=False)
    with pytest.raises(InputError, match=r"no batches to measure: .*lambda: iter\(loader\)"):
        trainer.validate(Module(), held_out(), verbose=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": iter([])}, "gone after one use"),
        ({"batches": {"pos": torch.ones(1)}}, "write \\[batch\\]"),
        ({"budget": 0.0}, "budget"),
        ({"budget": 1.5}, "budget"),
        ({"cosets": 1}, "cosets=1"),
        ({"rotations": "X"}, "unknown rotations"),
        ({"declaration": None}, "say what rotates"),
        ({"when": "sometimes"}, "when must be"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        EquivarianceTracker(**({"batches": [], "declaration": declared()} | arguments))


def test_without_lightning_the_extra_is_named(monkeypatch):
    source = sys.modules[EquivarianceTracker.__module__].__file__
    packages = ("pytorch_lightning", "lightning")
    # A submodule that is loaded already is found without its package.
    for name in {*packages, *(n for n in sys.modules if n.split(".")[0] in packages)}:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install equiscope\[lightning\]"):
        runpy.run_path(source)


def worker(rank, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    os.environ |= {"LOCAL_RANK": str(rank), "RANK": str(rank)}
    torch.set_num_threads(1)
    data = Atoms(10, seed=1)

    def sharded():
        return DataLoader(data, batch_size=4, sampler=DistributedSampler(data, shuffle=False, seed=2))

    trackers = [
        EquivarianceTracker(held_out(), declared(), name="by batches"),
        EquivarianceTracker(held_out(), declared(ids=None, fixed=[]), name="without ids"),
        EquivarianceTracker(sharded, declared(), name="by sampler", when=[0, 2], budget=1e-6),
        EquivarianceTracker(list(held_out())[:1], declared(), name="one batch"),
    ]
    if rank == 1:
        # By this process's clock it could measure at once; alone it would wait for the other for ever.
        trackers[2]._earlier = 1e9
    trainer = pl.Trainer(
        strategy="ddp",
        accelerator="cpu",
        devices=2,
        max_epochs=1,
        callbacks=trackers,
        logger=CSVLogger(folder, name="log", version="", flush_logs_every_n_steps=1),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    pl.seed_everything(0, verbose=False)
    module = Module()
    trainer.fit(module, DataLoader(Atoms(24, seed=0), batch_size=4), held_out())
    expected = eq.measure(module, held_out(), declared())
    one = eq.measure(module, list(held_out())[:1], declared())
    out = {t.name: [(m.step, m.result) for m in t.history] for t in trackers}
    torch.save((out, expected, one, trainer.global_step), f"{folder}/{rank}.pt")


def test_two_processes_measure_their_shards_and_pool_them(tmp_path):
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload(["equiscope.adapters.lightning"])
    torch.multiprocessing.start_processes(worker, args=(port, str(tmp_path)), nprocs=2, start_method="forkserver")
    (out, expected, one, steps), (other, *_) = (torch.load(tmp_path / f"{r}.pt", weights_only=False) for r in (0, 1))
    assert steps == 3
    whole = {"by batches": (expected, 10), "without ids": (expected, 10), "one batch": (one, 4)}
    for name, (reference, samples) in whole.items():
        ((step, result),) = out[name]
        assert (step, result.samples) == (3, samples), name
        assert result.percent == pytest.approx(reference.percent, rel=1e-6), name
        assert other[name][0][1].percent == result.percent, name
        assert result.model_calls < 2 * reference.model_calls
    # The second measurement is put off by the budget, to the end of training in both processes.
    assert [s for s, _ in out["by sampler"]] == [s for s, _ in other["by sampler"]] == [0, 3]
    assert out["by sampler"][0][1].samples == 10
    assert other["by sampler"][1][1].percent == out["by sampler"][1][1].percent
    # Each run logs once.
    with open(tmp_path / "log" / "metrics.csv") as lines:
        rows = [r for r in csv.DictReader(lines) if r.get("by batches/percent")]
    assert len(rows) == 1
