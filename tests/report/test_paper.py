"""The paper's numbers: one place, found for a pair by its name or by what it speaks of."""

from equiscope import tasks
from equiscope.report import paper


def test_correlations():
    assert paper.correlation_of("percent ~ gradient ratio") == "0.75 / 0.59 (EScAIP)"
    assert paper.correlation_of("equivariance error ~ weight variance") == "0.94 / 0.99 (EScAIP)"
    assert paper.correlation_of("percent ~ gradient cosine") == "–"
    assert paper.correlation_words("percent ~ gradient cosine").endswith("Pearson 0.75, Spearman 0.59 (force field)")
    assert paper.correlation_words("a ~ b") == ""


def test_every_task_of_the_paper_has_words_and_whole_tables():
    assert set(paper.TASKS) == set(tasks.TASKS)
    for name, told in paper.TASKS.items():
        assert tasks.words(name).title != name
        assert tasks.words(name).less_data
        assert all(len(row) == len(paper.COLUMNS) for rows in told.studies.values() for row in rows)
    assert tasks.words("toy") == tasks.Words("toy")
