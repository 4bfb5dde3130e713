"""The planted bugs still fit the source, and a few of them are caught; `make planted` runs them all."""

import pytest

from tests.planted import run
from tests.planted.mutations import MUTATIONS, QUICK


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_every_bug_can_be_planted(mutation):
    text = (run.SOURCE / mutation.file).read_text()
    assert text.count(mutation.old) == 1
    compile(text.replace(mutation.old, mutation.new), mutation.file, "exec")
    assert mutation.new != mutation.old
    assert all((run.ROOT / "tests" / t).is_file() for t in mutation.tests)


def test_bugs_are_named_once():
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS) >= 24


@pytest.mark.parametrize("name", QUICK)
def test_bugs_are_caught(name):
    outcome = run.catch(next(m for m in MUTATIONS if m.name == name))
    assert outcome.caught, outcome.by


def test_nothing_is_caught_where_there_is_no_bug():
    status, output, _ = run.attempt(None, ["decomposition/test_batches.py"])
    assert status == 0, output


def test_an_error_of_the_run_is_not_a_catch(tmp_path):
    # Without a copy in its folder the child imports the installed package, and must say so.
    status, output = run.run_tests(tmp_path, ["decomposition/test_batches.py"])
    assert status == 9
    assert "and not the copy" in output
    assert not run.Outcome(MUTATIONS[0], 9, "", 0.0).caught
    assert not run.Outcome(MUTATIONS[0], run.FAILED, "", 0.0).caught
