"""The atlas: how far from symmetric the models are that people run, measured here; docs/atlas.md is made of it.

    make atlas

Each name is measured in an environment that has its packages, and kept in benchmarks/results/atlas.json; the page is
rendered from that file alone.

    python benchmarks/atlas.py measure SevenNet-0 CHGNet-0.3.0
    python benchmarks/atlas.py trained runs/forcefield/demo
    python benchmarks/atlas.py page
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import atlas_page
from pages import store

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "atlas.json"
PAGE = HERE.parent / "docs" / "atlas.md"
SHIPPED, RANDOM, TRAINED = atlas_page.KINDS
# Name → kind, function of atlas_models, its argument, further arguments, packages whose versions are kept.
MODELS: dict[str, tuple[str, str, str, dict[str, Any], tuple[str, ...]]] = {
    "SevenNet-0 (July 2024)": (SHIPPED, "sevennet", "7net-0", {}, ("sevenn",)),
    "SevenNet-0 (May 2024)": (SHIPPED, "sevennet", "7net-0_22may2024", {}, ("sevenn",)),
    "SevenNet-l3i5": (SHIPPED, "sevennet", "7net-l3i5", {}, ("sevenn",)),
    "SevenNet-MF-0 (PBE)": (SHIPPED, "sevennet", "7net-mf-0", {"modal": "PBE"}, ("sevenn",)),
    "CHGNet 0.3.0": (SHIPPED, "chgnet", "0.3.0", {}, ("chgnet",)),
    "CHGNet 0.2.0": (SHIPPED, "chgnet", "0.2.0", {}, ("chgnet",)),
    "CHGNet r2SCAN": (SHIPPED, "chgnet", "r2scan", {}, ("chgnet",)),
    "PocketNet": (SHIPPED, "pocketnet", "", {}, ("pocketnet", "prolif")),
    "GNINA crossdock_default2018": (SHIPPED, "gnina", "crossdock_default2018", {}, ("gninatorch", "molgrid")),
    "GNINA general_default2018": (SHIPPED, "gnina", "general_default2018", {}, ("gninatorch", "molgrid")),
    "GNINA redock_default2018": (SHIPPED, "gnina", "redock_default2018", {}, ("gninatorch", "molgrid")),
    "MACE, float32": (RANDOM, "mace", "float32", {}, ("mace-torch", "e3nn")),
    "MACE, float64": (RANDOM, "mace", "float64", {}, ("mace-torch", "e3nn")),
    "TorchMD-Net TensorNet": (RANDOM, "torchmdnet", "tensornet", {}, ("torchmd-net",)),
    "Orb v3, direct forces": (RANDOM, "orb", "", {}, ("orb-models", "nvalchemi-toolkit-ops")),
    "NequIP": (RANDOM, "architecture", "nequip", {}, ("nequip", "e3nn")),
    "ESCAIP, this package's": (RANDOM, "architecture", "escaip", {}, ("e3nn",)),
    "TorchMD-Net ET": (RANDOM, "torchmdnet", "equivariant-transformer", {}, ("torchmd-net",)),
}


def machine() -> str:
    """Processor, cores, Python."""
    import torch

    from equiscope.runs.devices import hardware

    return f"{hardware(torch.device('cpu'))}, {os.cpu_count()} cores, one thread, Python {platform.python_version()}"


def keep(name: str, entry: dict[str, Any]) -> None:
    """Put one entry into the file; those of other environments stay."""
    with (Path(tempfile.gettempdir()) / "equiscope-atlas.lock").open("w") as lock:
        # Several environments may be measured at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"machine": machine(), "models": {}}
        stored["models"][name] = entry
        stored["known"] = list(MODELS)
        known = [*MODELS, *(n for n in stored["models"] if n not in MODELS)]
        stored["models"] = {n: stored["models"][n] for n in known if n in stored["models"]}
        store(RESULTS, stored, indent=1, ensure_ascii=False)


def measure(names: list[str]) -> int:
    """Measure models by name, or by the beginning of it; a failure is told and the rest goes on."""
    import atlas_models

    failed = 0
    for name in [n for n in MODELS if any(n.startswith(asked) for asked in names)]:
        kind, function, argument, more, packages = MODELS[name]
        begun = time.perf_counter()
        # Packages set it for themselves and leave it.
        atlas_models.torch.set_default_dtype(atlas_models.torch.float32)
        try:
            found = getattr(atlas_models, function)(argument, **more)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            failed += 1
            continue
        keep(name, {"kind": kind, **found, "versions": atlas_models.versions(*packages)})
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
    return failed


def trained(places: list[str]) -> int:
    """Measure runs of ``equiscope train``; a run named ``PLACE@0`` is the model before training."""
    import atlas_models

    for given in places:
        place, _, before = given.partition("@")
        found = atlas_models.trained(place, random=before == "0")
        name = f"{found['model']}, {found['step']:,} steps" if found["step"] else found["model"]
        keep(name, {"kind": TRAINED if found["step"] else RANDOM, **found, "versions": atlas_models.versions("e3nn")})
        print(name, flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "trained", "page"))
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.what == "page":
        PAGE.write_text(atlas_page.page(json.loads(RESULTS.read_text())))
        return 0
    return (measure if options.what == "measure" else trained)(options.names)


if __name__ == "__main__":
    raise SystemExit(main())
