"""Devices have one name everywhere; ``gpu`` is the one that is here."""

import pytest
import torch

from equiscope.errors import InputError
from equiscope.runs import devices


def test_names(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.fitting(None) == devices.fitting("auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.fitting(None) == devices.fitting("auto") == devices.fitting("gpu") == "cuda"
    assert [devices.fitting(name) for name in ("cpu", "cuda", "cuda:1", "mps")] == ["cpu", "cuda", "cuda:1", "mps"]
    for wrong in ("gpu:0", "CUDA", "cuda:x", "xpu", ""):
        with pytest.raises(InputError, match="there is no device .*the devices are cpu, cuda, cuda:0"):
            devices.fitting(wrong)


@pytest.mark.parametrize(
    ("name", "count", "due"),
    [
        ("auto", 1, ("auto", 1)),
        ("gpu", 2, ("gpu", 2)),
        ("cpu", 1, ("cpu", 1)),
        ("cuda", [0, 1], ("cuda", [0, 1])),
        ("cuda:1", 1, ("cuda", [1])),
        ("mps", 1, ("mps", 1)),
        (None, None, (None, None)),
    ],
)
def test_the_accelerator_of_a_run_has_the_names_of_torch(name, count, due):
    made = devices.accelerator(name, count)
    assert (made["accelerator"], made["devices"]) == due


def test_one_device_beside_others_is_refused():
    with pytest.raises(InputError, match=r"trainer\.accelerator=cuda:1 names one device, and trainer\.devices=2"):
        devices.accelerator("cuda:1", 2)


def test_a_device_is_tried_before_work_begins():
    assert devices.usable("cpu") == "cpu"
    with pytest.raises(InputError, match="cannot be used here"):
        devices.usable("cuda:99")
    assert devices.hardware(torch.device("cpu"))
