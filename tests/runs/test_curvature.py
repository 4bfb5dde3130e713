"""Independent batches for gradients and curvature, gradients along training, and the three analyses of a run."""

import pytest
import torch
from torch import nn

from equiscope import Declaration, Input, Output, records
from equiscope.errors import InputError
from equiscope.runs import analyse as module
from equiscope.runs.analyse import analyse
from equiscope.runs.curvature import GRADIENTS, adam_state, dealt, doubled, joined
from equiscope.runs.tracker import TrackSettings, affordable_points
from equiscope.runs.train import train

from .toy import Toy, config

MASKED = Declaration(
    inputs={"pos": Input("1o", points=True)}, outputs={"f": Output("1o")}, mask="mask", clusters="molecule", ids="id"
)


def padded(sizes, first, molecules):
    mask = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
    pos = torch.where(mask[..., None], torch.randn(*mask.shape, 3), 0.0)
    return {"pos": pos, "mask": mask, "molecule": torch.tensor(molecules), "id": torch.arange(len(sizes)) + first}


def test_batches_are_independent_and_hold_every_sample_once():
    batches = [padded([2, 3, 3], 0, [7, 7, 8]), padded([5, 4], 3, [9, 8]), padded([4, 4, 2], 5, [1, 2, 3])]
    made = dealt(batches, MASKED, 2)
    assert sorted(torch.cat([b["id"] for b in made]).tolist()) == list(range(8))
    where = {}
    for place, batch in enumerate(made):
        for molecule in batch["molecule"].tolist():
            assert where.setdefault(molecule, place) == place
        for row, mask, number in zip(batch["pos"], batch["mask"], batch["id"].tolist(), strict=True):
            source = next(b for b in batches if number in b["id"].tolist())
            own = (source["id"] == number).nonzero().item()
            torch.testing.assert_close(row[mask], source["pos"][own][source["mask"][own]])
    assert len(made) == 4
    orders = {next(b["id"].tolist() for b in dealt(batches, MASKED, 2, seed)[:1]).__str__() for seed in range(6)}
    assert len(orders) > 1
    with pytest.raises(InputError, match="batch must be"):
        dealt(batches, MASKED, 0)


def test_joined_pads_every_axis():
    made = joined([{"pair": torch.ones(1, 2, 2)}, {"pair": torch.ones(1, 3, 3)}])
    assert made["pair"].shape == (2, 3, 3)
    assert float(made["pair"][0].sum()) == 4


def test_only_adam_has_a_metric():
    assert adam_state({"state": {0: {"momentum_buffer": 1}}}) is None
    assert adam_state({"state": {}}) is None
    state = {"state": {0: {"exp_avg_sq": 1}}}
    assert adam_state(state) is state


def test_gradients_cost_points():
    probes = Toy(0, 8).probes("track")
    plain = affordable_points(probes, TrackSettings(), 8, 400)
    assert affordable_points(probes, TrackSettings(gradients=True), 8, 400) < plain


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return train(config(root, trainer__keep=[0, 12, 40], track__gradients=True, data={"dropout": 0.0}))


def test_gradients_are_tracked_with_the_weights_that_are_measured(run):
    book = records.read(run.records)
    found = [r for r in book if r["kind"] == "analysis"]
    measured = [r["step"] for r in book if r["kind"] == "measure" and r["part"] == "track"]
    assert [r["step"] for r in found] == measured
    last, loss = found[-1]["values"], next(r for r in book if r["kind"] == "measure" and r["step"] == 40)["result"]
    # The same samples and rotations: the losses agree with those of the measure.
    assert last["losses"]["equivariance"] == pytest.approx(loss["equivariance"], rel=1e-4)
    assert last["losses"]["twirled"] == pytest.approx(loss["twirled"], rel=1e-4)
    assert found[0]["values"]["adam"] is None
    assert last["adam"] is not None
    # An analysis at a tracked step has nothing left to do.
    before = run.records.read_bytes()
    analyse(run.path, ["gradients"], at=[0, 40])
    assert records.read(run.records)[len(book) :] == [] or all(
        r["analysis"] == "relations" for r in records.read(run.records)[len(book) :]
    )
    assert run.records.read_bytes().startswith(before)
    assert GRADIENTS.samples == 48


def test_curvature_and_landscape_at_kept_steps(run, monkeypatch):
    monkeypatch.setitem(module.PLANE, "points", 7)
    monkeypatch.setitem(module.PLANE, "plane_points", 5)
    made = analyse(run.path, ["hessian", "landscape"], at=[12, 40], changes={"samples": 8})
    hessian, landscape = made[1]["values"], made[3]["values"]
    for part in ("twirled", "equivariance"):
        assert hessian["parts"][part]["hessian"]["lambda_max"]["value"] > 0
        assert len(landscape["plane"]["parts"][part]["value"]) == 5


class Single(nn.Linear):
    def forward(self, x):
        return super().forward(x.float())


def test_a_copy_in_float64():
    batches = [{"x": torch.ones(2, 3), "id": torch.arange(2)}]
    model = nn.Linear(3, 3)
    exact, made = doubled(model, batches, lambda m, batch: m(batch["x"]))
    assert made[0]["x"].dtype == exact.weight.dtype == torch.float64
    assert made[0]["id"].dtype == torch.int64
    assert model.weight.dtype == torch.float32
    assert exact.weight.requires_grad
    with pytest.raises(InputError, match="Single does not run in float64"):
        doubled(Single(3, 3), batches, lambda m, batch: m(batch["x"]))
