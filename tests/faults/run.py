"""`make faults`: every fault at full count; the page is made of the counts, benchmarks/results/faults.json."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from equiscope.runs.config import configuration
from tests.faults import attacks, faults

RECORD = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "faults.json"


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
    record = json.loads(RECORD.read_text()) if options.attacks else {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if not options.attacks:
            record["faults"] = [as_record(tally) for tally in every_fault(root, options)]
        tried = [attacks.tried(name, _folder(root / f"attacks-{i}")) for i, name in enumerate(attacks.CLASSES)]
    record["attacks"] = [as_record(tally) for tally in tried]
    print(page(record))
    for tally in (*record["faults"], *record["attacks"]):
        for loss in tally["lost"]:
            print(f"LOST: {tally['name']}: {loss}")
    print(f"{time.perf_counter() - begun:.0f} s")
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    RECORD.with_suffix(".md").write_text(page(record))
    return 1 if any(tally["lost"] for tally in (*record["faults"], *record["attacks"])) else 0


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


def as_record(tally: faults.Tally) -> dict:
    outcomes = {name: count for name, count in tally.outcomes.items() if count}
    return {"name": tally.name, "done": tally.done, "outcomes": outcomes, "lost": tally.lost}


def page(record: dict) -> str:
    """The page of a record: what was done how often and what became of it."""
    lines = ["# Faults", "", "`make faults`: nothing may be lost.", ""]
    lines += ["| fault | times | outcomes | lost or unseen |", "| --- | --- | --- | --- |"]
    for tally in record["faults"]:
        outcomes = ", ".join(f"{name}: {count}" for name, count in tally["outcomes"].items())
        lines.append(f"| {tally['name']} | {tally['done']} | {outcomes} | {len(tally['lost'])} |")
    lines += ["", "## Attacks", "", "What they are stands in `tests/faults`; every one must be held.", ""]
    lines += ["| class of attacks | tried | held |", "| --- | --- | --- |"]
    counts = [(tally["name"], tally["done"], tally["outcomes"].get("held", 0)) for tally in record["attacks"]]
    rows = [*counts, ("all", sum(done for _, done, _ in counts), sum(held for *_, held in counts))]
    lines += [f"| {name} | {done} | {held} |" for name, done, held in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
