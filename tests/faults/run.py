"""`make faults`: every fault at full count, a table of the counts on the screen and in benchmarks/results/faults.md."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from equiscope.runs.config import configuration
from tests.faults import attacks, faults

FIRST = "# Faults\n\n`make faults`: nothing may be lost.\n"
SECOND = "## Attacks\n\nWhat they are stands in `tests/faults/attacks.py`; every one must be held.\n"
REPORT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "faults.md"


def force_field(root: Path) -> dict:
    """A short force-field run on a small data set of its own: the real task, model, tracking and checkpoints."""
    return configuration(
        ["task=forcefield", "run=killed", f"root={root}", "threads=1", "data.frames=200", "data.track_frames=16",
         "data.final_frames=32", f"data.path={root.parent / 'frames.npz'}", "trainer.max_steps=60", "track.points=6",
         "trainer.checkpoint_every=15", "trainer.log_every=5", "batch_size=8"]
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--task-kills", type=int, default=12, help="of force-field runs")
    parser.add_argument("--damages", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--attacks", action="store_true", help="only the attacks; the table of faults stays as it is")
    options = parser.parse_args()
    begun = time.perf_counter()
    faulted = None
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if not options.attacks:
            faulted = every_fault(root, options)
        tried = [attacks.tried(name, _folder(root / f"attacks-{i}")) for i, name in enumerate(attacks.CLASSES)]
    kept = REPORT.read_text().partition(SECOND)[0].partition(FIRST)[2].strip()
    first = kept if faulted is None else table(faulted)
    tallies = [*(faulted or []), *tried]
    print(f"{first}\n\n{classes(tried)}")
    for tally in tallies:
        for loss in tally.lost:
            print(f"LOST: {tally.name}: {loss}")
    print(f"{time.perf_counter() - begun:.0f} s")
    REPORT.write_text(f"{FIRST}\n{first}\n\n{SECOND}\n{classes(tried)}\n")
    return 1 if any(tally.lost for tally in tallies) else 0


def every_fault(root: Path, options) -> list:
    tallies = [faults.kills(root / "kills", options.kills, options.seed)]
    real = faults.kills(root / "field", options.task_kills, options.seed, force_field, longest=8.0)
    real.name = "SIGKILL, force-field runs"
    tallies += [real, faults.full_disk(root / "full")]
    tallies += faults.damage(root / "damage", options.damages, options.seed)
    return [*tallies, faults.hostile_pickles(root / "pickles"), faults.two_processes(root / "two")]


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def classes(tallies) -> str:
    rows = ["| class of attacks | tried | held |", "| --- | --- | --- |"]
    rows += [f"| {tally.name} | {tally.done} | {tally.outcomes['held']} |" for tally in tallies]
    done, held = sum(t.done for t in tallies), sum(t.outcomes["held"] for t in tallies)
    return "\n".join([*rows, f"| all | {done} | {held} |"])


def table(tallies) -> str:
    rows = ["| fault | times | outcomes | lost or unseen |", "| --- | --- | --- | --- |"]
    for tally in tallies:
        outcomes = ", ".join(f"{name}: {count}" for name, count in tally.outcomes.items() if count)
        rows.append(f"| {tally.name} | {tally.done} | {outcomes} | {len(tally.lost)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
