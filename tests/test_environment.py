"""What the environment must not hold, and what `import equiscope` must not cost."""

import importlib.util
import json
import subprocess
import sys

import pytest

HEAVY = "pytorch_lightning lightning torchmetrics hydra rdkit ase torch_geometric plotly matplotlib pandas tblite"
SECONDS = 3.0

# Processor time, so that a busy machine does not count.
PROGRAM = """
import sys, time, json
def packages():
    return sorted({name.split(".")[0] for name in sys.modules})
start = time.process_time()
import equiscope
imported = {"seconds": time.process_time() - start, "loaded": packages()}
import equiscope.tasks.forcefield.generate, equiscope.tasks.voxels.generate
making = packages()
_ = equiscope.measure
measuring = packages()
missing = [name for name in equiscope.__all__ if not hasattr(equiscope, name)]
print(json.dumps({**imported, "making": making, "measuring": measuring, "missing": missing}))
"""


@pytest.fixture(scope="module")
def imported():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_torchvision_is_absent():
    # Its build follows another torch, and pytorch_lightning and torchmetrics fail to import beside it.
    assert importlib.util.find_spec("torchvision") is None


def test_importing_equiscope_loads_no_extra(imported):
    assert {"torch", "e3nn", *HEAVY.split()} & set(imported["loaded"]) == set()
    assert {"torch", "e3nn"} <= set(imported["measuring"])
    assert set(HEAVY.split()) & set(imported["measuring"]) == set()


def test_processes_that_make_data_need_no_torch(imported):
    assert "numpy" in imported["making"]
    assert "torch" not in imported["making"]


def test_importing_equiscope_is_quick(imported):
    assert imported["seconds"] < SECONDS


def test_every_public_name_is_there(imported):
    assert imported["missing"] == []


def test_unknown_names_are_attribute_errors():
    import equiscope

    with pytest.raises(AttributeError, match="no attribute 'mesure'"):
        _ = equiscope.mesure
    assert {"EquivarianceError", "EquivarianceTracker", "testing", "measure"} <= set(dir(equiscope))
