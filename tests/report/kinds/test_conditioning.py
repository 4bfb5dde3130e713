"""Exact condition numbers on the page: table, verdict either way, figures."""

import pytest

from equiscope.report.chart import still
from equiscope.report.kinds import sections
from equiscope.report.live import live
from tests.report.synthetic import force_field_run


def record(step, ratio, interval, rank=2):
    part = {"eigenvalues": [0.0, 2.0, 8.0], "rank": rank, "condition": 4.0, "interval": [3.0, 5.0]}
    values = {"layer": "head", "parameters": 3, "samples": 8, "ratio": {"value": ratio, "interval": interval},
              "parts": {"twirled": {**part, "condition": 4.0 / ratio, "interval": [None, None]}, "equivariance": part,
                        "total": part}}  # fmt: skip
    return {"kind": "analysis", "analysis": "conditioning", "step": step, "probe": "forces", "settings": {},
            "values": values}  # fmt: skip


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ([(0.02, [0.01, 0.03]), (0.5, [0.2, 0.9])], ") the equivariance error is better conditioned: at step 1 "),
        ([(2.0, [1.5, 3]), (3.0, [2, 4])], "is worse conditioned"),
        ([(0.02, [0.01, 0.03]), (0.9, [0.5, 1.4])], "not the same at every step"),
        ([(0.02, [None, None])], "not the same at every step"),
    ],
)
def test_the_verdict_follows_the_whole_interval(ratios, words):
    (section,) = sections([record(place, *ratio) for place, ratio in enumerate(ratios)])
    assert words in section.lead
    assert f"of {len(ratios)} steps" in section.lead


def test_the_table_names_rank_and_smallest_eigenvalue():
    (section,) = sections([record(90, 0.02, [0.01, 0.03])])
    rows = {row[1]: row for row in section.tables[0].rows}
    assert rows["equivariance error"][2:] == ["2 of 3", "8", "2", "4 (3 to 5)", "0.02 (0.01 to 0.03)"]
    assert rows["twirled loss"][5:] == ["200", "–"]
    assert "0.02 (0.01 to 0.03) times" in section.lead


def test_figures_of_spectra_and_steps():
    (section,) = sections([record(0, 0.1, [0.01, 0.3]), record(90, 0.02, [0.01, 0.03])])
    figure = live(section.chart)
    assert [len(trace.x) for trace in figure.data] == [2, 2, 2, 2]
    assert list(figure.data[0].y) == [1, 0.25]
    assert list(figure.data[2].y) == pytest.approx([40, 200])
    assert list(figure.data[3].error_y.array) == [1, 1]
    assert list(figure.layout.yaxis2.range) == [0, 3]
    left, right = still(section.chart).axes
    assert list(left.lines[0].get_ydata()) == [1, 0.25]
    assert right.get_yscale() == "log"
    nothing = sections([record(90, 0.02, [0.01, 0.03], rank=0)])[0]
    assert still(nothing.chart)
    assert nothing.tables[0].rows[0][4] == "–"


def test_it_is_on_the_page(tmp_path):
    from equiscope.report.page import render

    page = render([*force_field_run(), record(90, 0.02, [0.01, 0.03])], tmp_path)
    assert 'id="analysis-conditioning-forces"' in page
    assert (tmp_path / "figures" / "conditioning-forces.png").exists()
