"""Curvature on the page: tables of both parts, verdicts that fall either way, surfaces that are whole."""

import numpy as np
import pytest

from equiscope.report import analyses, analysis_figures


def record(analysis, step, values):
    return {"kind": "analysis", "analysis": analysis, "step": step, "probe": "forces", "settings": {}, "values": values}


def figure(value, low=None, high=None):
    return {"value": value, "interval": [low, high]}


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
    (section,) = analyses.sections([hessian(5, equivariance), hessian(9, equivariance)])
    assert words in section.lead
    assert len(section.tables[0].rows) == 4
    assert section.tables[0].rows[0][3] == "10 (9 to 11)"
    alone = record("hessian", 5, {"parts": {"twirled": spectrum(1, 1, 1, 1)}})
    assert analyses.sections([alone])[0].lead.startswith("No step has both")


def surface(rough, noise, anharmonic, size=5):
    line = np.linspace(-1, 1, size) ** 2
    found = {"roughness": rough, "noise": noise, "relative": rough, "anharmonic": anharmonic, "range": 1.0}
    return {"value": line.tolist(), "error": [0.1] * size, **found}


def plane(size=5):
    axis = np.linspace(-1, 1, size)
    parts = {part: surface(0.01, 0.01, 0.1) | {"value": np.add.outer(axis**2, axis**2).tolist()}
             for part in ("twirled", "equivariance")}  # fmt: skip
    return {"x": axis.tolist(), "y": axis.tolist(), "axes": ["eigenvector:twirled", "random"], "parts": parts}


def landscape(step, twirled, equivariance, flat=None):
    lines = {"eigenvector:twirled": {"twirled": twirled, "equivariance": equivariance}}
    rounding = {"twirled": 1e-8, "equivariance": 1e-9}
    return record("landscape", step, {"t": [-1, -0.5, 0, 0.5, 1], "lines": lines, "plane": flat, "rounding": rounding})


def test_roughness_is_judged_by_its_noise():
    (section,) = analyses.sections([landscape(9, surface(0.1, 0.01, 0.2), surface(0.02, 0.01, 0.1))])
    assert "in 1 of 1 comparisons" in section.lead
    assert "in 1 of 2 rows" in section.lead
    (section,) = analyses.sections([landscape(9, surface(0.1, 0.01, 0.1), surface(0.02, 0.01, 0.2))])
    assert "in 0 of 1 comparisons" in section.lead
    assert analysis_figures.plotly_figure(section) is None
    assert analysis_figures.png_figure(section) is None


def test_surfaces_start_at_the_model():
    (section,) = analyses.sections([landscape(9, surface(0.1, 0.01, 0.2), surface(0.02, 0.01, 0.1), plane())])
    drawn = analysis_figures.plotly_figure(section)
    assert [trace.type for trace in drawn.data] == ["surface", "surface"]
    assert drawn.data[0].z[2][2] == 0
    assert drawn.layout.scene.camera.eye.x == drawn.layout.scene2.camera.eye.x
    assert len(analysis_figures.png_figure(section).axes) >= 4


def test_gradients_with_and_without_a_positive_square():
    def values(twirled, adam):
        block = {
            "norm": {"twirled": figure(twirled, 1, 2), "equivariance": figure(0.5, 0.4, 0.6)},
            "ratio": figure(0.3, 0.2, 0.4), "cosine": figure(-0.1, -0.2, 0.0),
            "rate": {"twirled": figure(1.0, 0.5, 2.5 if adam else 1.5), "equivariance": figure(3.0, 2.0, 4.123)},
        }  # fmt: skip
        return {"losses": {"twirled": 1.0, "equivariance": 0.1}, "whole": block, "adam": block if adam else None}

    steps = [record("gradients", 0, values(None, False)), record("gradients", 9, values(1.5, True))]
    (section,) = analyses.sections(steps)
    assert section.lead.startswith("At 2 of 2 steps")
    assert section.lead.endswith("at 1 with the intervals apart.")
    found = [dict(zip(section.tables[0].head, row, strict=True)) for row in section.tables[0].rows]
    assert found[0]["rate, equivariance"] == "3 (2 to 4.1)"
    assert [row["|∇ twirled|"] for row in found] == ["–", "1.5 (1 to 2)"]
    assert found[0]["ratio for Adam"] == "–"
