"""A measured model and the random states are bitwise as before: after success, after an error, in any outer mode."""

import contextlib
import random
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from equiscope.decomposition.preserve import untouched
from equiscope.errors import ModelError


class Net(nn.Module):
    """Parameters, a tied one, buffers of three dtypes, and a frozen part."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.BatchNorm1d(3))
        self.last = nn.Linear(3, 3, bias=False)
        self.last.weight = self.first[0].weight
        self.first[0].bias.requires_grad_(False)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("table", torch.arange(4))
        self.register_buffer("seen", torch.tensor(False))


def state(model):
    return {
        "values": {k: v.clone() for k, v in model.state_dict().items()},
        "identities": {k: id(v) for k, v in [*model.named_parameters(), *model.named_buffers()]},
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "frozen": [p.requires_grad for p in model.parameters()],
    }


def same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a["values"][k], b["values"][k]) for k in a["values"])
    for x, y in zip(a["gradients"], b["gradients"], strict=True):
        assert x is y is None or torch.equal(x, y)
    assert [a[k] for k in ("identities", "training", "frozen")] == [b[k] for k in ("identities", "training", "frozen")]


class OutOfCheese(Exception):
    pass


@contextlib.contextmanager
def leaving(how):
    """``untouched`` left by the end of its body, by an error, or by a stopped program."""
    error = {"end": None, "error": OutOfCheese, "interrupt": KeyboardInterrupt}[how]
    with pytest.raises(error) if error else contextlib.nullcontext():
        yield error


def used():
    """A model after a training step with one part in eval mode."""
    model = Net()
    model.last(model.first(torch.randn(5, 3))).sum().backward()
    model.first[2].eval()
    return model


def spoil(model):
    with torch.no_grad():
        model.first[0].weight.mul_(2)
        model.first[0].bias.fill_(7)
    model.mean = model.mean + 1
    model.table.add_(1)
    model.seen.fill_(True)
    model.first.train()
    model.first[0].weight.grad = torch.ones(3, 3)


@pytest.mark.parametrize("how", ["end", "error", "interrupt"])
@pytest.mark.parametrize("outer", [contextlib.nullcontext, torch.no_grad, torch.inference_mode])
def test_everything_is_put_back(how, outer):
    model = used()
    before = state(model)
    with outer(), leaving(how) as error, untouched(model):
        spoil(model)
        if error:
            raise error
    same(state(model), before)


@pytest.mark.parametrize("how", ["end", "error"])
def test_random_states_are_put_back(how):
    torch.manual_seed(3), np.random.seed(4), random.seed(5)
    expected = torch.rand(2), np.random.rand(2), random.random()
    torch.manual_seed(3), np.random.seed(4), random.seed(5)
    # Not a module: only these are kept.
    with leaving(how) as error, untouched(lambda batch: batch):
        torch.rand(9), np.random.rand(9), random.random()
        torch.manual_seed(99)
        if error:
            raise error
    assert torch.equal(torch.rand(2), expected[0])
    assert (np.random.rand(2) == expected[1]).all()
    assert random.random() == expected[2]


def test_inside_every_module_is_in_eval_mode_and_gradients_are_set_aside():
    model = used()
    with untouched(model):
        assert not any(m.training for m in model.modules())
        assert all(p.grad is None for p in model.parameters())
        model.last(torch.ones(1, 3)).sum().backward()
        assert model.last.weight.grad is not None


@pytest.mark.parametrize("how", ["end", "error"])
def test_grad_mode_outside_is_as_before(how):
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            with leaving(how) as error, untouched(Net()):
                # Forces as gradients work inside an outer inference mode.
                assert not torch.is_inference_mode_enabled()
                torch.set_grad_enabled(not torch.is_grad_enabled())
                if error:
                    raise error
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before


def test_values_nothing_changed_are_not_written():
    model = Net()
    versions = [t._version for t in (*model.parameters(), *model.buffers())]
    with untouched(model):
        pass
    # A write would break a graph that the user still wants to differentiate.
    assert [t._version for t in (*model.parameters(), *model.buffers())] == versions


@pytest.mark.parametrize(("before", "inside"), [(torch.nan, 0.0), (0.0, torch.nan)])
def test_nan_is_a_value_like_any_other(before, inside):
    model = Net()
    model.mean.fill_(before)
    with untouched(model):
        model.mean.fill_(inside)
    assert torch.allclose(model.mean, torch.full((3,), before), equal_nan=True)


def test_a_cache_that_grew_has_its_old_size_and_its_owner_remembers_that():
    model = Net()
    model.longest = 4
    with untouched(model):
        model.table, model.longest = torch.arange(9), 9
        model.register_buffer("new", torch.ones(2))
        model.calls = 1
    assert (len(model.table), model.longest) == (4, 4)
    assert not hasattr(model, "new")


def test_what_a_model_counts_beside_its_tensors_is_its_own():
    model = Net()
    with untouched(model):
        model.calls = 1
        model.mean = model.mean + 1
    assert (model.calls, model.mean.tolist()) == (1, [0, 0, 0])


CHANGES = {
    "frozen": lambda m: m.last.weight.requires_grad_(False),
    "thawed": lambda m: m.first[0].bias.requires_grad_(True),
    "parameter replaced": lambda m: setattr(m.last, "weight", nn.Parameter(torch.ones(3, 3))),
    "cast": lambda m: m.half(),
    "cast to double": lambda m: m.double(),
    "part cast": lambda m: m.first[2].bfloat16(),
    "parameter deleted": lambda m: delattr(m.first[0], "bias"),
    "buffer deleted": lambda m: delattr(m, "mean"),
    "buffer registered": lambda m: m.register_buffer("late", torch.ones(2), persistent=False),
    "parameter registered": lambda m: m.register_parameter("late", nn.Parameter(torch.ones(2))),
    "module added": lambda m: m.add_module("late", nn.Linear(2, 2)),
    "module replaced": lambda m: setattr(m, "last", nn.Linear(3, 3)),
    "module deleted": lambda m: delattr(m, "first"),
    "buffer is None": lambda m: setattr(m, "mean", None),
    "memory exchanged": lambda m: setattr(m.last.weight, "data", torch.ones(3, 3)),
    "resized": lambda m: setattr(m.mean, "data", torch.ones(7)),
    "gradient set": lambda m: setattr(m.last.weight, "grad", torch.ones(3, 3)),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_what_a_model_does_to_its_tensors_is_undone(change):
    model = used()
    before = state(model), [m for m in model.modules()], set(model._non_persistent_buffers_set)
    pointers = [t.data_ptr() for t in (*model.parameters(), *model.buffers())]
    with untouched(model):
        CHANGES[change](model)
    same(state(model), before[0])
    assert [m for m in model.modules()] == before[1]
    assert set(model._non_persistent_buffers_set) == before[2]
    assert [t.data_ptr() for t in (*model.parameters(), *model.buffers())] == pointers


def test_a_sparse_buffer_is_put_back_and_the_mode_too():
    model = Net()
    eye = torch.eye(3).to_sparse()
    model.register_buffer("links", eye)
    with untouched(model):
        model.links.mul_(2)
    assert torch.equal(model.links.to_dense(), torch.eye(3))
    assert model.training


def test_what_cannot_be_put_back_is_said_and_the_rest_is_put_back():
    class Stubborn(Net):
        def __setattr__(self, name, value):
            if name == "training" and value and getattr(self, "broken", False):
                raise OSError("no")
            super().__setattr__(name, value)

    model = nn.Sequential(Stubborn(), nn.Dropout(0.5))
    held = untouched(model)
    held.__enter__()
    model[0].broken = True
    model[0].mean.fill_(9)
    with pytest.raises(ModelError, match="could not be put back"):
        held.__exit__(None, None, None)
    assert model[1].training
    assert model[0].mean.tolist() == [0, 0, 0]


def in_threads(*works):
    faults = []

    def guarded(work):
        try:
            work()
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return faults


@pytest.mark.parametrize("shared", [lambda model: model, lambda model: nn.Sequential(model), lambda model: model.first])
def test_two_threads_never_are_inside_one_model_together(shared):
    model = Net()
    inside, most = [], []

    def measure(mine):
        for _ in range(20):
            with untouched(mine):
                inside.append(1)
                most.append(len(inside))
                assert not mine.training
                time.sleep(1e-4)
                inside.pop()

    assert in_threads(lambda: measure(model), lambda: measure(shared(model))) == []
    assert max(most) == 1
    assert all(m.training for m in model.modules())


def test_models_that_share_nothing_do_not_wait_for_each_other():
    both = threading.Barrier(2)

    def measure(model):
        with untouched(model):
            both.wait(10)

    assert in_threads(lambda: measure(Net()), lambda: measure(Net())) == []


def test_one_thread_may_enter_twice():
    model = Net()
    with untouched(model), untouched(model.first), untouched(model):
        assert not model.training
    assert model.training


def test_a_training_step_of_another_thread_is_kept_and_the_measurement_refused():
    model, entered, stepped = Net(), threading.Event(), threading.Event()

    def measure():
        with untouched(model):
            entered.set()
            stepped.wait(10)

    def train():
        entered.wait(10)
        with torch.no_grad():
            model.last.weight.fill_(3)
        stepped.set()
        time.sleep(0.2)

    (fault,) = in_threads(measure, train)
    assert isinstance(fault, ModelError)
    assert "another thread changed the weights" in str(fault)
    assert model.last.weight.unique().tolist() == [3]
    assert model.training


def test_random_numbers_of_another_thread_never_come_twice():
    drawn, stop = [], threading.Event()

    def draw():
        while not stop.is_set():
            drawn.append((float(torch.rand(())), random.random()))

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    for _ in range(50):
        with untouched(Net()):
            time.sleep(1e-3)
    stop.set()
    thread.join()
    assert len(set(drawn)) == len(drawn) > 100


def test_a_thread_that_only_shows_progress_does_not_keep_random_states_from_being_put_back():
    stop = threading.Event()

    def wait():
        stop.wait(10)

    wait.__module__ = "tqdm.std"
    thread = threading.Thread(target=wait)
    thread.start()
    model = Net()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with untouched(model):
        torch.rand(5)
    stop.set()
    thread.join()
    assert torch.equal(torch.rand(2), expected)


def test_a_model_on_the_meta_device_has_nothing_to_compare():
    with untouched(nn.Linear(2, 2, device="meta")) as nothing:
        assert nothing is None
