"""Attacks on runs, data, models and shown text: all of a class are held, and the harness sees one that is not."""

import pytest

from equiscope.decomposition import preserve
from tests.faults import attacks

# Of the classes whose attacks take a second each, the suite tries one of so many.
SOME = {
    "links in a received folder": 3,
    "code of others": 5,
    "checkpoints and data of others": 3,
    "names on pages and in figures": 4,
    "records of others": 5,
    "models in threads": 2,
    "errors of the disk": 5,
    "damaged data files": 13,
}


@pytest.mark.parametrize("name", list(attacks.CLASSES))
def test_every_attack_is_held(name, tmp_path):
    tally = attacks.tried(name, tmp_path, SOME.get(name, 1))
    assert tally.lost == []
    assert tally.done >= 3


def test_the_harness_sees_an_attack_that_succeeds(tmp_path, monkeypatch):
    monkeypatch.setattr(preserve, "_others", lambda: False)
    assert len(attacks.tried("models in threads", tmp_path).lost) == 3
