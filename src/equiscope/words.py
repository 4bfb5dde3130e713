"""Numbers and tables as text, the same everywhere: reports, commands, printed results."""

from __future__ import annotations

import csv
import datetime
import difflib
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Rows = Iterable[Sequence[str]]
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SMALL = re.compile(r"(-?)0\.(0{3,})([1-9])(\d*)")


def number(value: Any) -> float:
    """A float, NaN for what is missing (None)."""
    return math.nan if value is None else float(value)


def minus(text: str) -> str:
    """The text with real minus signs."""
    return text.replace("-", "−")


def raised(text: str) -> str:
    """``1.9e+03`` as 1.9 × 10³, ``0.00045`` too as 4.5 × 10⁻⁴; others as they are, with a real minus sign."""
    mantissa, _, exponent = text.partition("e")
    if small := _SMALL.fullmatch(mantissa):
        sign, zeros, first, rest = small.groups()
        mantissa, exponent = f"{sign}{first}{rest and '.'}{rest}", f"-{len(zeros) + 1}"
    return minus(mantissa) + (f" × 10{str(int(exponent)).translate(_RAISED)}" if exponent else "")


def power(value: float) -> str:
    """10⁻⁴ for 1e-4 (the nearest power of ten)."""
    return f"10{str(round(math.log10(value))).translate(_RAISED)}"


def digits(value: Any, error: Any = None) -> str:
    """Three significant digits, with one of the error; a dash for what is missing."""
    value, error = number(value), number(error)
    if not math.isfinite(value):
        return "–"
    shown = raised(f"{value:.3g}")
    return f"{shown} ± {raised(f'{error:.1g}')}" if math.isfinite(error) and error > 0 else shown


def plain(value: float) -> str:
    """Two significant digits, without exponents down to 0.001: 12, 0.37, 0.0021, 3.0e-05."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.{max(0, 1 - math.floor(math.log10(abs(value))))}f}"


def ranged(value: Any, interval: Sequence[Any] | None) -> str:
    """A value to three digits with its interval to two: ``1.52 (1.4 to 1.6)``; a dash for what is missing."""
    value, (low, high) = number(value), map(number, interval or (None, None))
    if not (math.isfinite(value) and math.isfinite(low) and math.isfinite(high)):
        return digits(value)
    return f"{digits(value)} ({' to '.join(digits(float(f'{bound:.2g}')) for bound in (low, high))})"


def r2(value: Any) -> str:
    """R² with two decimals and a real minus sign; "unknown" for NaN."""
    value = number(value)
    return minus(f"{value:.2f}").replace("−0.00", "0.00") if math.isfinite(value) else "unknown"


def correlation(value: Any, low: Any, high: Any, form: str = "{} ({} to {})") -> str:
    """A correlation with its interval, two decimals each: ``0.94 (0.90 to 0.99)``; a dash for what is missing."""
    value = number(value)
    return minus(form.format(*(f"{number(v):.2f}" for v in (value, low, high)))) if math.isfinite(value) else "–"


def percent(value: float, low: float = math.nan, high: float = math.nan) -> tuple[str, str, str]:
    """(value, low, high) as digits without the sign of percent, all with the decimals that the interval warrants."""
    if not math.isfinite(value):
        return "unknown", "?", "?"
    # As fine as the interval's half width and as two significant digits of the value; no bound rounds to 0.
    scale = (high - low) / 2 if math.isfinite(low) and math.isfinite(high) and high > low else abs(value) / 10
    smallest = min((abs(v) for v in (value, low, high) if math.isfinite(v) and v != 0), default=1.0)
    if smallest < 1e-4 and abs(value) < 1e-3:
        first, second, third = (
            "0" if v == 0 else raised(f"{v:.1e}") if math.isfinite(v) else "?" for v in (value, low, high)
        )
        return first, second, third
    leading = 1 - math.floor(math.log10(abs(value) or 1.0))
    decimals = min(max(0, -math.floor(math.log10(scale or 1.0)), -math.floor(math.log10(smallest)), leading), 6)
    first, second, third = (minus(f"{v:.{decimals}f}") for v in (value, low, high))
    return first, second, third


def share(value: Any, error: Any = None) -> str:
    """A share as a percent with its error; no more digits than the error warrants."""
    value, error = 100 * number(value), 100 * number(error)
    if not math.isfinite(value):
        return "–"
    decimals = 1 if not math.isfinite(error) or error >= 0.05 else 2
    shown = f"{value:.{decimals}f}"
    shown = f"{0:.{decimals}f}" if float(shown) == 0 else minus(shown)
    return f"{shown} ± {error:.{decimals}f}" if math.isfinite(error) and error >= 0.005 else shown


def step_label(step: float) -> str:
    """A tick of an axis of steps: 12, 1k, 2.5k, 1M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if step >= unit:
            return f"{step / unit:g}{name}"
    return f"{step:g}"


def decade_label(value: float, unit: str = "") -> str:
    """A tick of a logarithmic axis: plain digits from a thousandth to a thousand, beyond with powers of ten."""
    if 1e-3 <= value <= 1e3:
        return f"{value:g}{unit}"
    return (power(value) if f"{value:.0e}".startswith("1e") else raised(f"{value:.0e}")) + unit


def text(value: Any) -> str:
    """A value as a reader wants it: thousands separated, three significant digits, long lists cut."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and value == int(value) and abs(value) < 1e6):
        return f"{int(value):,}" if isinstance(value, int) else minus(f"{int(value):,}")
    if isinstance(value, float):
        return digits(value)
    if isinstance(value, list | tuple):
        shown = [text(item) for item in value[:12]]
        return ", ".join([*shown, f"… ({len(value)} in all)"] if len(value) > 12 else shown) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text(item)}" for key, item in value.items())
    return str(value)


def leaves(value: Mapping[str, Any], joint: str = ".", prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(name, item) of every leaf of nested dicts, the keys on the way to it joined; an empty dict is a leaf."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from leaves(item, joint, f"{prefix}{key}{joint}")
        else:
            yield f"{prefix}{key}", item


def flatten(value: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, text) of every leaf of nested dicts, the names as a reader wants them."""
    found = leaves(value, " · ")
    return [(name.replace("_", " "), text(item)) for name, item in found if not isinstance(item, Mapping)]


def duration(seconds: float) -> str:
    """38 s, 4 min 36 s, 2 h 5 min; empty for NaN."""
    if not math.isfinite(seconds):
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def moment(value: Any) -> str:
    """A record's time (seconds since 1970, or text) as date and time, UTC."""
    if isinstance(value, int | float):
        return datetime.datetime.fromtimestamp(value, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return "" if value is None else str(value).replace("T", " ").replace("+00:00", " UTC")


def aligned(rows: Rows, indent: str = "", right: bool = False) -> list[str]:
    """A line for each row, its columns as wide as their widest cell."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    side = str.rjust if right else str.ljust
    return [
        indent + "  ".join(side(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def as_csv(rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows, the first of them the names of the columns, as a CSV file."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows([[cell(value) for value in row] for row in rows])
    return out.getvalue().encode()


def cell(value: Any) -> Any:
    """A value for a CSV file: text that a spreadsheet would compute as a formula is marked as text by a quote."""
    if not isinstance(value, str) or value[:1] not in ("=", "+", "-", "@", "\t", "\r") or not value:
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


#: Control characters but for tab and line feed: they would move the cursor, or talk to the terminal.
_CONTROLS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}")
_ALLOWED = re.compile(r"(\x1b\[[0-9;]*[mAJK]|\r)")


def harmless(text: str) -> str:
    """Text for a terminal: colours and the codes of progress bars stay, other control characters become '�'."""
    pieces = _ALLOWED.split(text)
    return "".join(piece if number % 2 else piece.translate(_CONTROLS) for number, piece in enumerate(pieces))


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6, sign: str = ";") -> str:
    """``; did you mean 'positions'?``, the nearest of the names that are known; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), 1, cutoff)
    return f"{sign} did you mean {near[0]!r}?" if near else ""


_PASSWORD = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*(?=@)")
_SECRET = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)
HIDDEN = "(not recorded)"


def without_secrets(config: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """A configuration without keys and passwords of loggers, and without passwords in addresses."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found[name] = without_secrets(value, section or str(name))
        elif section == "logger" and value and _SECRET.search(str(name)):
            found[name] = HIDDEN
        else:
            found[name] = _PASSWORD.sub(HIDDEN, value) if isinstance(value, str) else value
    return found
