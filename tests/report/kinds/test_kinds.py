"""Analyses on the page and in the terminal: which records count, escaping, the register of kinds."""

from equiscope.report.kinds import ROUNDING_ALONE, kinds, sections, summary
from equiscope.report.page import render
from tests.report.synthetic import force_field_run, measure

from .test_heads import HEADS, related
from .test_landscape import landscape, plane, surface
from .test_layers import layers_record


def test_steps_made_with_other_settings_are_left_out():
    other = {**layers_record(0, [0.2, 0.7, 0.1, 0.0]), "settings": {"rotations": "I"}}
    (section,) = sections([other, layers_record(9, [0.6, 0.3, 0.1, 0.0])])
    assert list(section.steps) == [9]


def test_the_page_shows_them_and_escapes_names(tmp_path):
    odd = layers_record(9, [0.6, 0.3, 0.1, 0.0], probe="<b>")
    page = render([*force_field_run(), *HEADS, *related(0.7), layers_record(9, [0.6, 0.3, 0.1, 0]), odd], tmp_path)
    assert page.count('<section id="analysis-') == 3
    assert "equivariance error, (eV/Å)²</th>" in page
    assert "Inside the network: where symmetry is lost and won back (&lt;b&gt;)" in page
    assert (tmp_path / "figures" / "layers-forces.png").exists()
    assert (tmp_path / "figures" / "layers-b.png").exists()
    assert 'section id="analysis' not in render(force_field_run(), tmp_path)


def test_losses_have_their_unit_in_tables_and_charts():
    made = [landscape(9, surface(0.1, 0.01, 0.2), surface(0.02, 0.01, 0.1), plane())]
    for unit, ends in ((" (eV/Å)²", ", (eV/Å)²"), ("", "")):
        (section,) = sections(made, unit)
        assert section.tables[0].head[3:5] == [f"range{ends}", f"roughness{ends}"]
        assert section.chart.rows[0][0].y.title == f"change of the loss{ends}"
        assert f"roughness{ends}  " in summary(made, unit)


def test_an_error_that_is_rounding_is_called_that():
    found = landscape(9, surface(0.1, 0.01, 0.2), surface(0.02, 0.01, 0.1))
    layers = layers_record(9, [0.6, 0.3, 0.1, 0.0], probe="forces")
    for percent, rounding in ((1e-9, True), (1.0, False)):
        made = {s.name: s.lead for s in sections([measure(9, percent=percent, r2=0.5), found, layers])}
        assert made["landscape"].startswith(ROUNDING_ALONE) == rounding
        assert not made["layers"].startswith(ROUNDING_ALONE)
    # Another step's measurement says nothing of this one.
    (section,) = sections([measure(8, percent=1e-9, r2=0.5), found])
    assert not section.lead.startswith(ROUNDING_ALONE)


def test_the_terminal_gets_the_same_tables():
    printed = summary([*HEADS, *related(0.7)])
    assert "The head: weights, features" in printed
    assert "0.94 / 0.99 (EScAIP)" in printed
    assert summary([]) == ""


def test_the_kinds_are_found_by_the_names_of_their_files():
    assert list(kinds()) == ["gradients", "hessian", "landscape", "conditioning", "heads", "layers", "spectrum",
                             "brute", "dynamics"]  # fmt: skip
    assert len({kind.place for kind in kinds().values()}) == len(kinds())
    assert {name for name, kind in kinds().items() if kind.evidence} == {
        "gradients", "hessian", "landscape", "conditioning"}  # fmt: skip
