"""The baseline is measured once a run, with the samples and rotations of its probes; skill is the loss beside it."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.records import Records
from equiscope.runs.tracker import Tracking, measure_probe, record_baseline, record_probes, skill
from equiscope.tasks.task import Probe

DECLARATION = eq.Declaration({"pos": "1o"}, {"forces": eq.Output("1o", target="forces")}, ids="id")


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, batch):
        return {"forces": self.factor * batch["pos"]}


def probe(name="forces"):
    pos = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0))
    return Probe(name, [{"pos": pos, "forces": pos, "id": torch.arange(6)}], DECLARATION)


def measured(model, one):
    return measure_probe(model, one, Tracking(rotations="D2"))


@pytest.fixture
def records(tmp_path):
    with Records(tmp_path / "records.jsonl") as made:
        yield made


def test_skill_is_one_less_the_ratio_of_losses(records):
    made = []

    def baseline():
        made.append(1)
        return Scaled(0.5)

    task = SimpleNamespace(baseline=baseline)
    for _ in range(2):
        record_baseline(records, task, [probe()], "track", measured)
    (told,) = [r for r in records.entries if r["kind"] == "baseline"]
    assert len(made) == 1
    # The residual is (0.5 − 1) x, and R² is taken against zero.
    square = float(probe().batches[0]["pos"].double().square().mean())
    assert (told["model"], told["part"], told["probe"]) == ("Scaled", "track", "forces")
    assert told["total"] == pytest.approx(0.25 * square, rel=1e-6)
    assert told["r2"] == pytest.approx(0.75, rel=1e-6)
    found, _ = record_probes(records, Scaled(0.9), [probe()], "track", 5, Tracking(rotations="D2"))
    assert found[0]["skill"] == pytest.approx(1 - 0.01 / 0.25, rel=1e-4)
    found, _ = record_probes(records, Scaled(0.0), [probe()], "track", 6, Tracking(rotations="D2"))
    assert found[0]["skill"] == pytest.approx(1 - 1 / 0.25, rel=1e-4)


def test_each_part_has_its_own(records):
    task = SimpleNamespace(baseline=lambda: Scaled(0.5))
    record_baseline(records, task, [probe()], "track", measured)
    assert skill(records, "final", "forces", 1.0) == {}
    record_baseline(records, task, [probe(), probe("other")], "final", measured)
    assert {(r["part"], r["probe"]) for r in records.entries} == {
        ("track", "forces"), ("final", "forces"), ("final", "other")}  # fmt: skip


def test_without_a_baseline_there_is_no_skill(records):
    record_baseline(records, SimpleNamespace(), [probe()], "track", measured)
    assert records.entries == []
    found, _ = record_probes(records, Scaled(0.9), [probe()], "track", 5, Tracking(rotations="D2"))
    assert "skill" not in found[0]
    records.append("baseline", part="track", probe="forces", total=0.0)
    assert skill(records, "track", "forces", 1.0) == {}
    records.append("baseline", part="track", probe="third", total=2.0)
    assert skill(records, "track", "third", math.nan) == {}
