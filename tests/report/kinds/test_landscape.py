"""Landscapes on the page: roughness beside its noise, surfaces that are whole."""

import numpy as np

from equiscope.report.chart import still
from equiscope.report.kinds import sections
from equiscope.report.live import live

from .test_hessian import record


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
    (section,) = sections([landscape(9, surface(0.1, 0.01, 0.2), surface(0.02, 0.01, 0.1))])
    assert "in 1 of 1 comparisons" in section.lead
    assert "in 1 of 2 rows" in section.lead
    (section,) = sections([landscape(9, surface(0.1, 0.01, 0.1), surface(0.02, 0.01, 0.2))])
    assert "in 0 of 1 comparisons" in section.lead
    assert section.chart is None


def test_surfaces_start_at_the_model():
    (section,) = sections([landscape(9, surface(0.1, 0.01, 0.2), surface(0.02, 0.01, 0.1), plane())])
    drawn = live(section.chart)
    assert [trace.type for trace in drawn.data] == ["scatter", "scatter", "surface", "surface"]
    assert drawn.data[2].z[2][2] == 0
    assert drawn.layout.scene.camera.eye.x == drawn.layout.scene2.camera.eye.x
    assert len(still(section.chart).axes) >= 4
