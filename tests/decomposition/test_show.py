"""What a result shows: words, HTML, figures, tables; each figure in them is that of the result."""

import dataclasses
import math
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

import equiscope as eq
from equiscope.decomposition import show
from equiscope.errors import InputError

from .models import Linear, Tanh, random_batch

TURN = torch.tensor([[1.0, 0.3, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.8]], dtype=torch.float64)


def _two():
    """Forces off by a matrix, an energy that is exactly invariant."""

    def forward(model, batch):
        return {"forces": model(batch), "energy": batch["pos"].square().sum((1, 2))}

    batch = random_batch(20) | {"e": torch.randn(20, dtype=torch.float64)}
    outputs = {"forces": eq.Output("1o", target="y"), "energy": eq.Output("0e", target="e", per="sample")}
    return eq.measure(Linear(TURN), [batch], inputs={"pos": "1o"}, outputs=outputs, forward=forward)


ONE = eq.measure(Tanh(), [random_batch(20)], inputs={"pos": "1o"}, outputs={"f": "1o"}, target="y",
                 forward=lambda m, b: {"f": m(b)["forces"]}, spectrum=True)  # fmt: skip
TWO = _two()


def test_two_outputs_print_both_numbers():
    lines, percent = str(TWO).splitlines(), show.plain(TWO.outputs["forces"].percent)
    assert any(line.startswith(f"  forces: {percent} % of its loss") for line in lines)
    assert any(line.startswith("  energy: ") and "R² " in line for line in lines)
    assert TWO.outputs["forces"].percent > 1 > abs(TWO.outputs["energy"].percent)
    assert not any(line.startswith("  f: ") for line in str(ONE).splitlines())


def test_the_percent_is_also_a_ratio_of_errors():
    """For squared error RMSE of the symmetric model over that of the model is sqrt(twirled / total)."""
    smaller = 100 * (1 - math.sqrt(ONE.twirled / ONE.total))
    assert f"the RMSE would be {show.plain(smaller)} % smaller" in str(ONE)
    times = math.sqrt(ONE.total / (ONE.total - ONE.twirled))
    assert f"the equivariance error is {show.plain(times)} times smaller than the error" in str(ONE)
    for changes in ({"loss": "l1"}, {"percent": -0.1}, {"percent": math.nan}, {"distinguishable": False}):
        assert "RMSE" not in str(dataclasses.replace(ONE, **changes))


def test_a_model_that_answers_zero_is_called_that():
    found = eq.measure(
        lambda batch: torch.zeros_like(batch["pos"]), [random_batch()], inputs={"pos": "1o"}, outputs={"f": "1o"},
        target="y",
    )  # fmt: skip
    assert any("answers zero to everything in ['f']" in note for note in found.notes)
    assert not any("answers zero" in note for note in ONE.notes)


def test_an_unknown_skill_is_explained():
    batch = random_batch() | {"e": torch.full((6,), 2.0, dtype=torch.float64)}
    outputs = {"e": eq.Output("0e", target="e", per="sample")}
    found = eq.measure(lambda b: b["pos"].sum((1, 2)), [batch], inputs={"pos": "1o"}, outputs=outputs, fixed=["y"])
    assert math.isnan(found.r2)
    assert "; skill unknown; " in str(found)
    assert any("the labels do not vary" in note for note in found.notes)


class _Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells, self.open = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("rect", "path"):
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag):
        if tag not in ("rect", "path"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open:
            self.cells[-1] += data


@pytest.mark.parametrize("result", [ONE, TWO, eq.Result.from_dict(TWO.to_dict())])
def test_notebooks_show_a_row_for_each_output(result):
    read = _Text()
    read.feed(result._repr_html_())
    assert read.open == []
    rows = np.array(read.cells).reshape(-1, 7)
    assert list(rows[:, 0]) == (["f"] if result is ONE else ["forces", "energy", "all"])
    assert float(rows[-1, 1].split()[0]) == pytest.approx(result.percent, rel=0.1)
    assert float(rows[-1, 2]) == pytest.approx(result.total, rel=0.01)


def test_html_is_escaped_and_complete_without_labels():
    found = eq.measure(lambda b: {"<b>": b["pos"] @ TURN}, [random_batch()], inputs={"pos": "1o"},
                       outputs={"<b>": "1o"}, fixed=["y"])  # fmt: skip
    assert "<b>&lt;b&gt;" not in found._repr_html_()
    assert "&lt;b&gt;" in found._repr_html_()
    assert "<svg" not in found._repr_html_()


def test_plot_draws_what_is_known():
    pytest.importorskip("matplotlib").use("Agg")
    first, spectrum, histogram, worst = ONE.plot().axes
    assert first.patches[0].get_width() == pytest.approx(ONE.percent)
    assert sum(bar.get_height() for bar in spectrum.patches) == pytest.approx(100)
    assert sum(bar.get_height() for bar in histogram.patches) == ONE.samples
    assert worst.patches[0].get_width() == pytest.approx(float(ONE.per_sample.equivariance.max()))
    stored = eq.Result.from_dict(TWO.to_dict()).plot()
    assert [bar.get_width() for bar in stored.axes[0].patches][-1] == pytest.approx(TWO.percent)
    assert len(stored.axes) == 1
    import matplotlib.pyplot as plt

    plt.close("all")


def test_a_frame_has_a_row_for_each_sample():
    pytest.importorskip("pandas")
    frame = ONE.to_frame()
    assert list(frame.columns) == ["id", "cluster", "total", "equivariance", "percent", "weight"]
    assert len(frame) == ONE.samples
    assert 100 * frame["equivariance"].sum() / frame["total"].sum() == pytest.approx(ONE.percent)
    with pytest.raises(InputError, match="measure again"):
        eq.Result.from_dict(ONE.to_dict()).to_frame()


def test_without_labels_and_samples_there_is_nothing_to_plot():
    pytest.importorskip("matplotlib")
    bare = dataclasses.replace(ONE, percent=math.nan, spectrum=None, per_sample=None)
    with pytest.raises(InputError, match="nothing to plot"):
        bare.plot()


@pytest.mark.parametrize(("module", "call"), [("matplotlib.pyplot", "plot"), ("pandas", "to_frame")])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, module, call):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"pip install 'equiscope\[plot\]'"):
        getattr(ONE, call)()
