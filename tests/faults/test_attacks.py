"""Attacks on runs, data, models and shown text: all of a class are held, and the harness sees one that is not."""

import pytest

from equiscope.decomposition import preserve
from tests.faults import attacks


@pytest.mark.parametrize("name", list(attacks.CLASSES))
def test_every_attack_is_held(name, tmp_path):
    tally = attacks.tried(name, tmp_path)
    assert tally.lost == []
    assert tally.done >= 3


def test_the_harness_sees_an_attack_that_succeeds(tmp_path, monkeypatch):
    monkeypatch.setattr(preserve, "_others", lambda: False)
    assert len(attacks.tried("models in threads", tmp_path).lost) == 3
