"""Gradients on the page: rates, norms and ratios with their intervals."""

from equiscope.report.kinds import sections

from .test_hessian import record


def figure(value, low=None, high=None):
    return {"value": value, "interval": [low, high]}


def test_gradients_with_and_without_a_positive_square():
    def values(twirled, adam):
        block = {
            "norm": {"twirled": figure(twirled, 1, 2), "equivariance": figure(0.5, 0.4, 0.6)},
            "ratio": figure(0.3, 0.2, 0.4), "cosine": figure(-0.1, -0.2, 0.0),
            "rate": {"twirled": figure(1.0, 0.5, 2.5 if adam else 1.5), "equivariance": figure(3.0, 2.0, 4.123)},
        }  # fmt: skip
        return {"losses": {"twirled": 1.0, "equivariance": 0.1}, "whole": block, "adam": block if adam else None}

    steps = [record("gradients", 0, values(None, False)), record("gradients", 9, values(1.5, True))]
    (section,) = sections(steps)
    assert section.lead.startswith("At 2 of 2 steps")
    assert section.lead.endswith("at 1 with the intervals apart.")
    found = [dict(zip(section.tables[0].head, row, strict=True)) for row in section.tables[0].rows]
    assert found[0]["rate, equivariance"] == "3 (2 to 4.1)"
    assert [row["|∇ twirled|"] for row in found] == ["–", "1.5 (1 to 2)"]
    assert found[0]["ratio for Adam"] == "–"
