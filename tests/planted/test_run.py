"""A few planted bugs are caught, and the runner can tell a catch from anything else; `make planted` runs them all."""

import json

import pytest

from tests.planted import run
from tests.planted.engine import every_bug

# Their tests take seconds: caught in every run of the suite, the others by `make planted`.
QUICK = (
    "rotated back by g instead of its inverse",
    "parity ignored by the action",
    "a model that edits its input spoils the next pass",
)


@pytest.mark.parametrize("name", QUICK)
def test_bugs_are_caught(name):
    outcome = run.catch(next(b for b in every_bug() if b.name == name))
    assert outcome.caught, outcome.by


def test_nothing_is_caught_where_there_is_no_bug():
    status, output, _ = run.attempt(None, ["decomposition/test_batches.py"])
    assert status == 0, output


def test_an_error_of_the_run_is_not_a_catch(tmp_path):
    # Without a copy in its folder the child imports the installed package, and must say so.
    status, output = run.run_tests(tmp_path, ["decomposition/test_batches.py"])
    assert status == 9
    assert "and not the copy" in output
    assert not run.Outcome(every_bug()[0], 9, "", 0.0).caught
    assert not run.Outcome(every_bug()[0], run.FAILED, "", 0.0).caught


def test_the_page_is_what_its_record_says():
    rows = json.loads(run.RECORD.read_text())
    assert run.table(rows) == run.RECORD.with_suffix(".md").read_text()
    survived = run.as_record(run.Outcome(every_bug()[0], 0, "", 1.4))
    assert "**caught 0 of 1**" in run.table([survived])
    assert "| **survived** | 1 |" in run.table([survived])
