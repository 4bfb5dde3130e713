"""The figures of runs: what is on them in a file and on the page, also from poor records."""

import numpy as np
import pytest

from equiscope.errors import InputError
from equiscope.records import Records
from equiscope.report import chart, figures
from equiscope.report.chart import still
from equiscope.report.curves import history
from equiscope.report.figures import beside, charts
from equiscope.report.live import live
from tests.report import synthetic


def hard_records():
    """Upper limits, a zero, a negative and an unknown estimate within a run."""
    records = synthetic.force_field_run()
    tracked = [r for r in records if r.get("part") == "track"]
    for place, (percent, high, kind) in enumerate(
        [(0.03, 0.12, "upper limit"), (-0.02, 0.09, "upper limit"), (0.0, 0.05, "upper limit"), (None, None, "none")]
    ):
        tracked[8 + place]["result"] |= {
            "percent": percent, "percent_interval": [0.0 if high else None, high], "interval_kind": kind,
            "equivariance": percent and percent * 0.012, "r2": None if percent is None else 0.0,
        }  # fmt: skip
    return records


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def names(figure):
    return [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]


def drawn(records, name):
    return charts(history(records))[name]


def test_percent_figure_shows_crossings_paper_and_collapse():
    made = drawn(synthetic.force_field_run(), "percent")
    figure, page = still(made), live(made)
    for expected in ("paper: EScAIP on SPICE, replicate 1", "2 % line", "95 % interval", "measured, R² ≥ 0.5",
                     "measured, R² < 0.5: not skilled", "before the model has skill (R² < 0.5)",
                     "skilled crossing: step 1,000 (R² 0.53)", "first ≤ 2 %: step 60 (R² 0.00)",
                     "final, on the independent set"):  # fmt: skip
        assert legend(figure).count(expected) == names(page).count(expected) == 1
    upper, lower = figure.axes
    assert upper.get_xscale() == upper.get_yscale() == "log"
    assert lower.get_ylabel() == "R²"
    assert upper.get_xlim() == lower.get_xlim()
    assert page.layout.xaxis.type == page.layout.yaxis.type == page.layout.xaxis2.type == "log"
    assert page.layout.xaxis.range == page.layout.xaxis2.range
    assert page.layout.yaxis2.title.text == "R²"
    signs = [line for line in upper.lines if line.get_label() in legend(figure) and "step" in line.get_label()]
    heights = [line.get_ydata()[0] for line in signs]
    assert len(set(heights)) == len(heights) == 4
    signs = [trace.y[0] for trace in page.data if trace.name and "step" in trace.name]
    assert len(signs) == len(set(signs)) == 4


def test_zero_negative_unknown_and_limits_do_not_vanish():
    made = drawn(hard_records(), "percent")
    figure, page = still(made), live(made)
    upper = figure.axes[0]
    floor_line = next(line for line in upper.lines if line.get_label() == "estimate ≤ 0, or under the axis")
    assert len(floor_line.get_xdata()) == 2
    assert floor_line.get_ydata()[0] > upper.get_ylim()[0]
    assert "upper limit only" in legend(figure)
    traces = {trace.name: trace for trace in page.data if trace.name}
    floor = traces["estimate ≤ 0, or under the axis"]
    assert len(floor.x) == 2
    assert np.log10(floor.y[0]) > page.layout.yaxis.range[0]
    assert list(traces["upper limit only"].y) == [0.12, 0.09, 0.05]
    assert "−0.02" in floor.text[0]


def test_a_panel_for_each_probe():
    made = figures.panels(history(synthetic.flow_run()))
    figure = still(made)
    visible = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in visible] == ["pooled", *(f"t={t:g}" for t in synthetic.TIMES)]
    assert len({axes.get_ylim() for axes in visible}) == 1
    panels = [panel for row in made.rows for panel in row]
    assert [panel.title for panel in panels] == [axes.get_title() for axes in visible]
    pages = [live(chart.Chart([[panel]])) for panel in panels]
    assert len({tuple(page.layout.yaxis.range) for page in pages}) == 1
    assert len({tuple(page.layout.xaxis.range) for page in pages}) == 1
    assert figures.panels(history(synthetic.force_field_run())) is None


@pytest.mark.parametrize(
    "records",
    [
        [synthetic.measure(0, percent=50.0, r2=-1.0)],
        [synthetic.measure(0, percent=0.0, r2=0.0)],
        hard_records(),
        [r | {"result": r["result"] | dict.fromkeys(("percent", "total", "twirled", "r2"))}
         for r in (synthetic.measure(s, percent=1.0, r2=0.5) for s in (0, 1, 10))],
        [synthetic.measure(0, percent=1.0, r2=0.5), synthetic.measure(9, percent=1.0, r2=1.0)],
        [synthetic.measure(step, percent=1.0, r2=1.0) for step in (0, 9)],
    ],
    ids=["one point", "zero", "limits", "unknown", "perfect in the end", "perfect throughout"],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_poor_records_are_drawn_without_a_warning(records, tmp_path):
    told = history(records)
    made = charts(told)
    paths = chart.save(made, tmp_path, dpi=30)
    positive = bool((told.headline.relative > 0).any())
    assert list(paths) == list(made) == ["percent", "losses", *["relative"] * positive]
    assert all(live(one).data for one in made.values())


def test_no_measurements_no_figures():
    assert charts(history([synthetic.run_record()])) == charts(history([])) == {}


def test_losses_add_up_in_the_figure():
    made = drawn(synthetic.force_field_run(), "losses")
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in still(made).axes[0].lines}
    total = lines["total loss"]
    twirled = next(values for name, values in lines.items() if name.startswith("twirled"))
    equivariance = next(values for name, values in lines.items() if name.startswith("equivariance"))
    np.testing.assert_allclose(total, twirled + equivariance, rtol=1e-12)
    np.testing.assert_allclose(lines["best constant prediction (R² = 0)"], 1.2, rtol=1e-12)
    assert names(live(made))[:3] == ["total loss", "twirled loss", "equivariance error = total − twirled"]


def test_relative_error_and_r2_each_once():
    made = charts(history(synthetic.force_field_run()))
    assert live(made["relative"]).layout.yaxis.type == "log"
    titles = [panel.y.title for one in made.values() for row in one.rows for panel in row]
    assert titles.count("R²") == 1
    assert titles[-1] == "equivariance error\n/ mean |output|²"


def test_the_axis_ends_where_the_run_ends():
    told = history(synthetic.force_field_run())
    figure = still(charts(told)["percent"])
    assert 2400 < figure.axes[0].get_xlim()[1] < 2 * 2400
    paper = next(line for line in figure.axes[0].lines if line.get_label().startswith("paper"))
    assert len(paper.get_xdata()) == len(synthetic.PAPER_POINTS)
    beyond = {"label": "far", "points": {"forces": [[1e6, 3.0], [2e6, 1e-9]]}}
    figure = still(charts(history(synthetic.force_field_run(reference=beyond)))["percent"])
    assert "far" not in legend(figure)
    assert figure.axes[0].get_ylim()[0] > 1e-3


def test_signs_of_crossings_lie_on_the_curve():
    told = history(synthetic.force_field_run())
    upper = still(charts(told)["percent"]).axes[0]
    signs = {line.get_label().split(":")[0]: line for line in upper.lines if "step" in str(line.get_label())}
    curve = dict(zip(told.headline.step, told.headline.percent, strict=True))
    for name, step in (("first ≤ 2 %", 60), ("last above 2 %", 700), ("skilled crossing", 1000)):
        assert (signs[name].get_xdata()[0], signs[name].get_ydata()[0]) == (step, curve[step])
    assert signs["sustained"].get_xdata()[0] == 1000
    assert 1.2 * curve[1000] < signs["sustained"].get_ydata()[0] < 4 * curve[1000]


def picture(title: str, scale: float) -> dict:
    image = (scale * np.arange(16.0).reshape(4, 4) / 15).tolist()
    return {"title": title, "panels": [{"title": n, "image": image} for n in ("input", "output", "target")]}


def slices() -> list[dict]:
    return [synthetic.run_record(), {"kind": "pictures", "step": 9, "pictures": [picture("a", 1.0), picture("b", 0.5)]}]


def test_one_row_a_picture_on_the_scale_of_its_target():
    figure = figures.pictures(history(slices()))
    assert len(figure.subfigs) == 2
    for row, top, title in zip(figure.subfigs, (1.0, 0.5), "ab", strict=True):
        panels = [axes for axes in row.axes if axes.get_title()]
        assert [axes.get_title() for axes in panels] == ["input", "output", "target"]
        assert all(axes.images[0].get_clim() == (0, top) for axes in panels)
        assert row.get_suptitle() == title
    assert panels[0].images[0].get_array()[1, 0] == 0.5 / 15  # first index along x, to the right


def run(folder, name, percents):
    folder.mkdir(parents=True)
    with Records(folder / "records.jsonl") as book:
        book.append("run", name=name, model=name, task="toy", parameters=1, config={}, time=0.0)
        for step, percent in percents:
            book.append("train", step=step, seconds=step / 10, loss=1.0, parts={}, lr=0.1)
            made = synthetic.result(percent, 0.5)
            book.append("measure", step=step, part="track", probe="forces", headline=True, seconds=1.0, result=made)
    return folder


def test_two_runs_share_the_axes(tmp_path):
    a = run(tmp_path / "a", "raw", [(0, 15.0), (10, 3.0), (100, 5.0)])
    b = run(tmp_path / "b", "twin", [(0, 1e-12), (10, 0.0), (100, -1e-12)])
    path = beside([a, b], tmp_path / "figures" / "beside.png")
    assert path.stat().st_size > 20_000


def test_too_few_runs_and_empty_ones_are_refused(tmp_path):
    a = run(tmp_path / "a", "raw", [(0, 15.0), (10, 3.0)])
    b = run(tmp_path / "b", "started", [(0, 15.0)])
    with pytest.raises(InputError, match="two to"):
        beside([a], tmp_path / "x.png")
    with pytest.raises(InputError, match="fewer than two measurements"):
        beside([a, b], tmp_path / "x.png")


def test_the_parts_of_the_loss_of_every_probe():
    told = history(synthetic.flow_run())
    made = figures.parts(told)
    assert figures.parts(history(synthetic.force_field_run())) is None
    assert [row[0].y.title for row in made.rows] == ["total loss", "twirled loss", "equivariance error"]
    assert [series.name for series in made.rows[0][0].series] == list(told.curves)[:10]
    for row, name in zip(made.rows, ("total", "twirled", "equivariance"), strict=True):
        for series, curve in zip(row[0].series, told.curves.values(), strict=False):
            values = getattr(curve, name)
            np.testing.assert_array_equal(series.y[values > 0], values[values > 0])
            assert np.isnan(series.y[values <= 0]).all()
    colours = [series.colour for series in made.rows[0][0].series]
    assert len(set(colours)) == len(colours)
