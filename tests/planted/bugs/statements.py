"""Words beside numbers, and how small numbers are written."""

from tests.planted.engine import bug

BUGS = (
    bug("small numbers of one column are written in two ways", "words.py", "raised",
        r"_SMALL\.fullmatch\((\w+)\)", "None", "test_words"),
    bug("a model worse than a constant is called hardly better", "decomposition/pool.py", "_notes",
        r'"worse" if .* else ("hardly better")', r"\1", "decomposition/test_pool"),
)  # fmt: skip
