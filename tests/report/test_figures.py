"""The PNG figures: which are drawn, what is on them, also from poor records."""

import numpy as np
import pytest

from equiscope.report import figures
from equiscope.report.curves import history
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


def test_one_probe_gives_three_figures_and_removes_an_old_panel(tmp_path):
    (tmp_path / "panels.png").write_bytes(b"old")
    paths = figures.save(history(synthetic.force_field_run()), tmp_path, dpi=40)
    assert list(paths) == ["percent", "losses", "skill"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["losses.png", "percent.png", "skill.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths.values())


def test_percent_figure_shows_crossings_paper_and_collapse():
    figure = figures.percent_figure(history(synthetic.force_field_run()))
    names = legend(figure)
    for expected in ("paper: EScAIP on SPICE, replicate 1", "2 % line", "95 % interval", "measured, R² ≥ 0.5",
                     "measured, R² < 0.5: not skilled", "before the model has skill (R² < 0.5)",
                     "skilled crossing: step 1,000 (R² 0.53)", "first ≤ 2 %: step 60 (R² 0.00)"):  # fmt: skip
        assert expected in names
    upper, lower = figure.axes
    assert upper.get_xscale() == upper.get_yscale() == "log"
    assert lower.get_ylabel() == "R²"
    assert upper.get_xlim() == lower.get_xlim()
    signs = [line for line in upper.lines if line.get_label() in names and "step" in line.get_label()]
    heights = [line.get_ydata()[0] for line in signs]
    assert len(set(heights)) == len(heights) == 4


def test_zero_negative_and_limits_do_not_vanish():
    figure = figures.percent_figure(history(hard_records()))
    upper = figure.axes[0]
    floor_line = next(line for line in upper.lines if line.get_label() == "estimate ≤ 0, or under the axis")
    assert len(floor_line.get_xdata()) == 2
    assert floor_line.get_ydata()[0] > upper.get_ylim()[0]
    assert "upper limit only" in legend(figure)


def test_a_panel_for_each_probe(tmp_path):
    figure = figures.panels_figure(history(synthetic.flow_run()))
    visible = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in visible] == ["pooled", *(f"t={t:g}" for t in synthetic.TIMES)]
    assert len({axes.get_ylim() for axes in visible}) == 1
    assert figures.panels_figure(history(synthetic.force_field_run())) is None


@pytest.mark.parametrize(
    "records",
    [
        [synthetic.measure(0, percent=50.0, r2=-1.0)],
        [synthetic.measure(0, percent=0.0, r2=0.0)],
        hard_records(),
        [r | {"result": r["result"] | dict.fromkeys(("percent", "total", "twirled", "r2"))}
         for r in (synthetic.measure(s, percent=1.0, r2=0.5) for s in (0, 1, 10))],
    ],
    ids=["one point", "zero", "limits", "unknown"],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_poor_records_are_drawn_without_a_warning(records, tmp_path):
    paths = figures.save(history(records), tmp_path, dpi=30)
    assert list(paths) == ["percent", "losses", "skill"]


def test_no_measurements_no_figures(tmp_path):
    assert figures.save(history([synthetic.run_record()]), tmp_path) == {}


def test_losses_add_up_in_the_figure():
    figure = figures.losses_figure(history(synthetic.force_field_run()))
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in figure.axes[0].lines}
    total = lines["total loss"]
    twirled = next(values for name, values in lines.items() if name.startswith("twirled"))
    equivariance = next(values for name, values in lines.items() if name.startswith("equivariance"))
    np.testing.assert_allclose(total, twirled + equivariance, rtol=1e-12)
    np.testing.assert_allclose(lines["best constant prediction (R² = 0)"], 1.2, rtol=1e-12)
