"""The plotly figures: same content as the PNG ones."""

import numpy as np

from equiscope.report import interactive
from equiscope.report.curves import history
from tests.report import synthetic
from tests.report.test_figures import hard_records


def names(figure):
    return [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]


def test_percent_figure_shows_crossings_and_r2_on_the_same_steps():
    figure = interactive.percent_figure(history(synthetic.force_field_run()))
    for expected in ("paper: EScAIP on SPICE, replicate 1", "2 % line", "95 % interval",
                     "measured, R² < 0.5: not skilled", "skilled crossing: step 1,000 (R² 0.53)",
                     "first ≤ 2 %: step 60 (R² 0.00)", "final, on the independent set"):  # fmt: skip
        assert names(figure).count(expected) == 1
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == figure.layout.xaxis2.type == "log"
    assert figure.layout.xaxis.range == figure.layout.xaxis2.range
    assert figure.layout.yaxis2.title.text == "R²"
    signs = [trace.y[0] for trace in figure.data if trace.name and "step" in trace.name]
    assert len(signs) == len(set(signs)) == 4


def test_zero_negative_unknown_and_limits_do_not_vanish():
    figure = interactive.percent_figure(history(hard_records()))
    traces = {trace.name: trace for trace in figure.data if trace.name}
    floor = traces["estimate ≤ 0, or under the axis"]
    assert len(floor.x) == 2
    assert np.log10(floor.y[0]) > figure.layout.yaxis.range[0]
    assert list(traces["upper limit only"].y) == [0.12, 0.09, 0.05]
    assert "−0.02" in floor.text[0] or "-0.02" in floor.text[0]


def test_losses_and_skill():
    told = history(synthetic.force_field_run())
    three = ["total loss", "twirled loss", "equivariance error = total − twirled"]
    assert names(interactive.losses_figure(told))[:3] == three
    skill = interactive.skill_figure(told)
    assert skill.layout.yaxis.title.text == "R²"
    assert skill.layout.yaxis2.type == "log"


def test_panels_share_their_axes():
    panels = interactive.panel_figures(history(synthetic.flow_run()))
    assert list(panels) == ["pooled", *(f"t={t:g}" for t in synthetic.TIMES)]
    assert len({tuple(f.layout.yaxis.range) for f in panels.values()}) == 1
    assert len({tuple(f.layout.xaxis.range) for f in panels.values()}) == 1
    assert interactive.panel_figures(history(synthetic.force_field_run())) == {}


def test_no_measurements_no_figures():
    told = history([])
    assert interactive.percent_figure(told) is interactive.losses_figure(told) is interactive.skill_figure(told) is None
