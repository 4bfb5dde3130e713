"""Numbers and tables as text: digits, minus signs, what is missing."""

import math

import pytest

from equiscope import words


def test_text_of_numbers():
    assert words.share(0.1234, 0.002) == "12.3 ± 0.2"
    assert words.share(0.5, 0.0001) == "50.00 ± 0.01"
    assert words.share(-1e-9, 1e-9) == "0.00"
    assert words.share(None) == "–"
    assert words.digits(-1.2345e-5, 1e-6) == "−1.23 × 10⁻⁵ ± 1 × 10⁻⁶"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.00123, "0.00123"), (0.001, "0.001"), (0.0009999, "0.001"), (0.000445, "4.45 × 10⁻⁴"), (-0.0005, "−5 × 10⁻⁴"),
     (0.00010, "1 × 10⁻⁴"), (0.0000999, "9.99 × 10⁻⁵"), (2.4e-5, "2.4 × 10⁻⁵"), (3e-12, "3 × 10⁻¹²"), (0.0, "0")],
)  # fmt: skip
def test_small_numbers_of_a_column_are_written_in_one_way(value, expected):
    assert words.digits(value) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.371, 0.343, 0.412), ("0.37", "0.34", "0.41")),
        ((0.42, 0.31, 0.57), ("0.42", "0.31", "0.57")),
        ((50.2, 48.1, 52.3), ("50", "48", "52")),
        ((0.37, 0.02, 1.5), ("0.37", "0.02", "1.50")),
        ((-0.02, -0.05, 0.01), ("−0.020", "−0.050", "0.010")),
        ((1.5e-7, 1e-7, 2e-7), ("1.5 × 10⁻⁷", "1.0 × 10⁻⁷", "2.0 × 10⁻⁷")),
        ((math.nan, 0, 1), ("unknown", "?", "?")),
    ],
)
def test_digits_follow_the_interval(values, expected):
    assert words.percent(*values) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(12345, "12,345"), (0.123456, "0.123"), (-2.5, "−2.5"), (None, "–"), (True, "yes"), ([1, 2], "1, 2"), ([], "none"),
     (1e-11, "1 × 10⁻¹¹"), (-2.5e-7, "−2.5 × 10⁻⁷"),
     (list(range(40)), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, … (40 in all)")],
)  # fmt: skip
def test_text(value, expected):
    assert words.text(value) == expected


def test_flatten_moment_duration():
    assert words.flatten({"a": {"b_c": 1}, "d": "x"}) == [("a · b c", "1"), ("d", "x")]
    assert words.moment(0.0) == "1970-01-01 00:00 UTC"
    assert [words.duration(s) for s in (1.5, 61, 3700, float("nan"))] == ["1.5 s", "1 min 1 s", "1 h 1 min", ""]


def test_labels():
    assert [words.step_label(s) for s in (1, 1000, 2500, 1e6)] == ["1", "1k", "2.5k", "1M"]
    assert words.decade_label(1e-4, " %") == "10⁻⁴ %"
    assert words.decade_label(0.01, " %") == "0.01 %"
    assert [words.r2(v) for v in (0.5, -0.25, -0.001, float("nan"))] == ["0.50", "−0.25", "0.00", "unknown"]
    assert words.decade_label(1e4) == "10⁴"
    assert words.decade_label(5e-4) == "5 × 10⁻⁴"
    assert words.decade_label(2e4, " %") == "2 × 10⁴ %"


def test_a_value_with_its_interval():
    assert words.ranged(3, [2, 4.123]) == "3 (2 to 4.1)"
    assert words.ranged(1917, [1843, 2011]) == "1.92 × 10³ (1.8 × 10³ to 2 × 10³)"
    assert words.ranged(3, [None, 4]) == words.ranged(3, None) == "3"
    assert words.ranged(None, [1, 2]) == "–"
    assert words.correlation(-0.5, -0.75, 0.25) == "−0.50 (−0.75 to 0.25)"
    assert words.correlation(math.nan, 0, 1) == "–"


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, "0"), (12.34, "12"), (0.371, "0.37"), (0.00123, "0.0012"), (3e-5, "3.0e-05")]
)
def test_plain(value, expected):
    assert words.plain(value) == expected


def test_tables():
    rows = [("a", "long"), ("bcd", "e")]
    assert words.aligned(rows) == ["a    long", "bcd  e"]
    assert words.aligned(rows, " ", right=True) == ["   a  long", " bcd     e"]
    assert words.as_csv([("a", "b"), (1, "c, d")]) == b'a,b\r\n1,"c, d"\r\n'


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@x", "\tx", "\rx", "-1+2"])
def test_a_cell_that_a_spreadsheet_would_compute_is_text(text):
    assert words.cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-1.5", "+2", "-1e-3", "-inf", "a=1", "", -1.5, None, "−3"])
def test_numbers_and_other_text_stay_as_they_are_in_a_cell(value):
    assert words.cell(value) == value


def test_control_characters_do_not_reach_the_terminal():
    assert words.harmless("a\x1b]0;x\x07\x9b\x00b\n\tc") == "a�]0;x���b\n\tc"
    colours = "\x1b[31mred\x1b[0m \x1b[2A\x1b[J\r50 %"
    assert words.harmless(colours) == colours


def test_keys_of_loggers_and_passwords_in_addresses_are_hidden():
    config = {
        "logger": {"name": "wandb", "api_key": "x", "deep": {"token": "y"}, "tracking_uri": "https://me:pw@host/p"},
        "data": {"key": "forces", "path": "s3://u:pw@bucket"},
        "seed": 0,
    }
    hidden = words.HIDDEN
    assert words.without_secrets(config) == {
        "logger": {"name": "wandb", "api_key": hidden, "deep": {"token": hidden}, "tracking_uri": f"https://{hidden}@host/p"},
        "data": {"key": "forces", "path": f"s3://{hidden}@bucket"},
        "seed": 0,
    }  # fmt: skip


def test_the_nearest_of_the_known_names_is_offered_and_nothing_far():
    assert words.nearest("forcs", ["energy", "forces"]) == "; did you mean 'forces'?"
    assert words.nearest("forcs", ["forces"], sign=",") == ", did you mean 'forces'?"
    assert words.nearest("forcs", ["energy"]) == words.nearest("forcs", []) == ""
    assert words.nearest("fo", ["forces"], 0.3) == "; did you mean 'forces'?"
