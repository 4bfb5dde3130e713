"""Bad arguments of measure, compare, Twirled, EquivarianceError, declarations, actions and sets: a typed error each."""

import math

import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.errors import InputError
from equiscope.symmetry.actions import IrrepsAction, action
from equiscope.symmetry.declaration import Declaration, Input, Output
from equiscope.symmetry.rotations import haar_keyed, rotation_set

from .models import Tanh, random_batch

SHORT = dict(inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y")
TWO = {"a": Output("1o", target="y"), "b": "1o"}


class Custom:
    """The vector action, with parts of it replaced."""

    label, shape = "custom", (3,)

    def __init__(self, **parts):
        vars(self).update(parts)

    def act(self, rotations, values):
        return IrrepsAction("1o").act(rotations, values)

    def canonical(self, values):
        return values

    def invariants(self, symmetry):
        return torch.zeros(3, 0, dtype=torch.float64)


def measure(**changes):
    arguments = SHORT | changes
    model, batches = arguments.pop("model", Tanh()), arguments.pop("batches", [random_batch()])
    return lambda: eq.measure(model, batches, **arguments)


def twirled(**changes):
    arguments = {k: v for k, v in SHORT.items() if k != "target"} | changes
    model, batch = arguments.pop("model", Tanh()), arguments.pop("batch", random_batch())
    return lambda: eq.Twirled(model, **arguments)(batch)


def metric(**changes):
    arguments = SHORT | changes
    batches, model = arguments.pop("batches", [random_batch()]), arguments.pop("model", Tanh())

    def run():
        filled = eq.EquivarianceError(**arguments)
        for batch in batches:
            filled.update(model, batch)
        return filled.compute()

    return run


def compare(**changes):
    arguments = SHORT | changes
    batches = arguments.pop("batches", [random_batch()])
    return lambda: eq.compare(Tanh(), arguments.pop("other", Tanh(seed=1)), batches, **arguments)


def output(**changes):
    return lambda: Output(**({"irreps": "1o"} | changes))


def declaration(**changes):
    return lambda: Declaration(**({"inputs": {"pos": "1o"}, "outputs": {"f": "1o"}} | changes))


CASES = {
    # measure: numbers.
    "cosets boolean": (measure(cosets=True), "cosets must be.*True"),
    "cosets float": (measure(cosets=2.0), r"cosets must be.*2\.0"),
    "cosets string": (measure(cosets="2"), "cosets must be.*'2'"),
    "cosets 0": (measure(cosets=0), "cosets must be.*0"),
    "cosets 1": (measure(cosets=1), "cosets=1 is too few"),
    "three cosets for l1": (measure(cosets=3, loss="l1"), "at least 4"),
    "seed negative": (measure(seed=-1), "seed must be.*-1"),
    "seed boolean": (measure(seed=False), "seed must be.*False"),
    "seed None": (measure(seed=None), "seed must be.*None"),
    "seed of 64 bits": (measure(seed=2**63), "seed must be.*9223372036854775808"),
    "seed far too large": (measure(seed=2**200), "seed must be"),
    "noise samples negative": (measure(noise_samples=-1), "noise_samples must be.*-1"),
    "noise samples float": (measure(noise_samples=8.0), "noise_samples must be"),
    "rtol 0": (measure(rtol=0), "rtol must lie.*0"),
    "rtol 1": (measure(rtol=1), "rtol must lie.*1"),
    "rtol NaN": (measure(rtol=math.nan), "rtol must lie.*nan"),
    "rtol string": (measure(rtol="5 %"), "rtol must lie.*'5 %'"),
    "rtol boolean": (measure(rtol=True), "rtol must lie.*True"),
    "rtol on a fixed set": (measure(rtol=0.1, shift=False, cosets=1), "leave shift=True"),
    "max_passes without rtol": (measure(max_passes=100), "max_passes=100.*rtol"),
    "max_passes 0": (measure(rtol=0.1, max_passes=0), "max_passes must be.*0"),
    "max_passes float": (measure(rtol=0.1, max_passes=10.5), r"max_passes must be.*10\.5"),
    # measure: rotations, spectrum.
    "unknown rotations": (measure(rotations="Q8"), "unknown rotations 'Q8'"),
    "rotations lower case": (measure(rotations="t"), "unknown rotations 't'"),
    "rotations None": (measure(rotations=None), "unknown rotations None"),
    "rotations a number": (measure(rotations=12), "unknown rotations 12"),
    "rotations a list": (measure(rotations=["T"]), r"unknown rotations \['T'\]"),
    "rotations a set": (measure(rotations=rotation_set("T")), "unknown rotations"),
    "rotations a matrix": (measure(rotations=2 * torch.eye(3)), "unknown rotations"),
    "Lebedev grid of even degree": (measure(rotations="lebedev-4"), "degree 4"),
    "Lebedev grid of negative weights": (measure(rotations="lebedev-13"), "degree 13"),
    "empty super-Fibonacci": (measure(rotations="superfibonacci-0"), "at least one"),
    "a fixed set of one": (measure(rotations="haar", cosets=1, shift=False), "shift=False"),
    "two fixed sets": (measure(cosets=2, shift=False), "cosets=1"),
    "spectrum beyond the set": (measure(spectrum=3), "degree 3 is above"),
    "spectrum 0": (measure(spectrum=0), "spectrum must be.*0"),
    "spectrum negative": (measure(spectrum=-2), "spectrum must be.*-2"),
    "spectrum string": (measure(spectrum="all"), "spectrum must be.*'all'"),
    "spectrum float": (measure(spectrum=2.5), r"spectrum must be.*2\.5"),
    "spectrum under O3": (measure(spectrum=True, group="O3"), "group='SO3'"),
    "spectrum of a fixed set": (measure(spectrum=True, cosets=1, shift=False), "leave shift=True"),
    "spectrum of l1": (measure(spectrum=True, loss="l1", cosets=4), "spectrum.*squared error.*l1"),
    # measure: everything else.
    "no model": (measure(model=None), "model.*NoneType"),
    "a path for a model": (measure(model="model.pt"), "model.*str"),
    "forward not callable": (measure(forward="run"), "forward.*'run'"),
    "no declaration": (measure(inputs=None, outputs=None), "say what rotates"),
    "declaration and its fields": (measure(declaration=declaration()()), "not both"),
    "declaration a dict": (
        measure(declaration={"inputs": {}}, inputs=None, outputs=None, target=None), "declaration must be.*dict"),
    "declaration and loss": (
        measure(declaration=declaration()(), inputs=None, outputs=None, target=None, loss="l1"), r"not both.*'loss'"),
    "misspelt argument": (measure(rotation="T"), r"unknown arguments \['rotation'\]"),
    "private argument": (measure(_points=("pos",)), r"unknown arguments \['_points'\]"),
    "one target for two outputs": (measure(outputs=TWO), "ambiguous"),
    "contradicting targets": (measure(outputs={"f": Output("1o", target="z")}), "contradicts"),
    "unknown loss": (measure(loss="rmse"), "unknown loss 'rmse'"),
    "loss None": (measure(loss=None), "unknown loss None"),
    "loss a list": (measure(loss=["mse"]), r"unknown loss \['mse'\]"),
    "cross-entropy of what": (measure(loss="cross_entropy"), "averages"),
    "loss other than squared without labels": (
        measure(loss="l1", target=None, cosets=4, fixed=["y"]), "needs a target"),
    # Declarations.
    "no inputs": (declaration(inputs={}), "no input"),
    "inputs None": (declaration(inputs=None), "no input"),
    "inputs a list": (declaration(inputs=["pos"]), r"inputs must be.*\['pos'\]"),
    "inputs a string": (declaration(inputs="pos"), "inputs must be.*'pos'"),
    "no outputs": (declaration(outputs={}), "no output"),
    "outputs a list": (declaration(outputs=["f"]), r"outputs must be.*\['f'\]"),
    "group in lower case": (declaration(group="so3"), "group must be.*'so3'"),
    "group None": (declaration(group=None), "group must be.*None"),
    "weighting unknown": (declaration(weighting="atom"), "weighting must be.*'atom'"),
    "fixed a string": (declaration(fixed="charge"), r"fixed.*\['charge'\]"),
    "fixed None": (declaration(fixed=None), "fixed.*None"),
    "a field both fixed and turned": (declaration(fixed=["pos"]), "'pos'.*both"),
    "mask not a name": (declaration(mask=torch.ones(2)), "mask must be the name"),
    "ids a list": (declaration(ids=[1, 2]), "ids must be the name"),
    "clusters a list": (declaration(clusters=[1, 2]), "clusters must be the name"),
    "center None": (declaration(center=None), "center must be"),
    "center a point": (declaration(center=(0, 0, 0)), "center must be"),
    "centre without positions": (declaration(inputs={"q": "2e"}, center="mean"), "center='mean'.*positions"),
    "centre of which positions": (declaration(inputs={"a": "1o", "b": "1o"}, center="mean"), "points=True"),
    "positions that are no vectors": (declaration(inputs={"q": Input("2e", points=True)}), "'q'.*positions"),
    "several positions in one field": (declaration(inputs={"q": Input("2x1o", points=True)}), "'q'.*positions"),
    # Outputs and actions.
    "per molecule": (output(per="molecule"), "per must be.*'molecule'"),
    "weight negative": (output(weight=-1.0), r"weight must be.*-1\.0"),
    "weight NaN": (output(weight=math.nan), "weight must be.*nan"),
    "weight infinite": (output(weight=math.inf), "weight must be.*inf"),
    "weight string": (output(weight="2"), "weight must be.*'2'"),
    "target not a name": (output(target=torch.ones(3)), "target must be the name"),
    "irreps None": (declaration(inputs={"pos": None}), "got None"),
    "irreps misspelt": (declaration(inputs={"pos": "vector"}), "'vector' is not an irreps"),
    "irreps without parity": (declaration(inputs={"pos": "1"}), "'1' is not an irreps"),
    "irreps empty": (declaration(outputs={"f": ""}), "dimension zero"),
    "irreps a number": (lambda: action(1), "got 1"),
    "action a class": (lambda: action(Custom), "instance"),
    "action that stretches": (lambda: action(Custom(act=lambda r, v: 2 * v)), "not unitary"),
    "action of the inverse": (
        lambda: action(Custom(act=lambda r, v: IrrepsAction("1o").act(r.mT, v))), "not a representation"),
    "action that returns NaN": (lambda: action(Custom(act=lambda r, v: v * math.nan)), "not unitary"),
    "action of another shape": (lambda: action(Custom(act=lambda r, v: v[..., :2])), "shape"),
    "set by a number": (lambda: rotation_set(24), "unknown rotations 24"),
    "key of a negative id": (lambda: haar_keyed(0, [-1]), "non-negative"),
    "key too large": (lambda: haar_keyed(2**64, [0]), "2\\*\\*64"),
    # compare.
    "compare towards rtol": (compare(rtol=0.1), "cosets instead of rtol"),
    "compare without labels": (compare(target=None, fixed=["y"]), "needs labels"),
    "compare one batch": (compare(batches=random_batch()), r"\[batch\]"),
    "compare nothing": (compare(batches=iter(())), "empty"),
    "compare with a string": (compare(other="model.pt"), "model.*str"),
    "compare at a total loss of zero": (
        lambda: eq.compare(*[lambda b: 0 * b["pos"]] * 2, [{k: 0 * v for k, v in random_batch().items()}], **SHORT),
        "total loss is zero"),
    # Twirled.
    "Twirled of no cosets": (twirled(cosets=0), "cosets.*0"),
    "Twirled of half a coset": (twirled(cosets=1.5), r"cosets.*1\.5"),
    "Twirled of a string": (twirled(cosets="2"), "cosets.*'2'"),
    "Twirled without shift": (twirled(cosets=2, shift=False), "exactly 1 with shift=False"),
    "Twirled negative seed": (twirled(seed=-3), "seed.*-3"),
    "Twirled unknown rotations": (twirled(rotations="C3"), "'C3'"),
    "Twirled without inputs": (twirled(inputs=None), "say what rotates"),
    "Twirled misspelt argument": (twirled(centre="mean"), r"\['centre'\]"),
    "Twirled field missing": (twirled(batch={"x": torch.ones(2, 3)}), "no tensor 'pos'"),
    "Twirled integer field": (twirled(batch={"pos": torch.ones(2, 3).long()}), "'pos'.*int64"),
    "Twirled wrong shape": (twirled(batch={"pos": torch.ones(2, 4)}), r"'pos'.*\(2, 4\)"),
    "Twirled mask missing": (twirled(mask="m"), "'m'"),
    "Twirled key missing": (twirled(model=lambda b: {"f": b["pos"]}), "no tensor 'forces'"),
    "Twirled one tensor for two": (
        twirled(outputs={"a": "1o", "b": "1o"}, model=lambda b: b["pos"]), "one tensor"),
    "Twirled of no batch": (twirled(batch=[1]), "type list"),
    # EquivarianceError.
    "metric cosets 1": (metric(cosets=1), "too few"),
    "metric cosets string": (metric(cosets="2"), "cosets must be"),
    "metric seed too large": (metric(seed=2**64), "seed must be"),
    "metric rotations": (metric(rotations=None), "unknown rotations None"),
    "metric misspelt argument": (metric(coset=2), r"\['coset'\]"),
    "metric of nothing": (metric(batches=[]), "nothing was measured"),
    "metric empty batch": (metric(batches=[{"pos": torch.ones(0, 3)}]), "empty batch"),
    "metric no batch": (metric(batches=[3]), "type int"),
    "metric target missing": (metric(target="f"), "'f'"),
    "metric no model": (metric(model=None), "model.*NoneType"),
    "metric NaN": (metric(batches=[random_batch() | {"y": torch.full((6, 4, 3), math.nan)}]), "target 'y'"),
    "metric of two samples with one id": (
        metric(batches=[random_batch() | {"id": torch.zeros(6).long()}], ids="id"), "share an id"),
    "metric ids negative": (metric(batches=[random_batch() | {"id": -torch.ones(6).long()}], ids="id"), "ids must be"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_typed_error(name):
    call, message = CASES[name]
    with pytest.raises(InputError, match=message):
        call()


def test_errors_leave_the_model_in_train_mode():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout())
    with pytest.raises(InputError):
        eq.measure(model, [{"x": torch.ones(2, 3)}], forward=lambda m, b: m(b["pos"]), **SHORT)
    assert model.training
    assert model[1].training


def test_there_are_enough_cases():
    assert len(CASES) >= 120
