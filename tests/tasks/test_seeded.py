"""What tasks share: settings and their refusals, shuffled passes, evenly spread samples, models by name and size."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from equiscope.errors import InputError
from equiscope.tasks.seeded import SeededTask, Shuffled, TaskSettings, configured, key, rotate, spread


def test_augmentation_is_haar_and_its_share_is_kept():
    batch = {"pos": torch.eye(3).expand(4000, 3, 3), "forces": torch.zeros(4000, 3, 3)}
    rotations = rotate(batch, ("pos", "forces"), 1.0, 5)["pos"].mT.double()
    assert torch.allclose(rotations @ rotations.mT, torch.eye(3, dtype=torch.float64), atol=1e-6)
    assert float(rotations.mean(0).abs().max()) < 4 * (1 / 3 / 4000) ** 0.5
    part = rotate(batch, ("pos", "forces"), 0.25, 5)["pos"]
    share = float((part != torch.eye(3)).any(dim=(1, 2)).double().mean())
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5
    assert rotate(batch, ("pos", "forces"), 0.0, 5) == batch


def test_every_purpose_and_step_has_a_seed_of_its_own():
    seeds = {key(s, what, step) for s in range(3) for what in ("noise", "order") for step in range(50)}
    assert len(seeds) == 300
    assert key(1, "noise", 2) == key(1, "noise", 2)
    assert all(0 <= seed < 2**63 for seed in seeds)


@dataclass(frozen=True)
class Widths:
    width: int = 4
    steps: tuple[int, ...] = (1, 2)
    tied: bool = False


class Net(nn.Linear):
    def __init__(self, config):
        super().__init__(config.width, 1)


MODELS = {"net": (Net, {"nano": Widths(), "1M": Widths(8)}, {}), "twin": (Net, {"nano": Widths()}, {"tied": True})}


class Toy(SeededTask[TaskSettings, str]):
    def _build(self):
        network, config = configured("toy", MODELS, self.settings.model, self.settings.size, {})
        return network(config)


def test_every_pass_shows_everything_once_in_an_order_of_its_own():
    items = torch.tensor([5, 7, 11, 13, 17, 19, 23])
    order = Shuffled(items, 3)
    passes = [order.take(7 * turn, 7) for turn in range(40)]
    assert all(sorted(found) == items.tolist() for found in passes)
    assert len({tuple(found) for found in passes}) > 35
    # The first item is each of the seven about as often: a chi square of 6 degrees stays under 22 (p = 0.001).
    first = np.bincount([items.tolist().index(found[0]) for found in (order.take(7 * t, 1) for t in range(700))])
    assert ((first - 100) ** 2 / 100).sum() < 22


def test_places_do_not_depend_on_what_was_asked_before():
    items = torch.arange(10)
    order = Shuffled(items, 0)
    straight = order.take(0, 60)
    again = Shuffled(items, 0)
    for first in (37, 3, 12, 55, 8, 27):
        assert again.take(first, 5) == straight[first : first + 5]
    assert pickle.loads(pickle.dumps(again)).take(0, 60) == straight
    assert Shuffled(items, 1).take(0, 60) != straight


@pytest.mark.parametrize(("count", "wanted"), [(10, 3), (10, 10), (10, 12), (10, None), (7, 1), (1000, 13)])
def test_samples_are_spread_evenly(count, wanted):
    every = torch.arange(100, 100 + count)
    found = spread(every, wanted).tolist()
    due = range(count) if wanted is None or wanted >= count else [i * count // wanted for i in range(wanted)]
    assert found == [100 + i for i in due]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 1.5, 1), "share between 0 and 1"),
        ((0, -0.1, 1), "augment"),
        ((0, 1.0, 0), "batch_size"),
        ((-1, 1.0, 1), "seed"),
    ],
)
def test_impossible_settings(values, message):
    with pytest.raises(InputError, match=message):
        TaskSettings(**dict(zip(("seed", "augment", "batch_size"), values, strict=True)), model="net")


def test_settings_of_a_configuration_leave_defaults_where_there_is_nothing():
    config = {"seed": 4, "augment": True, "model": {"name": "net", "size": None, "width": 3}, "batch_size": None}
    made = TaskSettings.of(config)
    assert made == TaskSettings(seed=4, augment=1.0, model="net", model_settings={"width": 3})


def test_models_by_name_and_size():
    assert configured("toy", MODELS, "net", "1M", {"steps": [3]}) == (Net, Widths(8, (3,)))
    assert configured("toy", MODELS, "twin", "nano", {})[1].tied
    for name, size, settings, message in (
        ("knot", "nano", {}, "no toy model 'knot': choose one of net, twin"),
        ("net", "2M", {}, "net has no size '2M': choose one of nano, 1M"),
        ("net", "nano", {"depth": 1}, r"net has no setting \['depth'\]: choose among steps, tied, width"),
        ("twin", "nano", {"tied": False}, r"twin has no setting \['tied'\]: choose among steps, width"),
    ):
        with pytest.raises(InputError, match=message):
            configured("toy", MODELS, name, size, settings)


def test_weights_are_a_function_of_the_seed_and_bad_models_are_refused_at_once():
    state = torch.random.get_rng_state()
    one, same, other = (Toy(TaskSettings(seed=s, model="net")).build_model().weight for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    with pytest.raises(InputError, match="no size"):
        Toy(TaskSettings(model="net", size="2M"))
    with pytest.raises(InputError, match=r"call prepare\(\) first"):
        _ = Toy(TaskSettings(model="net")).data
