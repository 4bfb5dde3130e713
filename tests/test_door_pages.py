"""Pages of what was measured through the doors: their numbers are those of the records, and the right ones."""

import importlib.util
import json
import statistics
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def stored(name):
    return json.loads((RESULTS / f"{name}.json").read_text()), (RESULTS / f"{name}.md").read_text()


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    made = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = made
    spec.loader.exec_module(made)
    return made


def test_a_planted_error_in_sevennet_has_its_exact_size_through_each_door():
    record, text = stored("bent_sevennet")
    bent = module(ROOT / "benchmarks" / "bent_sevennet.py")
    assert text == bent.page(record)
    assert pytest.approx(1.24844e-3, rel=1e-6) == bent.EXACT
    assert {"metatomic", "torch-sim", "ASE"} <= record["doors"].keys()
    for entry in record["doors"].values():
        # By T too: an error of degree 2 is gone from the mean over a coset of T, and its square along F is known.
        for rotations in "IT":
            assert entry["planted"][rotations]["relative"] == pytest.approx(bent.EXACT, rel=1e-5)
            assert entry["planted"][rotations]["distinguishable"]
    own, two = (record["doors"]["torch-sim"][name] for name in ("speed", "routed"))
    assert (own["structures"], own["atoms"], own["passes"]) == (200, 32, 24)
    assert own["seconds"] <= 3
    assert two["many a call"]["calls"] * 10 < two["one a call"]["calls"]


def test_metatomic_page():
    pytest.importorskip("metatomic_ase")
    record, text = stored("metatomic")
    first, second = (module(ROOT / "benchmarks" / f"{name}.py") for name in ("symmetrised_calculator", "degree4"))
    assert text == first.page(record).rstrip() + "\n\n" + second.section(record["degree 4"])
    spent = record["speed"]["seconds"]
    assert statistics.median(spent["equiscope"]) <= 1.02 * statistics.median(spent["metatomic"])
    rows = {(r["artefact"], r["design"]): r["shares"] for r in record["degree 4"]}
    blind, ours = (rows["cubic harmonic", name] for name in ("metatomic, its default", "equiscope, 2 x T, the default"))
    for name, values in blind.items():
        assert abs(values[0]) < 1e-12
        mean = sum(ours[name]) / len(ours[name])
        spread = (sum((v - mean) ** 2 for v in ours[name]) / (len(ours[name]) - 1) / len(ours[name])) ** 0.5
        assert abs(mean - 1) < 4 * spread


def test_pet_page():
    pytest.importorskip("metatomic.torch")
    record, text = stored("pet")
    assert text == module(ROOT / "examples" / "metatrain" / "pet.py").page(record)
    for row in record["others"]:
        assert row["ours passed"] == row["theirs passed"]
