"""A measured model and the random states are bitwise as before: after success, after an error, in any outer mode."""

import contextlib
import random

import numpy as np
import pytest
import torch
from torch import nn

from equiscope.decomposition.preserve import untouched


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


def test_a_cache_that_grew_keeps_its_new_size():
    model = Net()
    with untouched(model):
        model.table = torch.arange(9)
        model.register_buffer("new", torch.ones(2))
    # Its owner goes by the size it remembers elsewhere.
    assert len(model.table) == 9
    assert model.new.tolist() == [1, 1]


def test_a_model_on_the_meta_device_has_nothing_to_compare():
    with untouched(nn.Linear(2, 2, device="meta")) as nothing:
        assert nothing is None
