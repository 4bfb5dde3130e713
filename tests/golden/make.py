"""Makes the golden results of today's code: ``python -m tests.golden.make [PART…] [--diff]``.

Before a file is written every case is run twice, and with each of its batch sizes: what does not agree with itself is
refused by name. ``--diff`` writes nothing and shows what differs from the committed files.
"""

import argparse
import sys
import time

from tests.golden.registry import FOLDER, PARTS, Case, Figures, differences, every_case, path, stored, written


def steady(case: Case) -> tuple[Figures, list[str]]:
    """The case's figures, and where a second run or another batch size disagrees with them."""
    first = case.figures()
    lines = []
    for size in (case.sizes[0], *case.sizes[1:]):
        lines += [f"batches of {size}: {line}" for line in differences(first, case.figures(size))]
    return first, lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--diff", action="store_true", help="write nothing, show what differs from the committed files")
    options = parser.parse_args()
    failed = False
    for part in options.parts or PARTS:
        begun = time.perf_counter()
        found: dict[str, Figures] = {}
        for case in every_case([part]):
            found[case.name], lines = (case.figures(), []) if options.diff else steady(case)
            failed |= bool(lines)
            for line in lines:
                print(f"{part}/{case.name} does not agree with itself: {line}")
        changed = show(part, found)
        print(f"{part}: {len(found)} cases, {changed} entries differ, {time.perf_counter() - begun:.0f} s", flush=True)
        if not options.diff and not failed:
            FOLDER.mkdir(exist_ok=True)
            path(part).write_text(written(found))
    return int(failed)


def show(part: str, found: dict[str, Figures]) -> int:
    """Print what differs from the committed file, by name; how many entries that is."""
    old = stored(part) if path(part).is_file() else {}
    lines = [f"{name}: gone" for name in old if name not in found] + [f"{n}: new case" for n in found if n not in old]
    for name in old:
        if name in found:
            lines += [f"{name}: {line}" for line in differences(old[name], found[name])]
    for line in lines:
        print(f"{part}/{line}")
    return len(lines)


if __name__ == "__main__":
    sys.exit(main())
