"""The doctor: findings are a function of the facts, and every planted fault is found with its remedy."""

from dataclasses import replace

import pytest
import torch

from equiscope.errors import InputError
from equiscope.runs import doctor
from equiscope.runs.doctor import GOOD, SLOW, WRONG, Facts, findings, gather

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
    asked = doctor.Asked(parameters=5e6, tokens=100, samples=10, rotations=24, batch=10)
    # 10 samples × 26 passes × 2 × 5e6 × 100 operations at 1e11 a second.
    assert doctor.cost(asked, 1e11, 0.0) == pytest.approx(260 * 1e9 / 1e11)
    # A model of nothing waits for 500 launches a pass of ten samples.
    assert doctor.cost(replace(asked, parameters=1), 1e11, 1e-5) == pytest.approx(260 * 500 * 1e-5 / 10)
    facts = replace(HEALTHY, product={"cuda": 1e11}, launch={"cuda": 0.0})
    (found,) = [f for f in findings(facts, asked) if f not in findings(HEALTHY)]
    assert "100 GFLOP/s" in found.what
    assert "takes at least 2.6 s" in found.what
    with pytest.raises(InputError, match="--samples must be at least 1, got 0"):
        doctor.Asked(samples=0)


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

    monkeypatch.setattr(doctor, "gather", lambda: HEALTHY)
    assert cli.main(["doctor"]) == 0
    assert "ok     1 thread(s) on 2 core(s)" in capsys.readouterr().out
    assert cli.main(["doctor", "--quiet"]) == 0
    assert capsys.readouterr().out == "nothing slows or spoils a measurement here\n"
    monkeypatch.setattr(doctor, "gather", lambda: replace(HEALTHY, torchvision="broken"))
    assert cli.main(["doctor", "--quiet"]) == 1
    assert "pip uninstall torchvision" in capsys.readouterr().out
