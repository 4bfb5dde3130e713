"""What slows or spoils a measurement on this machine: facts are gathered, and findings are a function of the facts."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from equiscope.errors import InputError, version
from equiscope.tasks.datasets.processes import available_cores

GOOD, SLOW, WRONG = "good", "slow", "wrong"
PACKAGES = {
    "the measure": ("torch", "numpy", "scipy", "e3nn", "roma"),
    "train": ("pytorch-lightning", "torchmetrics", "hydra-core", "omegaconf", "tensorboard", "psutil"),
    "data": ("rdkit", "tblite", "h5py", "gemmi", "ase", "ijson", "lmdb", "msgpack"),
    "pyg": ("torch-geometric",),
    "report": ("plotly", "jinja2", "matplotlib"),
}
"""Extra → packages it stands for."""
# Releases that carried malware (GHSA-w37p-236h-pfx3); pytorch-lightning of the same numbers was not hit.
MALICIOUS = {"lightning": ("2.6.2", "2.6.3")}
# Relative error of a float32 product of 256 x 256 Gaussian matrices is about 3e-7; with TF32 or bfloat16 above 2e-4.
ROUGH = 1e-5


@dataclass(frozen=True)
class Facts:
    """What was found here.

    Attributes:
        versions: package → version, None where it is not installed.
        threads: of torch in this process; cores: that this process may use; load: mean number of busy processes over
            the last minute, None where the system does not tell.
        seconds: {threads: seconds} of one small model-like step, for 1 thread and for ``threads``.
        torchvision: whether it is installed, and whether it works with this torch.
        devices: names of the GPUs; matmul_error: {device: relative error of a float32 matrix product}.
        precision: torch's setting for float32 products: highest, high or medium.
        default_dtype: torch's.
        product: {device: floating-point operations a second} of a float32 matrix product.
        launch: {device: seconds} until the next operation can be given to it, one after the other.
    """

    versions: Mapping[str, str | None]
    threads: int
    cores: int
    load: float | None
    seconds: Mapping[int, float]
    torchvision: str
    devices: tuple[str, ...]
    matmul_error: Mapping[str, float]
    precision: str
    default_dtype: str
    product: Mapping[str, float] = field(default_factory=dict)
    launch: Mapping[str, float] = field(default_factory=dict)
    python: str = field(default_factory=platform.python_version)
    system: str = field(default_factory=platform.platform)


@dataclass(frozen=True)
class Asked:
    """A measurement whose cost is estimated.

    Attributes:
        parameters: of the model; tokens: that they are applied to in a sample (atoms, edges, residues, voxels).
        samples: measured; rotations: of each; batch: samples a call.
    """

    parameters: float = 1e6
    tokens: int = 200
    samples: int = 256
    rotations: int = 24
    batch: int = 64

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 1:
                raise InputError(f"--{name} must be at least 1, got {value!r}")


# A pass takes two operations a parameter and token; a call of a network gives a device about so many to do.
_LAUNCHES = 500


def cost(asked: Asked, product: float, launch: float) -> float:
    """Seconds of a measurement by counting, max(2 · parameters · tokens / product, launches · launch / batch) a sample
    and pass, of rotations + 2 passes: a lower limit, since no network reaches the speed of a large product."""
    computing = 2 * asked.parameters * asked.tokens / product
    waiting = _LAUNCHES * launch / min(asked.batch, asked.samples)
    return asked.samples * (asked.rotations + 2) * max(computing, waiting)


@dataclass(frozen=True)
class Finding:
    """One thing that is good, makes runs slow, or makes figures wrong; ``remedy`` is what to do about it."""

    level: str
    what: str
    remedy: str = ""


def gather() -> Facts:
    """Look at this process and machine; about two seconds."""
    names = sorted({name for group in PACKAGES.values() for name in group} | set(MALICIOUS))
    devices = tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    timed, threads = ("cpu", "cuda") if devices else ("cpu",), torch.get_num_threads()
    return Facts(
        {name: version(name) for name in names}, threads, available_cores(),
        os.getloadavg()[0] if hasattr(os, "getloadavg") else None, _timings(threads), _torchvision(), devices,
        {name: _matmul_error(name) for name in timed}, torch.get_float32_matmul_precision(),
        str(torch.get_default_dtype()).removeprefix("torch."), {name: _product(name) for name in timed},
        {name: _launch(name) for name in timed},
    )  # fmt: skip


def threads_worth_having() -> int:
    """As many threads as cores this process may use, or one where, as things stand, so many are no faster."""
    cores = available_cores()
    seconds = _timings(cores)
    return cores if seconds[cores] < seconds[1] else 1


def findings(facts: Facts, asked: Asked = Asked()) -> list[Finding]:
    """What the facts mean, in the order: threads, precision, packages, devices, what a measurement costs."""
    return [*_threads(facts), *_precision(facts), *_packages(facts), *_devices(facts), *_costs(facts, asked)]


def _threads(facts: Facts) -> list[Finding]:
    others = facts.load
    told = f"{facts.threads} thread(s) on {facts.cores} core(s)" + ("" if others is None else f", load {others:.1f}")
    one, many = facts.seconds.get(1), facts.seconds.get(facts.threads)
    remedy = "set OMP_NUM_THREADS=1 before Python starts (or threads=1 in a run): threads that wait for a core spin"
    if facts.threads > facts.cores:
        return [Finding(SLOW, f"{told}: more threads than cores", remedy)]
    if facts.threads > 1 and one and many and many > one:
        return [Finding(SLOW, f"{told}: {facts.threads} threads are {many / one:.1f} times slower than one", remedy)]
    if facts.threads > 1 and others is not None and others + facts.threads > facts.cores + 1:
        busy = f"{told}: the machine is busy, and OpenMP threads that compete are many times slower than one"
        return [Finding(SLOW, busy, remedy)]
    if others is not None and others > 1.5 * facts.cores:
        what = f"{told}: the machine is overloaded, and timings mean nothing now"
        return [Finding(SLOW, what, "wait, or run elsewhere")]
    if one and many and one > many:
        told += f"; {facts.threads} threads are {one / many:.1f} times as fast as one"
    return [Finding(GOOD, told)]


def _precision(facts: Facts) -> list[Finding]:
    found, remedy = [], "torch.set_float32_matmul_precision('highest'); torch.backends.cudnn.allow_tf32 = False"
    for device, error in facts.matmul_error.items():
        what = f"float32 products on {device} are right to {error:.0e}"
        if error > ROUGH:
            what += f" only (TF32 or bfloat16, precision {facts.precision!r}): the numerical floor of the "
            what += "equivariance error rises to about its square"
        found.append(Finding(WRONG, what, remedy) if error > ROUGH else Finding(GOOD, what))
    if facts.default_dtype != "float32":
        what = f"torch's default dtype is {facts.default_dtype}"
        found.append(Finding(SLOW, what, "torch.set_default_dtype(torch.float32)"))
    return found


def _packages(facts: Facts) -> list[Finding]:
    found = []
    if facts.torchvision == "broken":
        what = "torchvision is built for another torch: pytorch_lightning and torchmetrics fail to import beside it"
        found.append(Finding(WRONG, what, "pip uninstall torchvision (equiscope does not use it)"))
    for name, versions in MALICIOUS.items():
        if facts.versions.get(name) in versions:
            what = f"{name} {facts.versions[name]} carried malware (GHSA-w37p-236h-pfx3)"
            found.append(Finding(WRONG, what, f"pip install -U {name}"))
    for extra, names in PACKAGES.items():
        missing = [name for name in names if facts.versions.get(name) is None]
        have = ", ".join(f"{name} {facts.versions[name]}" for name in names if facts.versions.get(name))
        if not missing:
            found.append(Finding(GOOD, f"{extra}: {have}"))
        elif extra == "the measure":
            found.append(Finding(WRONG, f"{extra}: {', '.join(missing)} missing", "pip install equiscope"))
        else:
            about = f"extra {extra}: {', '.join(missing)} not installed" + (f" ({have})" if have else "")
            found.append(Finding(GOOD, about, f"pip install 'equiscope[{extra}]' if you need it"))
    return found


def _devices(facts: Facts) -> list[Finding]:
    if facts.devices:
        named = [f"{name} (cuda:{number})" for number, name in enumerate(facts.devices)]
        return [Finding(GOOD, f"GPU: {', '.join(named)}")]
    built = facts.versions.get("torch") or ""
    if "+cpu" in built or torch.version.cuda is None:
        return [Finding(GOOD, "no GPU: this torch is built for the CPU")]
    return [Finding(SLOW, "torch is built for a GPU and sees none", "check the driver, or CUDA_VISIBLE_DEVICES")]


def _costs(facts: Facts, asked: Asked) -> list[Finding]:
    size = f"{asked.samples:,} samples of {asked.tokens:,} tokens, {asked.rotations} rotations, {asked.parameters:,.3g}"
    return [
        Finding(GOOD, f"{device}: {speed / 1e9:,.0f} GFLOP/s in a product, {1e6 * facts.launch[device]:.1f} µs an "
                f"operation; a measurement of {size} parameters takes at least "
                f"{cost(asked, speed, facts.launch[device]):.2g} s")
        for device, speed in facts.product.items()
    ]  # fmt: skip


def _timed(device: str, call: Callable[[], object], count: int) -> float:
    """Median seconds of one of ``count`` calls in a row, the device's work included."""
    rounds = []
    for _ in range(4):
        begun = time.perf_counter()
        for _ in range(count):
            call()
        if device != "cpu":
            torch.cuda.synchronize(device)
        rounds.append((time.perf_counter() - begun) / count)
    return statistics.median(rounds[1:])


def _product(device: str, size: int = 512) -> float:
    a = torch.randn(size, size, device=device)
    return 2 * size**3 / _timed(device, lambda: a @ a, 8 if device == "cpu" else 100)


def _launch(device: str) -> float:
    one = torch.ones(8, device=device)
    return _timed(device, lambda: one + 1, 500)


def _torchvision() -> str:
    if importlib.util.find_spec("torchvision") is None:
        return "absent"
    try:
        importlib.import_module("torchvision")
    except Exception:
        # RuntimeError "operator torchvision::nms does not exist", ImportError, OSError: all mean the same.
        return "broken"
    return "works"


def _matmul_error(device: str) -> float:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 256, 256, generator=generator, dtype=torch.float64).to(device)
    exact = a @ b
    return float(((a.float() @ b.float()).double() - exact).norm() / exact.norm())


def _timings(threads: int) -> dict[int, float]:
    """Seconds of many small products, the work of a small model, with one thread and with ``threads``."""
    before, found = torch.get_num_threads(), {}
    x, w = torch.randn(512, 128), torch.randn(128, 128)
    try:
        for count in sorted({1, threads}):
            torch.set_num_threads(count)
            rounds = []
            for _ in range(8):
                started, y = time.perf_counter(), x
                for _ in range(40):
                    y = torch.tanh(y @ w)
                rounds.append(time.perf_counter() - started)
            found[count] = statistics.median(rounds[1:])
    finally:
        torch.set_num_threads(before)
    return found
