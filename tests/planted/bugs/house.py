"""Bugs in what training runs and data sets share."""

from tests.planted.engine import bug

BUGS = (
    bug(
        "tracking time of before a checkpoint is counted again at a restart",
        "runs/tracker.py",
        "Tracker._measure_if_due",
        r" or step <= self\._measured",
        r"",
        "runs/test_tracker",
    ),
    bug(
        "the folder of a data file is not made",
        "tasks/datasets/processes.py",
        "made_once",
        r"path\.parent\.mkdir\(.*\)",
        r"pass",
        "tasks/molecules/test_recipe",
    ),
    bug(
        "one more file on the way from the front door to a Result",
        "decomposition/measure.py",
        "measured",
        r"refuse_biased\(plan\.design, plan\.losses\)",
        r'__import__("equiscope.words").words.plain(1.0)',
        "decomposition/test_trail",
    ),
)
