"""Slices side by side: every panel on the target's scale."""

import numpy as np

from equiscope.report.curves import history
from equiscope.report.pictures import pictures_figure
from tests.report import synthetic


def picture(title: str, scale: float) -> dict:
    image = (scale * np.arange(16.0).reshape(4, 4) / 15).tolist()
    return {"title": title, "panels": [{"title": n, "image": image} for n in ("input", "output", "target")]}


def records() -> list[dict]:
    return [synthetic.run_record(), {"kind": "pictures", "step": 9, "pictures": [picture("a", 1.0), picture("b", 0.5)]}]


def test_one_row_a_picture_on_the_scale_of_its_target():
    figure = pictures_figure(history(records()))
    assert len(figure.subfigs) == 2
    for row, top, title in zip(figure.subfigs, (1.0, 0.5), "ab", strict=True):
        panels = [axes for axes in row.axes if axes.get_title()]
        assert [axes.get_title() for axes in panels] == ["input", "output", "target"]
        assert all(axes.images[0].get_clim() == (0, top) for axes in panels)
        assert row.get_suptitle() == title
    assert panels[0].images[0].get_array()[1, 0] == 0.5 / 15  # first index along x, to the right


def test_no_pictures_no_figure():
    assert pictures_figure(history([synthetic.run_record()])) is None
