"""Build wheel and sdist, install each in a clean environment, and measure a model with it: `make package`.

Only the package's own dependencies are installed, so this also shows that the measure needs no extra.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"
NEEDED = ("py.typed", "conf/config.yaml", "conf/logger/tensorboard.yaml", "report/templates/report.html.j2")
IMPORT_SECONDS = 3.0

SMOKE = """
import time, torch
start = time.process_time()
import equiscope as eq
seconds = time.process_time() - start
assert seconds < LIMIT, f"import took {seconds:.2f} s of processor time beyond torch"
from importlib.metadata import version
from pathlib import Path
assert "site-packages" in eq.__file__, eq.__file__
assert (Path(eq.__file__).parent / "py.typed").exists()
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
class Model(torch.nn.Module):
    def forward(self, batch):
        return {"forces": net(batch["pos"])}
loader = [{"pos": torch.randn(8, 5, 3), "forces": torch.randn(8, 5, 3)} for _ in range(3)]
result = eq.measure(Model(), loader, inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="forces", loss="mse")
assert 0 < result.percent < 100
print(f"equiscope {version('equiscope')}, imported in {seconds:.2f} s beyond torch: {result}".splitlines()[0])
""".replace("LIMIT", str(IMPORT_SECONDS))


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
        (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
        _check_contents(wheel, sdist)
        _run(sys.executable, "-m", "venv", folder / "clean")
        python = folder / "clean" / "bin" / "python"
        install = (python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt")
        _run(*install, TORCH)
        for package in (wheel, sdist):
            _run(*install, package)
            # Away from the sources, so that only what was installed can be found.
            _run(python, "-c", SMOKE, cwd=folder)
            _run(folder / "clean" / "bin" / "equiscope", "--version", cwd=folder)
            print(f"{package.name}: {package.stat().st_size / 1e6:.2f} MB, installs and measures")
            _run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "equiscope")


def _check_contents(wheel: Path, sdist: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        source = {name.split("/", 1)[-1] for name in archive.getnames()}
    missing = [f"{wheel.name}: {name}" for name in NEEDED if f"equiscope/{name}" not in inside]
    missing += [f"{sdist.name}: {name}" for name in NEEDED if f"src/equiscope/{name}" not in source]
    missing += [f"{sdist.name}: {name}" for name in ("README.md", "LICENSE", "CITATION.cff") if name not in source]
    if missing:
        sys.exit(f"missing in the package: {', '.join(missing)}")


def _run(*command: object, cwd: Path = ROOT) -> None:
    subprocess.run([str(word) for word in command], check=True, cwd=cwd)


if __name__ == "__main__":
    main()
