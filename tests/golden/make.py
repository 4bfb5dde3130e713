"""Makes the golden results of today's code: ``python -m tests.golden.make [PART…] [--diff]``.

Before a file is written every case is run twice, with each of its batch sizes, and with all weights and inputs moved by
one rounding: what does not agree with itself is refused by name, since no other order of sums could be told from a
fault. ``--diff`` writes nothing and shows what differs from the committed files.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator

from tests.golden import models, registry
from tests.golden.registry import PARTS, Case, Figures, differences, every_case, path, stored

EPS = 2.0**-52


def steady(case: Case) -> tuple[Figures, list[str]]:
    """The case's figures, and where a second run, another batch size or one rounding disagrees with them."""
    first = case.figures()
    lines = []
    for size in case.sizes:
        lines += [f"batches of {size}: {line}" for line in differences(first, case.figures(size))]
    for step in (EPS, -EPS):
        with moved(step):
            lines += [f"one rounding: {line}" for line in differences(first, case.figures(), registry.TOLERANCE / 2)]
    return first, lines


@contextlib.contextmanager
def moved(step: float) -> Iterator[None]:
    """Weights and inputs of every model here are ``1 + step`` or ``1 - step`` of themselves inside."""
    models.shaken = step
    try:
        yield
    finally:
        models.shaken = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--diff", action="store_true", help="write nothing, show what differs from the committed files")
    options, failed = parser.parse_args(), False
    for part in options.parts or PARTS:
        begun, steadily = time.perf_counter(), True
        found: dict[str, Figures] = {}
        for case in every_case([part]):
            found[case.name], lines = (case.figures(), []) if options.diff else steady(case)
            steadily &= not lines
            for line in lines:
                print(f"{part}/{case.name} does not agree with itself: {line}")
        changed = show(part, found)
        print(f"{part}: {len(found)} cases, {changed} differences, {time.perf_counter() - begun:.0f} s", flush=True)
        failed |= not steadily
        if not options.diff and steadily:
            registry.FOLDER.mkdir(exist_ok=True)
            path(part).write_text(registry.written(found))
    return int(failed)


def show(part: str, found: dict[str, Figures]) -> int:
    """Print what differs from the committed file, by name; how many entries and cases that is."""
    if not path(part).is_file():
        return len(found)
    old = stored(part)
    lines = [f"{name}: gone" for name in old if name not in found] + [f"{n}: new case" for n in found if n not in old]
    for name in old:
        if name in found:
            lines += [f"{name}: {line}" for line in differences(old[name], found[name])]
    for line in lines:
        print(f"{part}/{line}")
    return len(lines)


if __name__ == "__main__":
    sys.exit(main())
