"""Bugs that would make the report show a wrong number, place or verdict."""

from tests.planted.engine import bug

FIGURES, STYLE, CHART, VIEWS = "report/figures.py", "report/style.py", "report/chart.py", "report/views.py"
KINDS, HEADS, WORDS = "report/kinds/__init__.py", "report/kinds/heads.py", "words.py"
CLAIMS = "report/claims_analyses.py"

BUGS = (
    bug("the axis of a run goes on to the end of the paper's curve", FIGURES, "percent",
        r"axis = style\.step_axis\(curve\.step\)", r"axis = style.step_axis([*curve.step, 445000])",
        "report/test_figures"),
    bug("the signs of crossings float above the curve", FIGURES, "percent",
        r"max\(crossing\.percent, low\)", r"high", "report/test_figures"),
    bug("ticks of steps stand in one another", STYLE, "step_axis", r"> 0\.5 for", r"> 0.0 for", "report/test_style"),
    bug("upper and lower error bars changed over on the page", CHART, "_series_traces",
        r"\(one\.high - y, y - one\.low\)", r"(y - one.low, one.high - y)", "report/test_chart"),
    bug("a number that a record lacks is read as zero", VIEWS, "_read",
        r"return number\(value\)", r"return number(value or 0.0)", "report/test_views"),
    bug("steps analysed with other settings shown beside the newest", "runs/kinds/__init__.py", "newest",
        r'if entry\["settings"\] == settings\[entry\["probe"\]\]', "if True", "report/kinds/test_kinds"),
    bug("better conditioned by the estimate, whatever its interval", KINDS, "lower",
        r"high < 1 - ROUNDING", r"ratio.value < 1", "report/kinds/test_conditioning"),
    bug("one analysed head drawn as a curve", HEADS, "chart", r"len\(steps\) < 2", r"len(steps) < 1",
        "report/kinds/test_heads"),
    bug("a relation believed with its common trend in it", CLAIMS, "_relation_row",
        r"decided\(found\.partial\.low > 0", r"decided(found.pearson.low > 0", "report/test_claims"),
    bug("a hyphen where a minus sign belongs", WORDS, "raised", r"minus\(mantissa\)", r"mantissa", "test_words"),
)  # fmt: skip
