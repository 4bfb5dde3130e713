"""Layers on the page: where the features turn, and a figure of every step."""

import pytest

from equiscope.report.chart import still
from equiscope.report.kinds import sections
from equiscope.report.live import live


def layer(name, shares, error=0.01, width=8):
    return {"name": name, "width": width, "rows": 5.0, "variance": 1.0, "degrees": [0, 1, 2], "share": shares[:-1],
            "error": [error] * 3, "remainder": shares[-1], "remainder_error": error}  # fmt: skip


def layers_record(step, blocks, probe="forces"):
    found = [layer("layers.0", blocks), layer("flat", [1.0, 0, 0, 0]), layer("answer[forces]", [0, 1.0, 0, 0])]
    found.insert(1, {**found[0], "name": "constant", "share": None, "error": None, "remainder": None})
    return {"kind": "analysis", "analysis": "layers", "step": step, "probe": probe, "settings": {},
            "values": {"layers": found, "skipped": {}, "samples": 16}}  # fmt: skip


def test_layers_say_where_the_features_turn():
    (section,) = sections([layers_record(0, [0.2, 0.7, 0.1, 0.0]), layers_record(9, [0.6, 0.3, 0.1, 0.0])])
    assert "layers.0: 40.0 ± 1.0 %" in section.lead
    assert [row[0] for row in section.tables[0].rows] == ["layers.0", "flat", "answer[forces]"]
    assert section.tables[0].head == ["layer", "l = 0", "l = 1", "l = 2", "l > 2", "features"]
    (section,) = sections([layers_record(9, [1.0, 0.0, 0.0, 0.0])])
    assert "every layer before the answer are invariant" in section.lead


def test_figures_hold_every_step_and_every_layer():
    section = sections([layers_record(0, [0.2, 0.7, 0.1, 0]), layers_record(9, [0.6, 0.3, 0.1, 0])])[0]
    figure = live(section.chart)
    assert [trace.visible for trace in figure.data] == [False, True]
    assert [10**z for z in figure.data[1].z[0]] == pytest.approx([60, 30, 10, 0.01])
    assert list(figure.data[1].text[0]) == ["60.0", "30.0", "10.0", "0"]
    assert len(figure.layout.sliders[0].steps) == 2
    assert len(still(section.chart).axes) == 3
