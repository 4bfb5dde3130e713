"""What a person types first: forty wrong inputs and twenty of newer parts, each answered by its remedy."""

import math
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

import equiscope as eq
from equiscope import cli
from equiscope.errors import EquiscopeError

torch.manual_seed(0)
ROOT = Path(__file__).parent.parent
NET = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
POS, FORCES = torch.randn(8, 5, 3), torch.randn(8, 5, 3)
BATCH = {"pos": POS, "forces": FORCES}
RIGHT = {
    "model": NET, "batches": [BATCH], "inputs": {"pos": "1o"}, "outputs": {"forces": "1o"}, "target": "forces",
}  # fmt: skip


def answers(function):
    return {"forward": lambda model, batch: function(model(batch["pos"]))}


class Random(torch.nn.Module):
    def forward(self, batch):
        return torch.randn(8, 5, 3)


def called(pos, charges):
    return pos


STRESS = {"pos": POS, "stress": torch.randn(8, 3, 3)}
CLASSES = {"pos": POS, "label": torch.arange(8) % 4}
CLASSIFIER = {"batches": [CLASSES], "target": "label", "loss": "cross_entropy_logits",
              "forward": lambda model, batch: model(batch["pos"]).mean(1)}  # fmt: skip

#: what was typed -> what changes of the right call, and the remedy in the answer.
WRONG = {
    "a mistyped target": ({"target": "force"}, "did you mean 'forces'?"),
    "a field under another name": ({"inputs": {"poss": "1o"}}, "did you mean 'pos'?"),
    "a word for irreps": ({"inputs": {"pos": "vector"}}, "a vector is '1o'"),
    "a number for irreps": ({"inputs": {"pos": "1"}}, "a 1 is '1o'"),
    "no target": ({"target": None}, "target='forces'"),
    "no inputs": ({"inputs": None}, "inputs={'pos': '1o'}"),
    "no outputs": ({"outputs": {}}, "give outputs={'forces': '1o'}"),
    "inputs as a list": ({"inputs": ["pos"]}, "a dict such as {'pos': '1o'}"),
    "an undeclared field": ({"batches": [{**BATCH, "q": torch.ones(8)}]}, "fixed=['q']"),
    "fixed as a word": ({"fixed": "q", "batches": [{**BATCH, "q": torch.ones(8)}]}, "fixed=['q']"),
    "a tuple for a batch": ({"batches": [(POS, FORCES)]}, "fields=('pos', 'forces')"),
    "a tensor for a batch": ({"batches": [POS]}, "fields=('pos',)"),
    "a TensorDataset": ({"batches": TensorDataset(POS, FORCES)}, "DataLoader(dataset, batch_size=32)"),
    "one batch for many": ({"batches": BATCH}, "write [batch]"),
    "an empty list": ({"batches": []}, "a used-up generator?"),
    "atoms without samples": ({"batches": [{"pos": POS[0], "forces": FORCES[0]}]}, "give the batch an axis of samples"),
    "NaN in the labels": ({"batches": [{**BATCH, "forces": FORCES * math.nan}]}, "leave what has no label out of"),
    "a float for a mask": ({"batches": [{**BATCH, "m": torch.ones(8, 5)}], "mask": "m"}, "write mask > 0"),
    "a path for a model": ({"model": "model.pt"}, "load it first"),
    "a state for a model": ({"model": NET.state_dict()}, "model.load_state_dict"),
    "a class for a model": ({"model": torch.nn.Linear}, "give an instance"),
    "a model of other arguments": ({"model": called}, "forward=lambda model, batch: model(batch['pos'], batch["),
    "a random model": ({"model": Random()}, "switch the randomness off"),
    "None for an answer": (answers(lambda f: None), "end with a return?"),
    "another name in the answer": (answers(lambda f: {"force": f}), "did you mean 'force'?"),
    "two tensors for one output": (answers(lambda f: (f, f)), "forward=lambda model, batch: model(batch)[0]"),
    "two components for a vector": (answers(lambda f: f[..., :2]), "'2x0e' for scalars"),
    "six components for a vector": (answers(lambda f: torch.cat([f, f], -1)), "'2x1o'"),
    "integers for an answer": (answers(lambda f: f.long()), "must be floating"),
    "a matrix declared as irreps": (
        {"batches": [STRESS], "target": "stress", "outputs": {"s": "0e+2e"}, "forward": lambda m, b: b["stress"]},
        "'stress' if they are symmetric"),
    "mae for l1": ({"loss": "mae"}, "'mae' is 'l1' here"),
    "rmse": ({"loss": "rmse"}, "'rmse' is 'mse' here"),
    "cross_entropy": ({"loss": "cross_entropy"}, "loss='cross_entropy_probabilities' averages"),
    "torch's cross-entropy": ({"loss": torch.nn.CrossEntropyLoss()}, "loss='cross_entropy_logits' averages"),
    "a loss of the whole batch": ({"loss": lambda p, y: (p - y).abs().mean()}, "average over atoms and"),
    "logits as one scalar": (CLASSIFIER | {"outputs": {"logits": "0e"}}, "'4x0e'"),
    "a number of rotations": ({"rotations": 24}, "such as 'T' or 'haar'"),
    "another name of an argument": ({"n_rotations": 100}, "did you mean 'rotations'?"),
    "one coset": ({"cosets": 1}, "at least 2"),
    "clusters that are not there": ({"clusters": "force"}, "it has ['forces', 'pos']"),
}  # fmt: skip


#: The newer arguments: a symmetry, rungs of precisions.
NEWER = {
    "another symmetry's name": ({"symmetry": "rotations"}, "did you mean 'rotation'?"),
    "several symmetries in one word": ({"symmetry": "rotation, parity"}, "a tuple, symmetry=('rotation', 'parity')"),
    "no symmetry": ({"symmetry": ()}, "give one of rotation,"),
    "a symmetry twice": ({"symmetry": ("parity", "parity")}, "names parity twice"),
    "a class for a symmetry": ({"symmetry": eq.symmetries.Translation}, "Translation(…)"),
    "a word for a length": ({"symmetry": "translation=far"}, "'translation=10'"),
    "a shift of less than nothing": ({"symmetry": "translation=-1"}, "'translation=10' shifts by up to 10"),
    "a lattice without a cell": ({"symmetry": "lattice"}, "inputs={'cell': eq.Input('1o', points=False"),
    "edges of no field": ({"symmetry": "edges"}, "eq.symmetries.EdgeOrder(fields=['neighbours']"),
    "a spectrum of renumberings": ({"symmetry": "permutation", "spectrum": True}, "leave them out"),
    "rotations of translations": ({"symmetry": "translation", "rotations": "O"}, "leave it out"),
    "symmetries of L1 taken apart": ({"symmetry": ("rotation", "parity"), "loss": "l1"}, "one symmetry at a time"),
}  # fmt: skip

#: What was typed at the command line -> the remedy in the answer.
COMMANDS = {
    "measure --calculator ase.calculators.emt:EMT h2o.xyz --precisions float64,half": "measure it as it is",
    "measure --calculator ase.calculators.emt:EMT h2o.xyz --precisions float32 --csv x.csv": "leave out --csv",
    "measure --calculator ase.calculators.emt:EMT h2o.xyz --symmetry spacegroup": "did you mean 'space group'?",
    "measure --calculator ase.calculators.emt:EMT h2o.xyz --export mlpeg x": "are for mlip-arena, ml-peg",
    "measure --metatomic none.pt h2o.xyz": "mtt export",
    "measure --torch-sim my_model:make h2o.xyz": "pip install 'equiscope[torch-sim]'",
    "study dynamic task=forcefield": "there is no study 'dynamic', did you mean 'dynamics'?",
    "study dynamics study.seeds=2": "such as [0,1,2]",
    "study paper_scale study.minutes=ten": "a positive number of minutes, or null",
    "analyse forcefield/none dynamics": "task/name for runs/task/name",
}


def test_how_many_there_are():
    assert (len(WRONG), len(NEWER) + len(COMMANDS)) == (40, 22)


def test_the_right_call_is_right():
    assert eq.measure(RIGHT["model"], **{k: v for k, v in RIGHT.items() if k != "model"}).percent > 1


@pytest.mark.parametrize("typed", [*WRONG, *NEWER])
def test_a_wrong_input_is_answered_by_its_remedy(typed):
    changes, remedy = (WRONG | NEWER)[typed]
    arguments = RIGHT | changes
    with pytest.raises(EquiscopeError) as caught:
        eq.measure(arguments.pop("model"), arguments.pop("batches"), **arguments)
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("typed", COMMANDS)
def test_a_wrong_command_is_answered_by_its_remedy(typed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("h2o.xyz").write_text("3\n\nO 0 0 0.1\nH 0 0.8 -0.5\nH 0 -0.8 -0.5\n")
    # As where it is not installed, whatever stands for it in other tests.
    monkeypatch.delitem(sys.modules, "equiscope.adapters.torch_sim", raising=False)
    monkeypatch.setitem(sys.modules, "torch_sim.state", None)
    assert cli.main(typed.split()) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("equiscope: ")]
    assert COMMANDS[typed] in said


def test_an_energy_a_graph_is_understood():
    """One label a graph, and not one a node, says that the output is one a graph; the result says how it was taken."""
    pyg = pytest.importorskip("torch_geometric.data")
    import equiscope.adapters.pyg  # noqa: F401

    def model(batch):
        return torch.zeros(batch.num_graphs).index_add(0, batch.batch, batch.pos[:, 0])

    graphs = pyg.Batch.from_data_list([pyg.Data(pos=torch.randn(n, 3), y=torch.randn(1)) for n in (3, 4, 5, 1)])
    settings = {"inputs": {"pos": "1o"}, "target": "y"}
    short = eq.measure(model, [graphs], outputs={"energy": "0e"}, **settings)
    said = eq.measure(model, [graphs], outputs={"energy": eq.Output("0e", per="sample")}, **settings)
    assert (short.total, short.equivariance) == (said.total, said.equivariance)
    assert set(short.notes) - set(said.notes) == {
        "'energy' was taken as one row for each sample, as its labels are: per='sample' says so"
    }
    with pytest.raises(EquiscopeError, match="per='sample'"):
        eq.measure(model, [graphs], inputs={"pos": "1o"}, outputs={"energy": "0e"}, fixed=["y"])


def test_a_classifier_as_the_pages_spell_it():
    """The row of README and the call of the page on classification, to the letter."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(60, 10))
    loader = [(torch.randn(16, 20, 3), torch.randint(0, 10, (16,))) for _ in range(2)]
    page = (ROOT / "docs" / "classification.md").read_text()
    call = page.split("```")[1].strip()
    (row,) = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| a classifier |")]
    assert row.split("`")[1] in " ".join(call.split())
    found = eval(call, {"eq": eq, "model": model, "loader": loader})
    assert found.loss == "cross_entropy_probabilities"


def test_matrices_are_no_vectors():
    """(…, 3, 3) declared '1o' is turned on its last axis alone: rows of vectors, which a note says."""
    pos = torch.randn(6, 5, 3)
    batch = {"pos": pos, "s": pos.mT @ pos}

    def measured(spec):
        settings = {"inputs": {"pos": "1o"}, "outputs": {"s": spec}, "target": "s"}
        return eq.measure(lambda b: b["pos"].mT @ b["pos"], [batch], **settings)

    said = "its rows turn as vectors, each alone; if it is a tensor, declare it 'cartesian'"
    for spec in (eq.Output("1o", per="sample"), eq.Output("1o", per="sample", loss="huber")):
        found = measured(spec)
        assert said in " ".join(found.notes)
        assert found.relative_equivariance > 1e-2
    assert measured(eq.Output("cartesian", per="sample")).relative_equivariance < 1e-10
    # On purpose: the rows turned as vectors are no symmetry of this model.
    on_purpose = measured(eq.Output("1o", per="sample", points=False))
    assert on_purpose.relative_equivariance > 1e-2
    assert said not in " ".join(on_purpose.notes)
    # Three atoms are no matrix.
    water = {"pos": torch.randn(6, 3, 3)}
    found = eq.measure(lambda b: b["pos"], [water], inputs={"pos": "1o"}, outputs={"f": "1o"})
    assert found.relative_equivariance < 1e-10
    assert said not in " ".join(found.notes)


def test_graph_networks_are_called_by_their_signature():
    pyg = pytest.importorskip("torch_geometric.data")
    import equiscope.adapters.pyg  # noqa: F401

    class Network(torch.nn.Module):
        def forward(self, z, pos, batch=None):
            weight = z[:, None] * pos * torch.tensor([1.0, 0.5, 0.0])
            return torch.zeros(int(batch.max()) + 1).index_add(0, batch, weight.square().sum(-1))

    made = [pyg.Data(pos=torch.randn(n, 3), z=torch.ones(n), y=torch.randn(1)) for n in (3, 4, 5)]
    settings = {"inputs": {"pos": "1o"}, "outputs": {"e": eq.Output("0e", target="y", per="sample")}, "fixed": ["z"]}
    found = eq.measure(Network(), [pyg.Batch.from_data_list(made)], **settings)
    said = eq.measure(Network(), [pyg.Batch.from_data_list(made)], **settings,
                      forward=lambda m, b: m(b.z, b.pos, b.batch))  # fmt: skip
    assert found.percent == said.percent > 0


def test_labels_are_named_with_the_option(capsys):
    assert cli.main(["measure", "--calculator", "ase.calculators.emt:EMT", "--label", "forces", "x.xyz"]) == 2
    assert "--label forces=REF_forces" in capsys.readouterr().err
