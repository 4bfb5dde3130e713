"""Bad graphs and bad structures through the adapters: typed errors or failed rows, never a number."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from torch_geometric.data import Batch, Data

import equiscope as eq
import equiscope.adapters.pyg
from equiscope.adapters.ase import measure as measure_calculator
from equiscope.errors import DataError, DeclarationError, InputError, NonFiniteError, RandomModelError

from .calculators import Broken, PairsInAse, crystals

SIZES = (3, 4, 2)
NODES = sum(SIZES)


def graphs(**changes):
    """Small graphs; ``changes`` are functions of the index of the graph."""
    made = []
    for index, count in enumerate(SIZES):
        g = torch.Generator().manual_seed(index)
        data = Data(
            pos=torch.randn(count, 3, generator=g, dtype=torch.float64),
            y=torch.randn(count, 3, generator=g, dtype=torch.float64),
            id=torch.tensor([index]),
        )
        for name, value in changes.items():
            data[name] = value(index, count)
        made.append(data)
    return made


def model(data):
    return data.pos * torch.tensor([1.0, 2.0, 3.0]).to(data.pos)


def measure(data=None, answer=model, **changes):
    batch = Batch.from_data_list(data if data is not None else graphs())
    settings = dict(inputs={"pos": "1o"}, outputs={"f": "1o"}, target="y") | changes
    return eq.measure(answer, [batch], **settings)


def poked(value):
    return lambda index, count: torch.full((count, 3), value if index == 1 else 0.5, dtype=torch.float64)


def each(*shape, dtype=torch.float64):
    return lambda index, count: torch.ones(*[count if s == "nodes" else s for s in shape], dtype=dtype)


SAMPLE = {"e": eq.Output("0e", target="e", per="sample")}

GRAPHS = {
    "nan position": (dict(data=graphs(pos=poked(math.nan))), NonFiniteError, r"'pos'.*\[1\]"),
    "infinite target": (dict(data=graphs(y=poked(math.inf))), NonFiniteError, r"'y'.*\[1\]"),
    "huge position": (dict(data=graphs(pos=poked(1e308))), NonFiniteError, "'pos'.*too large"),
    "nan prediction": (dict(answer=lambda d: d.pos * math.nan), NonFiniteError, "'f'"),
    "integer positions": (dict(data=graphs(pos=each("nodes", 3, dtype=torch.int64))), DeclarationError, "'pos'.*int64"),
    "complex positions": (
        dict(data=graphs(pos=each("nodes", 3, dtype=torch.complex64))), DeclarationError, "'pos'.*complex64"),
    "two components": (dict(data=graphs(pos=each("nodes", 2))), DeclarationError, "'pos'"),
    "undeclared vector": (dict(data=graphs(v=each("nodes", 3))), DeclarationError, r"\['v'\]"),
    "numpy vector": (dict(data=graphs(v=lambda i, n: np.ones((n, 3)))), InputError, "'v'.*numpy"),
    "input missing": (dict(inputs={"x": "1o"}), DeclarationError, "no tensor 'x'"),
    "target missing": (dict(target="forces"), DeclarationError, "'forces'"),
    "target of words": (dict(data=graphs(word=lambda i, n: "a"), target="word"), DeclarationError, "'word'.*tensor"),
    "target a graph, answer a node": (
        dict(data=graphs(t=each(1, 3)), target="t", fixed=["y"]), InputError, "expected 3 graphs first"),
    "complex target": (dict(data=graphs(y=each("nodes", 3, dtype=torch.complex64))), InputError, "'y'.*complex64"),
    "answer of too many nodes": (dict(answer=lambda d: torch.cat([d.pos, d.pos])), InputError, "rows|nodes"),
    "answer of one row": (dict(answer=lambda d: d.pos[:1]), InputError, "rows|nodes"),
    "answer a graph declared a node": (dict(answer=lambda d: d.pos[:3]), InputError, "rows|nodes"),
    "answer a node declared a graph": (
        dict(data=graphs(e=each(1)), outputs=SAMPLE, target=None, fixed=["y"], answer=lambda d: {"e": d.pos[:, 0]}),
        InputError, "rows|graphs"),
    "answer changes shape": (
        dict(target=None, fixed=["y"],
             answer=lambda d: d.pos if torch.equal(d.pos, FIRST) else torch.stack([d.pos, d.pos], dim=1)),
        InputError, "'f'.*shape"),
    "random": (dict(answer=lambda d: d.pos + torch.randn(3)), RandomModelError, "'f'"),
    "mask of floats": (dict(data=graphs(m=each("nodes"))), DeclarationError, r"\['m'\]"),
    "float mask": (dict(data=graphs(m=each("nodes")), mask="m"), InputError, "'m'.*boolean"),
    "mask of graphs": (dict(data=graphs(m=each(1, dtype=torch.bool)), mask="m"), InputError, "'m'.*boolean"),
    "graph masked away": (
        dict(data=graphs(m=lambda i, n: torch.full((n,), i != 2)), mask="m"), InputError, r"\[2\].*zero atoms"),
    "negative ids": (dict(data=graphs(id=lambda i, n: torch.tensor([i - 1]))), InputError, "ids must be.*-1"),
    "float ids": (dict(data=graphs(id=lambda i, n: torch.tensor([i / 2]))), InputError, "ids must be"),
    "an id a node": (dict(data=graphs(id=each("nodes", dtype=torch.int64))), InputError, "'id'.*one value a graph"),
    "clusters missing": (dict(clusters="molecule"), DeclarationError, "'molecule'"),
    "nan clusters": (dict(data=graphs(c=lambda i, n: math.nan), clusters="c", fixed=["c"]), InputError, "'c'.*nan"),
    "centre of nodes": (dict(data=graphs(c=each("nodes", 3)), center="c"), InputError, "'c'"),
    "nan centre": (
        dict(data=graphs(c=lambda i, n: torch.full((1, 3), math.nan).double()), center="c"), NonFiniteError, "'c'"),
}  # fmt: skip
FIRST = Batch.from_data_list(graphs()).pos


@pytest.mark.parametrize("name", GRAPHS)
def test_bad_graphs(name):
    arguments, error, message = GRAPHS[name]
    if "ids" in name or "an id" in name:
        arguments = arguments | {"ids": "id"}
    with pytest.raises(error, match=message):
        measure(**arguments)


def test_single_nodes_and_repeated_ids_are_measured():
    data = [Data(pos=torch.randn(1, 3), y=torch.ones(1, 3), id=torch.tensor([5])) for _ in range(3)]
    result = measure(data, ids="id")
    assert result.samples == 3
    assert any("2 samples repeat an id" in n for n in result.notes)


class Answers(Broken):
    """`Broken` with one answer spoilt."""

    def __init__(self, key, value):
        super().__init__()
        self.key, self.value = key, value

    def calculate(self, atoms=None, *more):
        super().calculate(atoms, *more)
        self.results[self.key] = self.value(self.results[self.key])


def calculated(calculator=None, structures=None, *arguments, **settings):
    return measure_calculator(
        calculator or Broken(), crystals() if structures is None else structures, *arguments, progress=False,
        **({"rotations": "D2"} | settings),
    )  # fmt: skip


CALLS = {
    "cosets string": (dict(cosets="2"), InputError, "cosets must be.*'2'"),
    "cosets boolean": (dict(cosets=True), InputError, "cosets must be.*True"),
    "seed too large": (dict(seed=2**64), InputError, "seed"),
    "rotations None": (dict(rotations=None), InputError, "unknown rotations None"),
    "group None": (dict(group=None), InputError, "group must be.*None"),
    "infinite weight": (dict(force_weight=math.inf), InputError, "weight must be.*inf"),
    "weight a word": (dict(force_weight="high"), InputError, "weight must be.*'high'"),
    "labels a word": (dict(labels="forces"), InputError, "labels must be"),
    "labels asked for and not there": (dict(labels=True), InputError, "no structure has any"),
    "labels of another name": (dict(labels={"forces": "REF"}), InputError, "'REF'"),
    "no structures": (dict(structures=iter(())), InputError, "no structures"),
    "structures None": (dict(structures=3), InputError, "path or a list"),
    "no such file": (dict(structures="nowhere.xyz"), InputError, "nowhere.xyz"),
    "no calculator": (dict(calculator=object()), InputError, "calculator"),
    "outputs a word": (dict(outputs="forces"), InputError, r"\['forces'\]"),
    "field that is not there": (dict(rotate={"field": "1o"}), InputError, "'field'"),
    "centre None": (dict(center=None), InputError, "center must be"),
}


@pytest.mark.parametrize("name", CALLS)
def test_bad_calls(name):
    arguments, error, message = CALLS[name]
    with pytest.raises(error, match=message):
        calculated(**arguments)


ANSWERS = {
    "nan forces": ("forces", lambda f: f * math.nan, "NaN"),
    "infinite energy": ("energy", lambda e: e + math.inf, "infinite"),
    "forces of too few atoms": ("forces", lambda f: f[1:], "shape"),
    "forces of two components": ("forces", lambda f: f[:, :2], "shape"),
    "forces None": ("forces", lambda f: None, "forces"),
    "forces too large to square": ("forces", lambda f: f + 1e200, "too large"),
    "stress of three numbers": ("stress", lambda s: s[:3], "shape|AssertionError"),
    "nan stress": ("stress", lambda s: s * math.nan, "NaN"),
    "energy a word": ("energy", lambda e: "low", "energy|could not|dtype|string"),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.filterwarnings("ignore:overflow")
def test_bad_answers_fail_their_structure_alone(name):
    key, value, message = ANSWERS[name]
    # Only the first structure is answered badly, the others are measured as if alone.
    bad, rest = crystals()[0], crystals()[1:]
    with np.errstate(all="ignore"), pytest.raises(InputError, match=rf"none of the 1 structures(?s:.*)({message})"):
        calculated(Answers(key, value), [bad])
    count = len(bad)
    chosen = Answers(key, lambda v: v)
    chosen.calculate = lambda atoms=None, *more: (
        Answers.calculate(chosen, atoms, *more),
        chosen.results.update({key: value(chosen.results[key])} if len(atoms) == count else {}),
    )
    mixed = [bad, *(a for a in rest if len(a) != count)]
    if len(mixed) > 1:
        with np.errstate(all="ignore"):
            assert [r.status for r in calculated(chosen, mixed).rows] == ["failed", *["measured"] * (len(mixed) - 1)]


@pytest.mark.parametrize("broken", ["not an xyz file", "3\n\nH 0 0 0\n"])
def test_broken_files(tmp_path, broken):
    path = tmp_path / "broken.xyz"
    path.write_text(broken)
    with pytest.raises((DataError, InputError), match=r"broken\.xyz"):
        calculated(structures=path)


def test_no_atoms_and_one_atom():
    result = calculated(structures=[Atoms(), Atoms("Cu", [[0.0, 0, 1]])], outputs=["forces"])
    assert [r.status for r in result.rows] == ["failed", "measured"]
    assert result.result.samples == 1


@pytest.mark.parametrize(
    ("change", "told"), [("none", False), ("shift", False), ("rattle", True), ("turn", True), ("cell", True)]
)
def test_labels_stored_before_the_atoms_were_moved(change, told):
    """ASE drops what was stored for other positions; labels are read from where they were stored, and a note says."""
    structures = crystals()[:2]
    for atoms in structures:
        atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=np.ones((len(atoms), 3)))
    moved = structures[1]
    if change == "shift":
        moved.positions += [1.0, 2.0, 3.0]
    elif change == "rattle":
        moved.rattle(0.1)
    elif change == "turn":
        moved.rotate(30, "z", rotate_cell=True)
    elif change == "cell":
        moved.set_cell(1.1 * moved.cell.array)
    design = {"progress": False, "noise_samples": 0, "rotations": "D2"}
    result = measure_calculator(PairsInAse(), structures, ["forces"], True, **design)
    assert any("structures [1] were stored before" in note for note in result.notes) == told


def test_there_are_enough_cases():
    assert len(GRAPHS) + len(CALLS) + len(ANSWERS) >= 50
