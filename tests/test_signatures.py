"""Every argument of what the API pages show is in its signature and explained in its docstring."""

import importlib
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

import equiscope as eq
from equiscope.decomposition.measure import MeasureSettings
from equiscope.symmetry.declaration import Declaration, DeclarationSettings

PAGES = Path(__file__).parent.parent / "docs" / "api"
DIRECTIVE = re.compile(r"\.\. auto(?:function|class):: (\S+)|\.\. automodule:: (\S+)\n\s+:members: (.+)")


def resolve(path):
    module, parts = path.split("."), []
    while True:
        try:
            found = importlib.import_module(".".join(module))
            break
        except ModuleNotFoundError:
            parts.insert(0, module.pop())
    for part in parts:
        found = getattr(found, part)
    return found


def shown():
    """What the API pages show by name; protocols have no arguments."""
    for page in sorted(PAGES.glob("*.md")):
        for name, module, members in DIRECTIVE.findall(page.read_text()):
            for path in [name] if name else [f"{module}.{member.strip()}" for member in members.split(",")]:
                thing = resolve(path)
                if not getattr(thing, "_is_protocol", False):
                    yield pytest.param(thing, id=path.removeprefix("equiscope."))


def explained(thing):
    """Names before the colons of ``Args:`` and ``Attributes:``, several apart by commas, or after a semicolon."""
    text = "\n".join(inspect.getdoc(one) or "" for one in (thing, getattr(thing, "__init__", None)) if one)
    sections = re.findall(r"^(?:Args|Attributes):\n((?:[ ]{4}.*\n?|\n)+)", text, re.M)
    heads = re.findall(r"(?:^[ ]{4}|[.;] )(\w+(?:, \w+)*):(?=\s)", "\n".join(sections), re.M)
    return {name for head in heads for name in head.split(", ")}


@pytest.mark.parametrize("thing", shown())
def test_every_argument_is_explained(thing):
    taken = inspect.signature(thing).parameters.values()
    assert not [p for p in taken if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)], "spell them out"
    assert {p.name for p in taken} - explained(thing) == set()


def test_typed_settings_are_those_that_are_taken():
    """What a type checker allows beyond the signature is what a Declaration, or a measurement, takes."""
    assert set(DeclarationSettings.__annotations__) == {f.name for f in fields(Declaration) if f.init} - {
        "inputs",
        "outputs",
    }
    given = {p.name for p in inspect.signature(eq.measure).parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert {*MeasureSettings.__annotations__, *DeclarationSettings.__annotations__} == given - {"rtol", "max_passes"}


def test_help_shows_what_is_handed_on():
    defaults = {f.name: f.default for f in fields(Declaration)}
    for thing in (eq.measure, eq.compare, eq.Twirled, eq.EquivarianceError, eq.EquivarianceTracker):
        taken = inspect.signature(thing).parameters
        assert taken["center"].default == defaults["center"] == "origin"
        assert taken["weighting"].kind is inspect.Parameter.KEYWORD_ONLY
    assert "rtol" in inspect.signature(eq.measure).parameters
    assert "rtol" not in inspect.signature(eq.compare).parameters
