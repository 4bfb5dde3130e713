"""One description, two renderers: the same points, names, ends and ticks in both."""

import matplotlib
import numpy as np
import pytest

from equiscope.report import style
from equiscope.report.chart import Band, Chart, Heat, Panel, Series, save, still
from equiscope.report.live import live
from equiscope.report.style import Axis

X = np.array([1.0, 10.0, 100.0])
GAP = np.array([2.0, np.nan, 4.0])


def simple(**changes):
    low, high = np.array([1.0, 2.0, 3.0]), np.array([2.0, np.nan, 5.0])
    series = [Band(X, low, high, "band"), Series(X, GAP, "line", "#123456", "dash", "hollow", low=low, high=high),
              Series(X, X, "", mark="star", hover=["a", "b", "c"])]  # fmt: skip
    x = Axis("steps", True, 0.5, 200, (1, 100), ("one", "hundred"))
    return Chart([[Panel(x, Axis("first\nsecond", low=0, high=9), series, "title")]], **changes)


def test_both_renderers_draw_the_same_points():
    (axes,), page = still(simple()).axes, live(simple())
    lines = [(line.get_xdata(), line.get_ydata()) for line in axes.lines]
    assert len(lines) == len(page.data) - 2 == 2  # a band with a gap is two shapes on the page
    for (x, y), trace in zip(lines, page.data[2:], strict=True):
        np.testing.assert_array_equal(x, trace.x)
        np.testing.assert_array_equal(y, np.array(trace.y, dtype=float))
    assert [trace.fill for trace in page.data[:2]] == ["toself"] * 2
    assert page.data[2].error_y.array == (0.0, None, 1.0)
    assert page.data[3].text == ("a", "b", "c")
    assert page.data[2].hoverinfo == "skip"


def test_both_renderers_share_axes_and_legend():
    figure, page = still(simple()), live(simple())
    (axes,) = figure.axes
    assert axes.get_xscale() == page.layout.xaxis.type == "log"
    assert axes.get_xlim() == pytest.approx((0.5, 200))
    assert [10**end for end in page.layout.xaxis.range] == pytest.approx([0.5, 200])
    assert list(axes.get_xticks()) == list(page.layout.xaxis.tickvals) == [1, 100]
    assert [axes.xaxis.get_major_formatter()(tick) for tick in (1, 100)] == list(page.layout.xaxis.ticktext)
    assert axes.get_ylabel() == "first\nsecond"
    assert page.layout.yaxis.title.text == "first<br>second"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["band", "line"]
    assert [trace.name for trace in page.data if trace.showlegend] == ["band", "line"]
    assert axes.get_title() == page.layout.annotations[0].text == "title"
    assert not still(simple(legend=0)).legends
    assert live(simple(legend=0)).layout.showlegend is False


def test_a_name_is_once_in_the_legend_of_several_panels():
    (panel,) = simple().rows[0]
    both = Chart([[panel, panel]])
    assert [trace.name for trace in live(both).data if trace.showlegend] == ["band", "line"]
    assert len(still(both).legends[0].get_texts()) == 2


def test_shared_axes_are_labelled_once():
    (panel,) = simple().rows[0]
    grid = Chart([[panel, panel], [panel]], shared=True)
    first, right, lower, empty = still(grid).axes
    assert [axes.get_xlabel() for axes in (first, right, lower)] == ["", "steps", "steps"]
    assert (right.get_ylabel(), empty.get_visible()) == ("", False)
    page = live(Chart([[panel], [panel]], shared=True))
    assert (page.layout.xaxis.title.text, page.layout.xaxis2.title.text) == ("", "steps")


def test_a_slider_shows_each_panel_in_turn_and_a_file_some_of_them():
    scale = Axis("scale", ticks=(-2, 0, 2), labels=("low", "", "high"))
    heats = [Heat(["a", "b"], ["r"], np.array([[step, 1.0]]), [[str(step), "1"]], Axis("x"), scale, str(step))
             for step in range(9)]  # fmt: skip
    made = Chart([heats], slider="step ", shared=True)
    page = live(made)
    assert [trace.visible for trace in page.data] == [False] * 8 + [True]
    assert [step.label for step in page.layout.sliders[0].steps] == [str(step) for step in range(9)]
    assert [axes.get_title() for axes in still(made).axes[:4]] == [f"step {step}" for step in (0, 3, 5, 8)]
    few = Chart([heats[:3]], slider="step ", shared=True)
    assert [axes.get_title() for axes in still(few).axes[:3]] == [f"step {step}" for step in range(3)]


def test_save_writes_every_kind_and_removes_what_is_gone(tmp_path):
    (tmp_path / "old.png").write_bytes(b"old")
    drawings = {"new": simple(), "old": None}
    paths = save(drawings, tmp_path, 30, style.PRINT, ("png", "pdf"))
    assert paths == {"new": tmp_path / "new.png"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.pdf", "new.png"]
    assert paths["new"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("values", "shown"), [([1e-4, 2.0], "0.01"), ([2.0, 4.5], "2")])
def test_log_axes_have_plain_labels_in_a_file(values, shown):
    """Formulas are not read as such, so matplotlib's own labels would stand there as their source."""
    panel = Panel(Axis("x", True), Axis("y", True), [Series([1.0, 30.0], values, "a", "black")])
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = still(Chart([[panel]]))
        figure.draw_without_rendering()
        axes = figure.axes[0]
        labels = [label.get_text() for which in (False, True) for label in axes.get_yticklabels(minor=which)]
    assert shown in labels
    assert not any("$" in label for label in labels)
