"""The doctor: findings are a function of the facts, and every planted fault is found with its remedy."""

import time
from dataclasses import replace

import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.errors import InputError
from equiscope.runs import doctor
from equiscope.runs.config import configuration
from equiscope.runs.doctor import GOOD, SLOW, WRONG, Facts, findings, gather
from equiscope.runs.efficiency import Bench

HEALTHY = Facts(
    versions={name: "1.0" for group in doctor.PACKAGES.values() for name in group},
    threads=1,
    cores=2,
    load=0.3,
    seconds={1: 0.004},
    torchvision="absent",
    devices=("H100",),
    matmul_error={"cpu": 3e-7, "cuda": 3e-7},
    precision="highest",
    default_dtype="float32",
)


def test_a_healthy_machine():
    found = findings(HEALTHY)
    assert {finding.level for finding in found} == {GOOD}
    assert any("GPU: H100" in finding.what for finding in found)


@pytest.mark.parametrize(
    ("changes", "level", "message", "remedy"),
    [
        ({"threads": 2, "load": 1.6, "seconds": {1: 0.004, 2: 0.004}}, SLOW, "machine is busy, and OpenMP", "OMP_NUM"),
        ({"threads": 2, "seconds": {1: 0.004, 2: 0.08}}, SLOW, "2 threads are 20.0 times slower than one", "OMP_NUM"),
        ({"threads": 8}, SLOW, "more threads than cores", "OMP_NUM_THREADS=1"),
        ({"load": 5.0}, SLOW, "overloaded", "wait"),
        ({"torchvision": "broken"}, WRONG, "torchvision is built for another torch", "pip uninstall torchvision"),
        ({"matmul_error": {"cuda": 3e-4}, "precision": "high"}, WRONG, "on cuda are right to 3e-04 only", "highest"),
        ({"default_dtype": "float64"}, SLOW, "float64", "set_default_dtype"),
        ({"versions": {**HEALTHY.versions, "lightning": "2.6.3"}}, WRONG, "carried malware", "pip install -U"),
        ({"versions": {**HEALTHY.versions, "e3nn": None}}, WRONG, "e3nn missing", "pip install equiscope"),
        ({"versions": {**HEALTHY.versions, "rdkit": None}}, GOOD, "rdkit not installed", "equiscope[data]"),
    ],
)
def test_each_fault(changes, level, message, remedy):
    (found,) = [f for f in findings(replace(HEALTHY, **changes)) if f not in findings(HEALTHY)]
    assert found.level == level
    assert message in found.what
    assert remedy in found.remedy


def test_what_a_measurement_costs_by_counting():
    asked = doctor.Asked(parameters=5e6, tokens=100, samples=100, rotations=24, batch=10)
    # 100 samples × 27 passes of 1 s; a model of nothing waits for 500 launches a pass of ten samples.
    assert doctor.cost(asked, 1.0, 1e-5) == pytest.approx(2700)
    assert doctor.cost(asked, 1e-9, 1e-5) == pytest.approx(2700 * 500 * 1e-5 / 10)
    facts = replace(HEALTHY, stack={"cuda": 0.5}, launch={"cuda": 1e-6})
    (found,) = [f for f in findings(facts, asked) if f not in findings(HEALTHY)]
    assert "100 samples with 24 rotations takes about 1,400 s with a stack of residual blocks, 5e+06" in found.what
    assert "equiscope doctor task=" in found.remedy
    (found,) = [f for f in findings(replace(facts, model=("net", {"cuda": 0.25})), asked) if f not in findings(HEALTHY)]
    assert found.what.startswith("cuda: net, 250 ms a sample and pass; a measurement")
    assert found.what.endswith("takes about 680 s")
    with pytest.raises(InputError, match="--samples must be at least 1, got 0"):
        doctor.Asked(samples=0)


class Blocks(nn.Module):
    """Three residual blocks of 96 features written out, on rows of three numbers: a network as the stack stands for."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(
            nn.ModuleList([nn.LayerNorm(96), nn.Linear(96, 384), nn.Linear(384, 96)]) for _ in range(2)
        )

    def forward(self, batch):
        x = batch["pos"].repeat(1, 1, 32)
        for norm, wide, narrow in self.parts:
            x = x + narrow(nn.functional.silu(wide(norm(x))))
        return {"forces": x[..., :3]}


def test_the_estimate_is_what_a_measurement_takes(monkeypatch):
    """In seconds of the processor, a network like the stack (1.4 to 1.5 seen) and a named model (1.0 to 1.4)."""
    monkeypatch.setattr(doctor.time, "perf_counter", time.process_time)

    def taken(*given, **told):
        spent = []
        for _ in range(2):
            begun = time.process_time()
            eq.measure(*given, **told)
            spent.append(time.process_time() - begun)
        return min(spent)

    batch = {"pos": torch.randn(64, 16, 3), "forces": torch.randn(64, 16, 3)}
    model = Blocks()
    asked = doctor.Asked(sum(p.numel() for p in model.parameters()), 16, 64, 24, 64)
    seen = taken(model, [batch], inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="forces")
    assert 1 / 2 < seen / doctor.cost(asked, doctor._stack(asked, "cpu")) < 2
    # One stack for both, of 660 parameters.
    small, smaller = (doctor._stack(replace(asked, parameters=count), "cpu") for count in (660, 6))
    assert 20 < small / smaller < 500
    settings = ["task=proteinflow", "model.size=nano", "data.track_chains=8", "data.final_chains=2", "batch_size=8"]
    name, timed = doctor._model(settings, ["cpu"])
    assert name == "proteina of 34,248 parameters"
    bench = Bench.of(configuration(["run=doctor", "logger=none", *settings]), torch.device("cpu"))
    probe = next(probe for probe in bench.task.probes("track") if probe.headline)
    seen = taken(bench.model, [bench.asked], probe.declaration, forward=probe.forward)
    assert 1 / 2 < seen / doctor.cost(replace(asked, samples=8), timed["cpu"]) < 2


def test_threads_that_help_are_praised():
    (found,) = findings(replace(HEALTHY, threads=2, seconds={1: 0.004, 2: 0.002}))[:1]
    assert found.level == GOOD
    assert "2.0 times as fast" in found.what


def test_facts_of_this_process():
    threads = torch.get_num_threads()
    facts = gather()
    assert torch.get_num_threads() == threads == facts.threads
    assert facts.versions["torch"] == torch.__version__
    assert facts.torchvision == "absent"
    assert 1e-8 < facts.matmul_error["cpu"] < 1e-5
    assert all(seconds > 0 for seconds in facts.seconds.values())


def test_rough_products_are_measured():
    # What bfloat16 in place of float32 gives: the error that the threshold must tell apart.
    a, b = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rough = ((a.bfloat16() @ b.bfloat16()).double() - a @ b).norm() / (a @ b).norm()
    assert float(rough) > 100 * doctor.ROUGH


def test_command(capsys, monkeypatch):
    from equiscope import cli

    monkeypatch.setattr(doctor, "gather", lambda asked, settings: HEALTHY)
    assert cli.main(["doctor"]) == 0
    assert "ok     1 thread(s) on 2 core(s)" in capsys.readouterr().out
    assert cli.main(["doctor", "--quiet"]) == 0
    assert capsys.readouterr().out == "nothing slows or spoils a measurement here\n"
    monkeypatch.setattr(doctor, "gather", lambda asked, settings: replace(HEALTHY, torchvision="broken"))
    assert cli.main(["doctor", "--quiet"]) == 1
    assert "pip uninstall torchvision" in capsys.readouterr().out
