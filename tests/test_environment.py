"""What the environment must not hold, and what `import equiscope` must not cost."""

import importlib.util
import json
import subprocess
import sys

import pytest

HEAVY = "pytorch_lightning lightning torchmetrics hydra rdkit ase torch_geometric plotly matplotlib pandas tblite"
SECONDS = 3.0

# Processor time, so that a busy machine does not count; torch is there already in any program that measures a model.
PROGRAM = """
import sys, time, json
import torch
start = time.process_time()
import equiscope
seconds = time.process_time() - start
loaded = sorted({name.split(".")[0] for name in sys.modules})
public = [name for name in equiscope.__all__ if not hasattr(equiscope, name)]
print(json.dumps({"seconds": seconds, "loaded": loaded, "missing": public}))
"""


@pytest.fixture(scope="module")
def imported():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_torchvision_is_absent():
    # Its build follows another torch, and pytorch_lightning and torchmetrics fail to import beside it.
    assert importlib.util.find_spec("torchvision") is None


def test_importing_equiscope_loads_no_extra(imported):
    assert "e3nn" in imported["loaded"]
    assert set(HEAVY.split()) & set(imported["loaded"]) == set()


def test_importing_equiscope_is_quick(imported):
    assert imported["seconds"] < SECONDS


def test_every_public_name_is_there(imported):
    assert imported["missing"] == []


def test_unknown_names_are_attribute_errors():
    import equiscope

    with pytest.raises(AttributeError, match="no attribute 'mesure'"):
        _ = equiscope.mesure
    assert {"EquivarianceError", "EquivarianceTracker", "testing", "measure"} <= set(dir(equiscope))
