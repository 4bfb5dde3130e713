"""What a committed page says in words against its tables: every number of its prose is accounted for.

A page's prose is what stands outside its tables, headings and code. ``says`` checks the numbers of one sentence, to as
many digits as the sentence gives; ``given`` names words whose numbers are settings and definitions, not findings. What
neither has named is ``untold``, and a test asks that nothing is; of a page of documentation, where most numbers are
settings and formulas, nothing that looks ``measured``.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
NUMBER = r"[−-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?"
# Digits inside names (l1, 3D, `code`, 24³) are no numbers of a sentence.
_UNITS = r"%|points?|times|bytes|[kMG]B|s|ms|µs|seconds|minutes?|min|hours?"
_MEASURED = re.compile(
    rf"(?:R²|AUC|±|÷|factor of|[Pp]ercent of)(?: of| up to| under| at least| about)* ?{NUMBER}|"
    rf"(?<![\w.`^]){NUMBER}(?:(?: to |–| and |, ){NUMBER})*[ -]?(?:{_UNITS})(?!\w)|"
    rf"(?<![\w.`^]){NUMBER} of (?:the )?{NUMBER}"
)
_LONE = re.compile(rf"(?<![\w.`^]){NUMBER}(?![\w`^³²₁₂])")


def script(name: str) -> ModuleType:
    """A module of ``benchmarks/``, with that folder where it looks for its neighbours."""
    folder = RESULTS.parent
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


def value(text: str) -> float:
    """The number at the start of a cell or of a group of a sentence; a minus sign may be typographic."""
    found = re.search(NUMBER, text)
    assert found, f"{text!r} has no number"
    return float(found.group().replace(",", "").replace("−", "-"))


def unit(text: str) -> float:
    """Of the last digit given: 0.1 of "2.4", 1e-7 of "3.8e-06"; one of a whole number, whatever zeros it ends on."""
    found = re.search(NUMBER, text)
    assert found, f"{text!r} has no number"
    mantissa, _, power = found.group().replace(",", "").partition("e")
    return 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))


def same(said: str, due: float) -> bool:
    """Whether a number as said is the due one, to its own digits."""
    return abs(value(said) - due) <= 0.5000001 * unit(said)


class Page:
    """A committed page: ``prose``, ``tables`` (heading -> rows of cells, without heads), and what was told of it.

    until: words at which its prose ends for this purpose, where a script writes the rest.
    whole: tables are prose as well, and formulas are not.
    """

    def __init__(self, name: str, folder: Path = RESULTS, until: str = "", whole: bool = False):
        self.name, self.tables = name, {}
        heading, words, fenced, body = "", [], False, 0
        text = (folder / name).read_text()
        for line in (re.sub(r"\$\$.*?\$\$|\$[^$]*\$", "", text, flags=re.DOTALL) if whole else text).splitlines():
            if line.startswith("```"):
                fenced = not fenced
            elif line.startswith("#"):
                heading, body = line.lstrip("# "), 0
            elif line.startswith("|") and not whole:
                body += 1
                if body > 2:
                    cells = [cell.strip() for cell in line.strip("| ").split("|")]
                    self.tables.setdefault(heading, []).append(cells)
            elif not fenced:
                words.append(line)
                body = 0
        self.prose = " ".join(" ".join(words).split())
        if until:
            self.prose = self.prose[: self.prose.index(until)]
        self._told: list[tuple[int, int]] = []

    def says(self, sentence: str, *due: float) -> None:
        """``sentence`` stands in the prose, with these numbers where it has ``{}``."""
        pattern = rf"({NUMBER})".join(re.escape(part) for part in sentence.split("{}"))
        found = re.search(pattern, self.prose)
        assert found, f"{self.name} does not say {sentence!r}"
        assert len(found.groups()) == len(due), sentence
        for said, number in zip(found.groups(), due, strict=True):
            assert same(said, number), f"{self.name} says {said} where its tables give {number:.6g}: {found.group()!r}"
        self._told.append(found.span())

    def given(self, *words: str) -> None:
        """These words stand in the prose; their numbers are settings or definitions."""
        for one in words:
            assert one in self.prose, f"{self.name} does not say {one!r}"
            self.kind(re.escape(one))

    def kind(self, pattern: str) -> None:
        """Whatever the pattern finds is no finding; it need not find anything."""
        self._told += [found.span() for found in re.finditer(pattern, self.prose)]

    @property
    def untold(self) -> list[str]:
        """Numbers of the prose that nothing has accounted for, with some words around."""
        return self._left(_LONE)

    @property
    def measured(self) -> list[str]:
        """Those that look like something measured: shares, times, sizes, ratios, R², counts out of counts."""
        return self._left(_MEASURED)

    def _left(self, looks: re.Pattern[str]) -> list[str]:
        return [self.prose[max(0, found.start() - 30) : found.end() + 20] for found in looks.finditer(self.prose)
                if not any(a <= found.start() and found.end() <= b for a, b in self._told)]  # fmt: skip
