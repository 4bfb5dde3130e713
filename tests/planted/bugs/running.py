"""Runs, studies and dashboards."""

from tests.planted.engine import bug

LOGGERS, STUDY, TRACKER = "runs/loggers.py", "runs/study_run.py", "runs/tracker.py"

BUGS = (
    bug("gradients of a run in double are tracked on batches in single", TRACKER, "record_gradients",
        r"list\(_as_weights\((thinned\(.*\)), net\)\)", r"list(\1)", "runs/test_train"),
    bug("the end of a run under long analyses is not found", "runs/study.py", "_last_records", r"part >= size or",
        "True or", "runs/test_watch"),
    bug("a damaged answer of a job ends the study", "records.py", "json_object", r"ValueError, RecursionError",
        "KeyError", "runs/test_study_run"),
    bug("dashboards: records copied again after a restart", LOGGERS, "Mirror.copy",
        r"in (\w+)\[\w+:\]:", r"in \1:", "runs/test_loggers"),
    bug("dashboards: the final figure under the tracked name", LOGGERS, "metrics_of",
        r'if (\w+)\.get\("headline"\) and \1\["part"\] == "track":', r'if \1.get("headline"):', "runs/test_loggers"),
    bug("studies: finished runs trained again", STUDY, "_run",
        r' if (\w+)\((\w+)\)\.status != "finished" or [^\]]*\]', "]", "commands/test_study"),
    bug("studies: further seeds given to every point", "runs/study.py", "described",
        r"more\.get\(name, \[\]\)\]\)\)", "(more and next(iter(more.values())))]))", "runs/test_study"),
    bug("studies: a failed run without its reason", STUDY, "_reason",
        r'(\w+)\.get\("reason"\) or (\w+)', r"\2", "runs/test_study_run"),
    bug("studies: the table is drawn longer than its terminal", "runs/study.py", "table",
        r"len\(pairs\) \+ 3 > within\.lines", "False", "runs/test_watch"),
    bug("checkpoints: one that is saved while it is read is damage", "runs/checkpoint.py", "load",
        r"_replaced\(file, source\)", "False", "runs/test_checkpoint"),
    bug("records that cannot be looked at end in a traceback", "records.py", "Records._check",
        r"except OSError:", "except FileNotFoundError:", "test_records"),
    bug("commands: of a name given twice the last counts", "commands/common.py", "pairs",
        r"if name in found:", "if False:", "commands/test_data"),
    bug("report: runs beside others are looked for after the work", "commands/report.py", "run",
        r"\(options\.folders, options\.beside\)", "(options.folders, ())", "test_cli"),
    bug("checkpoints: those to be kept are overwritten", "runs/checkpoint.py", "Checkpoints._save_kept",
        r"if [\w.]*global_step in [\w.]+:", "if False:", "runs/test_trained"),
)  # fmt: skip
