"""The engine of planted bugs: every bug finds its place in the source; one that does not is refused by its name."""

from pathlib import Path

import pytest

from tests.planted.engine import PlantingError, bug, change, every_bug, locate
from tests.planted.run import ROOT, SOURCE

NOISE = '''"""Noise."""

FLOOR = 3.0


class Floor:
    """The floor: scale * count."""

    @property
    @cached(size=2)
    def scale(self):
        """The scale of this floor."""
        def inner(first):
            return first + self.count
        return inner(
            self.width
        )

    def count(self):
        return self.width  # the width
'''
OTHER = "def scale(width):\n    return 2 * width\n"


@pytest.fixture
def source(tmp_path) -> Path:
    for file, text in {"old/noise.py": NOISE, "other.py": OTHER}.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    return tmp_path


@pytest.mark.parametrize("planted", every_bug(), ids=lambda b: b.name)
def test_every_bug_finds_its_place(planted):
    file, text = change(planted, SOURCE)
    assert text != file.read_text()
    assert planted.tests
    assert [t for t in planted.tests if not (ROOT / "tests" / t).is_file()] == []


@pytest.mark.parametrize(
    ("where", "pattern", "replacement", "line"),
    [
        ("Floor.count", r"return self\.width", "return 0", "        return 0  # the width"),
        ("Floor.scale", r"size=(\w+)", r"size=\1 + 1", "    @cached(size=2 + 1)"),
        ("Floor.scale", r"inner\( self", "inner(other", "        return inner(other.width"),
        ("Floor.scale.inner", r"(\w+) \+ self\.count", r"\1", "            return first"),
        ("Floor", r"return (\w+) \+ self", r"return \1 - self", "            return first - self.count"),
        ("FLOOR", r"= (\S+)", r"= 2 * \1", "FLOOR = 2 * 3.0"),
        ("", r"FLOOR = .*", "FLOOR = 1", "FLOOR = 1"),
    ],
)
def test_only_the_place_named_changes(source, where, pattern, replacement, line):
    file, text = change(bug("b", "old/noise.py", where, pattern, replacement, "t"), source)
    assert file == source / "old" / "noise.py"
    assert file.read_text() == NOISE
    changed = [new for new in text.splitlines() if new not in NOISE.splitlines()]
    assert changed == [line]


@pytest.mark.parametrize(
    ("where", "pattern", "replacement", "reason"),
    [
        ("Floor.count", "nowhere", "x", "matches 0 times in old/noise.py, Floor.count, not once"),
        ("Floor.count", "width", "x", "matches 2 times"),
        ("", r"self\.width", "x", "matches 2 times in old/noise.py, the whole module"),
        ("Floor.count", r"return self\.width", "return (", "no Python any more"),
        ("Floor.count", r"return self\.width", "yield = 1", "no Python any more"),
        ("Floor.count", "# the width", "# the depth", "the same program"),
        ("Floor.scale", "The scale of", "No scale of", "the same program"),
        ("Floor.scale", r"inner\( self\.width \)", "inner(self.width)", "the same program"),
        ("Floor.depth", "width", "x", "found 0 times: nowhere"),
        ("count", "width", "x", "found 0 times: nowhere"),
    ],
)
def test_a_bug_that_has_lost_its_place_is_refused_by_name(source, where, pattern, replacement, reason):
    with pytest.raises(PlantingError) as error:
        change(bug("the floor is lost", "old/noise.py", where, pattern, replacement, "t"), source)
    assert "the bug 'the floor is lost' cannot be planted" in str(error.value)
    assert reason in str(error.value)


def test_a_function_that_has_moved_is_found_where_it_stands_alone(source):
    moved = bug("b", "measure/noise.py", "Floor.count", r"self\.width", "0", "t")
    assert change(moved, source)[0] == source / "old" / "noise.py"
    left = bug("b", "old/noise.py", "scale", r"2 \*", "3 *", "t")
    assert locate(left, source).source == OTHER
    (source / "third.py").write_text(OTHER)
    with pytest.raises(PlantingError, match=r"found 2 times: other.py, third.py"):
        change(left, source)
    with pytest.raises(PlantingError, match=r"measure/noise.py is found 0 times"):
        change(bug("b", "measure/noise.py", "", "FLOOR", "x", "t"), source)


def test_two_bugs_of_one_name_are_refused(monkeypatch):
    from tests.planted.bugs import symmetry

    monkeypatch.setattr(symmetry, "BUGS", symmetry.BUGS[:1] * 2)
    with pytest.raises(PlantingError, match=symmetry.BUGS[0].name):
        every_bug()
