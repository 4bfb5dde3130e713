"""What ``make gpu`` is made of: times that add up, settings that exist, and parts that are cut off and named."""

import importlib.util
import json
import sys
import time
from pathlib import Path

import pytest
import torch

from equiscope.runs.config import configuration

ROOT = Path(__file__).resolve().parents[2]


def loaded(place):
    spec = importlib.util.spec_from_file_location(f"script_{place.stem}", place)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def gpu():
    return loaded(ROOT / "scripts" / "gpu.py")


def program(text):
    return [sys.executable, "-c", text]


def test_every_part_has_seconds_of_five_minutes(gpu):
    parts = gpu.commands(None, "root")
    assert list(parts) == list(gpu.LIMITS)
    assert sum(gpu.LIMITS.values()) <= 300
    assert min(gpu.LIMITS.values()) > 2 * gpu.GRACE
    for task in gpu.SHORT:
        overrides = parts[task][parts[task].index("train") + 1 :]
        assert configuration(overrides)["task"] == task
    for name in ("overheads", "steps"):
        assert (ROOT / parts[name][1]).is_file()
    assert gpu.commands("there", "root")["steps"][-2:] == ["--before", "there"]


def test_without_a_card_it_is_one_line(gpu, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.main() == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "no card here" in line


def test_parts_are_cut_off_named_and_leave_nothing(gpu, tmp_path, capfd, monkeypatch):
    """Done early, cut off with a last word, deaf and with a child, failed."""
    deaf = "import os, signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); os.fork(); time.sleep(2)\n"
    parts = {
        "early": program("pass"),
        "polite": program(
            "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('a row', flush=True)"),
        "deaf": program(f"{deaf}open({str(tmp_path / 'alive')!r}, 'a').write('x')"),
        "wrong": program("raise SystemExit(3)"),
    }  # fmt: skip
    monkeypatch.setattr(gpu, "LIMITS", dict.fromkeys(parts, 1.0))
    monkeypatch.setattr(gpu, "GRACE", 0.4)
    monkeypatch.setattr(gpu, "commands", lambda before, root: parts)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    begun = time.time()
    assert gpu.main() == 1
    assert time.time() - begun < 4 * 1.0 + 1.5
    out = capfd.readouterr().out
    assert "a row" in out
    last = out.splitlines()[-1].partition(" s; ")[2]
    assert [one.partition(" after ")[0] for one in last.split("; ")] == [
        "early done", "polite cut off", "deaf cut off", "wrong failed with 3"
    ]  # fmt: skip
    time.sleep(2)
    assert not (tmp_path / "alive").exists()


def test_time_that_is_left_goes_to_the_parts_that_follow(gpu, monkeypatch):
    given = []
    monkeypatch.setattr(gpu, "run", lambda command, seconds: given.append(seconds) or 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.main() == 0
    total = 0
    for seconds, own in zip(given, gpu.LIMITS.values(), strict=True):
        total += own
        assert seconds == pytest.approx(total, abs=1)


def test_overheads_are_kept_row_by_row(tmp_path, monkeypatch):
    """Rows of the same machine stay, those of another go; a row that is cut off loses none before it."""
    overhead = loaded(ROOT / "benchmarks" / "overhead.py")
    monkeypatch.setattr(overhead, "RESULTS", tmp_path)
    zeros = dict.fromkeys(("parameters", "samples", "rotations_a_call", "pass_seconds", "single_pass_seconds"), 0)
    row = {**zeros, "load": 0.0, "ratio": 1.05, "asked": 1.1}

    def measured(case, device, rounds):
        if case.name == "voxels-24":
            raise KeyboardInterrupt
        return row

    monkeypatch.setattr(overhead, "measured", measured)
    monkeypatch.setattr(sys, "argv", ["overhead.py"])
    overhead.keep("escaip-6M", {**row, "ratio": 1.5}, torch.device("cpu"))
    with pytest.raises(KeyboardInterrupt):
        overhead.main()
    kept = json.loads((tmp_path / "overhead.json").read_text())["cpu"]["cases"]
    assert list(kept) == ["edge-nano", "escaip-nano", "escaip-6M"]
    assert "| 1.50 | ≤ 1.10 |" in (tmp_path / "overhead.md").read_text()
    monkeypatch.setattr(overhead, "machine", lambda device: "another")
    overhead.keep("edge-nano", row, torch.device("cpu"))
    assert list(json.loads((tmp_path / "overhead.json").read_text())["cpu"]["cases"]) == ["edge-nano"]
