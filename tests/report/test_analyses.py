"""Analyses on the page: numbers and errors as text, verdicts either way, figures, escaping."""

import pytest

from equiscope.report import analyses, analysis_figures, text
from equiscope.report.page import render

from .synthetic import force_field_run


def layer(name, shares, error=0.01, width=8):
    return {"name": name, "width": width, "rows": 5.0, "variance": 1.0, "degrees": [0, 1, 2], "share": shares[:-1],
            "error": [error] * 3, "remainder": shares[-1], "remainder_error": error}  # fmt: skip


def layers_record(step, blocks, probe="forces"):
    found = [layer("layers.0", blocks), layer("flat", [1.0, 0, 0, 0]), layer("answer[forces]", [0, 1.0, 0, 0])]
    found.insert(1, {**found[0], "name": "constant", "share": None, "error": None, "remainder": None})
    return {"kind": "analysis", "analysis": "layers", "step": step, "probe": probe, "settings": {},
            "values": {"layers": found, "skipped": {}, "samples": 16}}  # fmt: skip


def head_record(step, error, variance, features, alignment):
    form = {"form": variance * features * alignment, "variance": variance, "features": features, "alignment": alignment}
    values = {"percent": error * 10, "equivariance": error, "equivariance_error": error / 10, **form, "elsewhere": form}
    return {"kind": "analysis", "analysis": "heads", "step": step, "probe": "forces", "settings": {}, "values": values}


def correlation(value, low, high):
    return {"value": value, "low": low, "high": high, "effective": 9.0}


def relations(partial, difference):
    plain = correlation(0.95, 0.9, 0.99)
    return {"points": 9, "left_out": 1, "pearson": plain, "spearman": plain, "partial": partial,
            "differences": difference, "partial_spearman": partial, "differences_spearman": difference}  # fmt: skip


def related(form_low):
    return [
        {"kind": "analysis", "analysis": "relations", "step": 9, "probe": "forces", "pair": pair, "values": values}
        for pair, values in (
            ("equivariance error ~ weight variance", relations(correlation(0.1, -0.5, 0.6), correlation(0, -0.6, 0.6))),
            ("equivariance error ~ exact form", relations(correlation(0.99, 0.9, 1), correlation(0.9, form_low, 1))),
        )
    ]


HEADS = [
    head_record(0, 2.0, 0.02, 400, 0.5),
    head_record(20, 0.06, 0.02, 12, 0.2),
    head_record(90, 2e-4, 0.01, 50, 4e-4),
]


def test_text_of_numbers():
    assert text.share(0.1234, 0.002) == "12.3 ± 0.2"
    assert text.share(0.5, 0.0001) == "50.00 ± 0.01"
    assert text.share(-1e-9, 1e-9) == "0.00"
    assert text.share(None) == "–"
    assert text.digits(-1.2345e-5, 1e-6) == "−1.23e−05 ± 1e-06"


def test_layers_say_where_the_features_turn():
    (section,) = analyses.sections([layers_record(0, [0.2, 0.7, 0.1, 0.0]), layers_record(9, [0.6, 0.3, 0.1, 0.0])])
    assert "layers.0: 40.0 ± 1.0 %" in section.lead
    assert [row[0] for row in section.tables[0].rows] == ["layers.0", "flat", "answer[forces]"]
    assert section.tables[0].head == ["layer", "l = 0", "l = 1", "l = 2", "l > 2", "features"]
    (section,) = analyses.sections([layers_record(9, [1.0, 0.0, 0.0, 0.0])])
    assert "every layer before the answer are invariant" in section.lead


@pytest.mark.parametrize(("low", "words"), [(0.7, "the form explains the error"), (0.5, "not told apart")])
def test_the_verdict_on_the_head_falls_either_way(low, words):
    (section,) = analyses.sections([*HEADS, *related(low)])
    assert words in section.lead
    assert "fell by 4.30 powers of ten" in section.lead
    assert "variance +0.30, features +0.90, alignment +3.10" in section.lead
    table = section.tables[1]
    assert table.rows[0][1:5] == ["0.95 / 0.95", "0.10 (−0.50 to 0.60)", "0.00 (−0.60 to 0.60)", "0.94 / 0.99 (EScAIP)"]


def test_steps_made_with_other_settings_are_left_out():
    other = {**layers_record(0, [0.2, 0.7, 0.1, 0.0]), "settings": {"rotations": "I"}}
    (section,) = analyses.sections([other, layers_record(9, [0.6, 0.3, 0.1, 0.0])])
    assert list(section.steps) == [9]


def test_figures_hold_every_step_and_every_layer():
    section = analyses.sections([layers_record(0, [0.2, 0.7, 0.1, 0]), layers_record(9, [0.6, 0.3, 0.1, 0])])[0]
    figure = analysis_figures.plotly_figure(section)
    assert [trace.visible for trace in figure.data] == [False, True]
    assert [10**z for z in figure.data[1].z[0]] == pytest.approx([60, 30, 10, 0.01])
    assert list(figure.data[1].text[0]) == ["60.0", "30.0", "10.0", "0"]
    assert len(figure.layout.sliders[0].steps) == 2
    assert len(analysis_figures.png_figure(section).axes) == 3
    heads = analyses.sections(HEADS)[0]
    names = [trace.name for trace in analysis_figures.plotly_figure(heads).data]
    assert names[0].startswith("equivariance error")
    assert len(names) == 5


def test_the_page_shows_them_and_escapes_names(tmp_path):
    odd = layers_record(9, [0.6, 0.3, 0.1, 0.0], probe="<b>")
    page = render([*force_field_run(), *HEADS, *related(0.7), layers_record(9, [0.6, 0.3, 0.1, 0]), odd], tmp_path)
    assert page.count('<section id="analysis-') == 3
    assert "Inside the network: where symmetry is lost and won back (&lt;b&gt;)" in page
    assert (tmp_path / "figures" / "layers-forces.png").exists()
    assert (tmp_path / "figures" / "layers-b.png").exists()
    assert 'section id="analysis' not in render(force_field_run(), tmp_path)


def test_the_terminal_gets_the_same_tables():
    printed = analyses.summary([*HEADS, *related(0.7)])
    assert "The head: weights, features" in printed
    assert "0.94 / 0.99 (EScAIP)" in printed
    assert analyses.summary([]) == ""
