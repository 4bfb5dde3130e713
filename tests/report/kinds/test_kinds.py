"""Analyses on the page and in the terminal: which records count, escaping, the register of kinds."""

from equiscope.report.kinds import kinds, sections, summary
from equiscope.report.page import render
from tests.report.synthetic import force_field_run

from .test_heads import HEADS, related
from .test_layers import layers_record


def test_steps_made_with_other_settings_are_left_out():
    other = {**layers_record(0, [0.2, 0.7, 0.1, 0.0]), "settings": {"rotations": "I"}}
    (section,) = sections([other, layers_record(9, [0.6, 0.3, 0.1, 0.0])])
    assert list(section.steps) == [9]


def test_the_page_shows_them_and_escapes_names(tmp_path):
    odd = layers_record(9, [0.6, 0.3, 0.1, 0.0], probe="<b>")
    page = render([*force_field_run(), *HEADS, *related(0.7), layers_record(9, [0.6, 0.3, 0.1, 0]), odd], tmp_path)
    assert page.count('<section id="analysis-') == 3
    assert "Inside the network: where symmetry is lost and won back (&lt;b&gt;)" in page
    assert (tmp_path / "figures" / "layers-forces.png").exists()
    assert (tmp_path / "figures" / "layers-b.png").exists()
    assert 'section id="analysis' not in render(force_field_run(), tmp_path)


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
