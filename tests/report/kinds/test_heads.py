"""The head on the page: the verdict falls either way, every factor is drawn."""

import pytest

from equiscope.report.kinds import sections
from equiscope.report.live import live


def head_record(step, error, variance, features, alignment):
    form = {"form": variance * features * alignment, "variance": variance, "features": features, "alignment": alignment}
    values = {"percent": error * 10, "equivariance": error, "equivariance_error": error / 10, **form, "elsewhere": form}
    return {"kind": "analysis", "analysis": "heads", "step": step, "probe": "forces", "settings": {}, "values": values}


def correlation(value, low, high):
    return {"value": value, "low": low, "high": high, "effective": 9.0}


def relations(partial, difference):
    plain = correlation(0.95, 0.9, 0.99)
    return {"points": 9, "left_out": 1, "pearson": plain, "spearman": plain, "partial": partial,
            "differences": difference, "partial_spearman": partial, "differences_spearman": difference}  # fmt: skip


def related(form_low):
    return [
        {"kind": "analysis", "analysis": "relations", "step": 9, "probe": "forces", "pair": pair, "values": values}
        for pair, values in (
            ("equivariance error ~ weight variance", relations(correlation(0.1, -0.5, 0.6), correlation(0, -0.6, 0.6))),
            ("equivariance error ~ exact form", relations(correlation(0.99, 0.9, 1), correlation(0.9, form_low, 1))),
        )
    ]


HEADS = [
    head_record(0, 2.0, 0.02, 400, 0.5),
    head_record(20, 0.06, 0.02, 12, 0.2),
    head_record(90, 2e-4, 0.01, 50, 4e-4),
]


@pytest.mark.parametrize(("low", "words"), [(0.7, "the form explains the error"), (0.5, "not told apart")])
def test_the_verdict_on_the_head_falls_either_way(low, words):
    (section,) = sections([*HEADS, *related(low)])
    assert words in section.lead
    assert "fell by 4.30 powers of ten" in section.lead
    assert "variance +0.30, features +0.90, alignment +3.10" in section.lead
    table = section.tables[1]
    assert table.rows[0][1:5] == ["0.95 / 0.95", "0.10 (−0.50 to 0.60)", "0.00 (−0.60 to 0.60)", "0.94 / 0.99 (EScAIP)"]


def test_the_figure_holds_every_factor():
    heads = sections(HEADS)[0]
    names = [trace.name for trace in live(heads.chart).data]
    assert names[0].startswith("equivariance error")
    assert len(names) == 5


def test_one_step_is_a_sentence_and_no_figure():
    (section,) = sections(HEADS[:1])
    assert section.chart is None
    assert section.lead == (
        "At step 0, the one that was analysed, the equivariance error is 2 ± 0.2 and its exact form on other samples "
        "4 = variance 0.02 × features 400 × alignment 0.5."
    )
