"""Correlations and curvature that analyses recorded, with the paper's numbers beside them."""

import pytest

from equiscope.report.evidence import gather
from equiscope.report.relations import landscape_rows, relation_rows
from equiscope.report.verdicts import AGREES, DIFFERS, UNDECIDED
from tests.report import synthetic
from tests.report.test_page import write

PAIR = "equivariance error ~ weight variance"


def record(pearson, partial, effective=12.0, pair=PAIR):
    made = {
        key: {"value": sum(limits) / 2, "low": limits[0], "high": limits[1], "effective": effective}
        for key, limits in (("pearson", pearson), ("partial", partial))
    }
    values = {"points": 14, **made}
    return {"kind": "analysis", "analysis": "relations", "probe": "forces", "pair": pair, "step": 9, "values": values}


def evidence(place, *records):
    return gather([write(place / "run", [*synthetic.force_field_run(), *records])])


@pytest.mark.parametrize(
    ("pearson", "partial", "effective", "verdict"),
    [
        ((0.8, 0.99), (0.2, 0.8), 12, AGREES),
        ((0.8, 0.99), (-0.5, 0.4), 12, DIFFERS),
        ((0.8, 0.99), (-0.5, 0.4), 4, UNDECIDED),
        ((-0.2, 0.7), (-0.5, 0.4), 12, UNDECIDED),
    ],
)
def test_the_correlation_without_the_trend_decides(tmp_path, pearson, partial, effective, verdict):
    (row,) = relation_rows(evidence(tmp_path, record(pearson, partial, effective)))
    assert row.verdict == verdict
    assert "Pearson 0.94, Spearman 0.99" in row.paper
    assert row.what == PAIR
    assert f"[{pearson[0]:.2f}, {pearson[1]:.2f}]".replace("-", "−") in row.ours


def test_only_the_newest_record_of_a_pair_counts(tmp_path):
    old, new = record((0.8, 0.9), (0.5, 0.6)), record((0.8, 0.9), (-0.5, 0.6))
    (row,) = relation_rows(evidence(tmp_path, old, new))
    assert row.verdict == DIFFERS


def test_unknown_correlations_decide_nothing(tmp_path):
    empty = record((0, 0), (0, 0)) | {"values": {"points": 2}}
    (row,) = relation_rows(evidence(tmp_path, empty))
    assert row.verdict == UNDECIDED
    assert "unknown" in row.ours


def test_curvature_is_shown_as_recorded(tmp_path):
    values = {"largest_eigenvalue": 251.0, "matrix": [1, 2]}
    made = {"kind": "analysis", "analysis": "hessian", "step": 5, "values": values}
    (row,) = landscape_rows(evidence(tmp_path, made))
    assert row.ours == "largest eigenvalue 251"
    assert row.verdict == UNDECIDED


def hessian(top, quantile):
    return {"hessian": {"lambda_max": {"value": sum(top) / 2, "interval": top},
                        "quantiles": {"0.99": {"value": sum(quantile) / 2, "interval": quantile}}}}  # fmt: skip


@pytest.mark.parametrize(
    ("equivariance", "twirled", "verdict"),
    [
        (((9.0, 11.0), (1.0, 2.0)), ((900.0, 1100.0), (1.0, 2.0)), AGREES),
        (((900.0, 1100.0), (1.0, 2.0)), ((9.0, 11.0), (1.0, 2.0)), DIFFERS),
        (((9.0, 11.0), (1.0, 2.0)), ((9.0, 11.0), (1.0, 2.0)), UNDECIDED),
        (((9.0, 11.0), (-1.0, 2.0)), ((900.0, 1100.0), (1.0, 2.0)), UNDECIDED),
    ],
)
def test_condition_numbers_need_an_interval(tmp_path, equivariance, twirled, verdict):
    parts = {"equivariance": hessian(*equivariance), "twirled": hessian(*twirled)}
    made = {"kind": "analysis", "analysis": "hessian", "step": 5, "values": {"parts": parts}}
    (row,) = landscape_rows(evidence(tmp_path, made))
    assert row.verdict == verdict
    assert "largest eigenvalue 10" in row.ours


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((0.01, 0.03), AGREES), ((2.0, 9.0), DIFFERS), ((0.5, 2.0), UNDECIDED), ((None, None), UNDECIDED)],
)
def test_exact_condition_numbers_of_the_head_decide_by_their_ratio(tmp_path, interval, verdict):
    values = {"layer": "head", "parts": {"equivariance": {"condition": 6e7}, "twirled": {"condition": 3e9}},
              "ratio": {"value": 0.02, "interval": list(interval)}}  # fmt: skip
    made = {"kind": "analysis", "analysis": "conditioning", "step": 5, "values": values}
    (row,) = landscape_rows(evidence(tmp_path, made))
    assert row.verdict == verdict
    assert "in layer head: equivariance 6" in row.ours


def test_roughness_along_its_own_direction(tmp_path):
    lines = {f"eigenvector:{part}": {part: {"relative": value}} for part, value in (("twirled", 0.03), ("total", 0.2))}
    made = {"kind": "analysis", "analysis": "landscape", "step": 5, "values": {"lines": lines}}
    (row,) = landscape_rows(evidence(tmp_path, made))
    assert row.ours.endswith("twirled 0.03, total 0.2")
