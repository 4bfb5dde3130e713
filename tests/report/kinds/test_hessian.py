"""Curvature on the page: tables of both parts, verdicts that fall either way."""

import pytest

from equiscope.report.kinds import sections


def record(analysis, step, values):
    return {"kind": "analysis", "analysis": analysis, "step": step, "probe": "forces", "settings": {}, "values": values}


def spectrum(top, trace, loss, median):
    return {"hessian": {
        "lambda_max": {"value": top, "converged": True, "interval": [top * 0.9, top * 1.1]},
        "trace": {"value": trace, "interval_samples": [trace * 0.5, trace * 1.5]},
        "conditioning": {"0.5": top / median}, "over_mean": 100 * top / trace, "stable_rank": 2.5,
        "over_loss": {"lambda_max": top / loss, "trace": trace / loss},
    }}  # fmt: skip


def hessian(step, equivariance):
    return record("hessian", step, {"parts": {"twirled": spectrum(10, 40, 1.0, 0.01), "equivariance": equivariance}})


@pytest.mark.parametrize(
    ("equivariance", "words"),
    [
        (spectrum(1, 40, 1.0, 0.01), "Better conditioned: yes, by every figure"),
        (spectrum(90, 40, 0.1, 0.01), "Better conditioned: not by these figures"),
        (spectrum(1, 1, 0.01, 0.01), "Better conditioned: it depends on the figure"),
    ],
)
def test_the_verdict_on_conditioning_falls_either_way(equivariance, words):
    (section,) = sections([hessian(5, equivariance), hessian(9, equivariance)])
    assert words in section.lead
    assert len(section.tables[0].rows) == 4
    assert section.tables[0].rows[0][3] == "10 (9 to 11)"
    alone = record("hessian", 5, {"parts": {"twirled": spectrum(1, 1, 1, 1)}})
    assert sections([alone])[0].lead.startswith("No step has both")
