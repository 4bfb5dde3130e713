"""Plants one bug after another in a copy of the source and sees that the tests named for it fail: `make planted`."""

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.planted.engine import Bug, change, every_bug

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "equiscope"
RECORD = ROOT / "benchmarks" / "results" / "planted_bugs.json"
FAILED = 1  # pytest's exit status for "some tests failed"; 2 and above are errors of the run itself

# Run by the child: the copy, and nothing else, must be what the tests import.
_CHILD = "import sys; from tests.planted.run import run_here; sys.exit(run_here(*sys.argv[1:]))"
# Packages that a child forked from this process need not import once more.
_WARM = (
    "torch", "numpy", "scipy.stats", "pytest", "hypothesis", "e3nn.o3", "ase.io", "torchmetrics", "pytorch_lightning",
)  # fmt: skip


def run_here(folder: str, *tests: str) -> int:
    """Run tests, with the package in ``folder``/src: pytest's exit status, 9 where another package was imported."""
    import pytest

    import equiscope

    found = Path(equiscope.__file__).resolve()
    if Path(folder).resolve() not in found.parents:
        print(f"imported {found} and not the copy")
        return 9
    return int(pytest.main(["-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-m", "not slow", *tests]))


@dataclass(frozen=True)
class Outcome:
    """What became of one planted bug: caught by which test, after how many seconds."""

    planted: Bug
    status: int
    by: str
    seconds: float

    @property
    def caught(self) -> bool:
        return self.status == FAILED and bool(self.by)


def run_tests(folder: Path, tests: Iterable[str]) -> tuple[int, str]:
    """Run test files against the package in ``folder``/src: pytest's exit status and its last lines."""
    environment = os.environ | _settings(folder)
    command = [sys.executable, "-c", _CHILD, str(folder), *(f"tests/{t}" for t in tests)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def _settings(folder: Path) -> dict[str, str]:
    paths = os.pathsep.join([str(folder / "src"), str(ROOT)])
    return {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def run_forked(folder: Path, tests: Iterable[str]) -> tuple[int, str]:
    """As :func:`run_tests`, in a fork of this process, which must not have imported the package itself.

    Other packages take longer to import than most tests to run.
    """
    with tempfile.TemporaryFile() as said:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            status = 8
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                os.environ.update(_settings(folder))
                os.chdir(ROOT)
                sys.path.insert(0, str(folder / "src"))
                status = run_here(str(folder), *(f"tests/{t}" for t in tests))
            finally:
                sys.stdout.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return status, said.read().decode(errors="replace")


def attempt(
    planted: Bug | None, tests: Iterable[str], source: Path = SOURCE, run: Callable[..., tuple[int, str]] = run_tests
) -> tuple[int, str, float]:
    """Tests against a fresh copy of the source with one bug, or with none: exit status, output, seconds."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        copy = Path(name) / "src" / "equiscope"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if planted is not None:
            file, text = change(planted, copy)
            file.write_text(text)
        status, output = run(Path(name), tests)
    return status, output, time.perf_counter() - start


def catch(planted: Bug, source: Path = SOURCE, run: Callable[..., tuple[int, str]] = run_tests) -> Outcome:
    """Plant one bug and run the tests named for it until the first failure."""
    status, output, seconds = attempt(planted, planted.tests, source, run)
    failed = [line[7:].split(" - ")[0] for line in output.splitlines() if line.startswith("FAILED ")]
    # A package that cannot be imported also exits with 1: only a failing test is a catch.
    return Outcome(planted, status, failed[0].split("::", 1)[1] if failed else "", seconds)


def as_record(outcome: Outcome) -> dict[str, Any]:
    """What is kept of an outcome; a bug that survived was caught by nothing."""
    planted = outcome.planted
    return {"bug": planted.name, "file": planted.file, "by": outcome.by if outcome.caught else "",
            "seconds": round(outcome.seconds)}  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """The records of all outcomes as a Markdown page."""
    caught = sum(bool(row["by"]) for row in rows)
    lines = [
        "# Planted bugs",
        "",
        "Each bug is planted alone in a copy of the source; the tests named for it must fail. "
        "Without a bug the same tests pass. Made by `make planted`.",
        "",
        f"**caught {caught} of {len(rows)}**",
        "",
        "| bug | file | caught by | seconds |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        by = f"`{row['by']}`" if row["by"] else "**survived**"
        lines.append(f"| {row['bug']} | `{row['file']}` | {by} | {row['seconds']} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run all bugs, or those whose name or file contains a word; 1 if one survives or the bare source fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only bugs whose name or file contains one of these")
    words = parser.parse_args().words
    for name in _WARM:
        importlib.import_module(name)
    chosen = [b for b in every_bug() if not words or any(w in b.name or w in b.file for w in words)]
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        # One state of the source for all bugs, whoever edits it meanwhile.
        source = Path(name) / "equiscope"
        shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
        outcomes = catch_all(chosen, source)
    if outcomes and not words:
        rows = [as_record(outcome) for outcome in outcomes]
        RECORD.write_text(json.dumps(rows, indent=0, ensure_ascii=False) + "\n")
        RECORD.with_suffix(".md").write_text(table(rows))
    return 0 if outcomes and all(o.caught for o in outcomes) else 1


def catch_all(bugs: list[Bug], source: Path) -> list[Outcome]:
    """Plant every bug in turn and print what became of it; empty if the source fails without any."""
    files = sorted({t for b in bugs for t in b.tests})
    status, output, seconds = attempt(None, files, source, run_forked)
    if status != 0:
        print(f"the source fails its own tests without any bug:\n{output[-3000:]}")
        return []
    print(f"without a bug: {len(files)} test files pass ({seconds:.0f} s)", flush=True)
    outcomes = []
    for planted in bugs:
        outcomes.append(outcome := catch(planted, source, run_forked))
        verdict = "caught  " if outcome.caught else "SURVIVED"
        print(f"{verdict} {outcome.seconds:5.0f} s  {planted.name}  [{outcome.by or outcome.status}]", flush=True)
    print(f"caught {sum(o.caught for o in outcomes)} of {len(outcomes)}")
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
