"""What slows or spoils a measurement on this machine: facts are gathered, and findings are a function of the facts."""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from equiscope.errors import InputError, version
from equiscope.runs.devices import settle
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
        stack: {device: seconds a sample and pass} of a stack of residual blocks of the size asked about; empty where a
            model was named.
        model: what was named, and {device: seconds a sample and pass} of it; empty where nothing was.
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
    stack: Mapping[str, float] = field(default_factory=dict)
    model: tuple[str, Mapping[str, float]] = field(default=("", {}))
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


# A call of a network gives a device about so many operations to do.
_LAUNCHES = 500
# Blocks of the stack, and the floating-point operations of a call of it that are timed at most.
_BLOCKS = 4
_WORK = {"cpu": 5e9, "cuda": 1e12}


def cost(asked: Asked, seconds: float, launch: float = 0.0) -> float:
    """Seconds of a measurement with ``seconds`` a sample and pass: the answer as given and the numerical floor take
    about three passes beside the rotations, and a call takes no less than its launches."""
    waiting = _LAUNCHES * launch / min(asked.batch, asked.samples)
    return asked.samples * (asked.rotations + 3) * max(seconds, waiting)


@dataclass(frozen=True)
class Finding:
    """One thing that is good, makes runs slow, or makes figures wrong; ``remedy`` is what to do about it."""

    level: str
    what: str
    remedy: str = ""


def gather(asked: Asked = Asked(), settings: Sequence[str] = ()) -> Facts:
    """Look at this process and machine; about two seconds, and what the data of a named model take.

    Args:
        settings: as for ``equiscope train``, name the model that is timed; none for no model.
    """
    names = sorted({name for group in PACKAGES.values() for name in group} | set(MALICIOUS))
    devices = tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    timed, threads = ("cpu", "cuda") if devices else ("cpu",), torch.get_num_threads()
    return Facts(
        {name: version(name) for name in names}, threads, available_cores(),
        os.getloadavg()[0] if hasattr(os, "getloadavg") else None, _timings(threads), _torchvision(), devices,
        {name: _matmul_error(name) for name in timed}, torch.get_float32_matmul_precision(),
        str(torch.get_default_dtype()).removeprefix("torch."),
        {} if settings else {name: _stack(asked, name) for name in timed},
        _model(settings, timed) if settings else ("", {}), {name: _launch(name) for name in timed},
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
    some = f"a measurement of {asked.samples:,} samples with {asked.rotations} rotations takes about"

    def about(seconds: float) -> str:
        return f"{some} {float(f'{seconds:.2g}'):,g} s"

    name, timed = facts.model
    found = [Finding(GOOD, f"{device}: {name}, {1000 * seconds:.3g} ms a sample and pass; "
                     f"{about(cost(asked, seconds))}") for device, seconds in timed.items()]  # fmt: skip
    for device, seconds in {} if timed else facts.stack.items():
        launch = facts.launch[device]
        what = f"{device}: {1e6 * launch:.1f} µs an operation; {about(cost(asked, seconds, launch))} with a stack "
        what += f"of residual blocks, {asked.parameters:,.3g} parameters on {asked.tokens:,} tokens"
        remedy = "networks of many small operations take several times as long: equiscope doctor task=… times one"
        found.append(Finding(GOOD, what, remedy))
    return found


def _timed(device: str, call: Callable[[], object], count: int, rounds: int = 3) -> float:
    """Median seconds of one of ``count`` calls in a row, the device's work included, after a round to warm up."""
    taken = []
    for _ in range(1 + rounds):
        begun = time.perf_counter()
        for _ in range(count):
            call()
        settle(torch.device(device))
        taken.append((time.perf_counter() - begun) / count)
    return statistics.median(taken[1:])


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


def _stack(asked: Asked, device: str) -> float:
    """Seconds a sample and pass of :data:`_BLOCKS` residual blocks, x + W SiLU(V norm(x)) with V to four times the
    width, as wide as the parameters make them, on rows of all tokens of a batch (or as many as are worth timing)."""
    width = max(4, round(math.sqrt(asked.parameters / (8 * _BLOCKS))))
    stack = nn.Sequential(*(_Block(width) for _ in range(_BLOCKS))).to(device)
    own = sum(p.numel() for p in stack.parameters())
    rows = min(asked.batch, asked.samples) * asked.tokens
    rows = max(1, min(rows, int(_WORK[device] / (2 * own)), 2**24 // width))
    x = torch.randn(rows, width, device=device)
    with torch.no_grad():
        return _timed(device, lambda: stack(x), 1) * asked.tokens / rows * asked.parameters / own


def _model(settings: Sequence[str], devices: Sequence[str]) -> tuple[str, dict[str, float]]:
    """The model that settings name, and its seconds a sample and pass on a batch of its task's held-out samples."""
    from equiscope.runs.config import configuration
    from equiscope.runs.efficiency import Bench

    found, config = {}, configuration(["run=doctor", "logger=none", *settings])
    for device in devices:
        bench = Bench.of(config, torch.device(device))
        found[device] = _timed(device, bench.infer, 1) / len(next(iter(bench.asked.values())))
    size = sum(p.numel() for p in bench.model.parameters())
    return f"{config['model']['name']} of {size:,} parameters", found


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
            found[count] = 40 * _timed("cpu", lambda: torch.tanh(x @ w), 40, rounds=7)
    finally:
        torch.set_num_threads(before)
    return found
