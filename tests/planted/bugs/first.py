"""The first hour: how models are called, answers found, results shown, threads chosen, settings listed."""

from tests.planted.engine import bug

CALLING, SHOW, ORBIT = "decomposition/calling.py", "decomposition/show.py", "decomposition/orbit.py"
PROCESSES, SETTINGS, DOCTOR = "tasks/datasets/processes.py", "runs/config.py", "runs/doctor.py"

BUGS = (
    bug("matrices declared as vectors are turned on one axis without a word", ORBIT, "matrix_remark",
        r"rows\.shape\[1:\] != \(3, 3\)", "True", "test_first_hour"),
    bug("rows said to be vectors are taken for a matrix", ORBIT, "matrix_remark",
        r"spec\.points is not None or ", "", "test_first_hour"),
    bug("one label a graph is not seen to be that", ORBIT, "one_a_sample",
        r"len\(label\) == batch\.size != .*\.first", "False", "test_first_hour"),
    bug("signatures: settings that are handed on stay hidden", "signatures.py", "handing_on.spelled",
        r"parameters=\[\*kept\.values\(\), \*more\]", "parameters=[*kept.values()]", "test_signatures"),
    bug("calling: labels are handed to a model that would take them", CALLING, "Call._by_name",
        r" and k not in \(\*targets, \*required\)", "", "decomposition/test_calling"),
    bug("calling: a field named as the only argument wins over the whole batch", CALLING, "Call._ways",
        r"if len\(required\) > 1:", "if len(required) > 0 and set(required) <= set(_fields(native)):",
        "decomposition/test_calling"),
    bug("calling: a tuple in the order of its end", CALLING, "_of_tuple",
        r"dict\(zip\(wanted, tensors\.values\(\), strict=True\)\)",
        "dict(zip(wanted, [*tensors.values()][::-1], strict=True))", "decomposition/test_calling"),
    bug("calling: the first of two tensors that fit is taken without a word", CALLING, "_of_tuple",
        r"len\(fitting\) == 1", "fitting", "decomposition/test_calling"),
    bug("calling: one of two places of the same name is taken without a word", CALLING, "_of_name",
        r"len\(fitting\) == 1", "fitting", "decomposition/test_calling"),
    bug("showing: the percent itself for the ratio of errors", SHOW, "ratios",
        r"1 - math\.sqrt\(1 - share\)", "share", "decomposition/test_show"),
    bug("showing: the ratio of squares for that of errors", SHOW, "ratios",
        r"1 / math\.sqrt\(share\)", "1 / share", "decomposition/test_show"),
    bug("showing: the best samples for the worst", SHOW, "_plot_worst",
        r"np\.argsort\(-error\)", "np.argsort(error)", "decomposition/test_show"),
    bug("showing: names in HTML as they are", SHOW, "_cells",
        r"return name,", "return name + ' ',", "decomposition/test_show"),
    bug("threads: the quota of a control group is not looked at", PROCESSES, "available_cores",
        r"\*map\(math\.ceil, _quotas\(\)\)", "", "tasks/datasets/test_processes"),
    bug("threads: as many as there are cores, though they are slower", DOCTOR, "threads_worth_having",
        r"seconds\[cores\] < seconds\[1\]", "cores > 0", "test_cli"),
    bug("settings: the comment of the line before", SETTINGS, "meanings",
        r"\(read\[\"said\"\] or \"\"\)\.strip\(\)", r'(found and [*found.values()][-1]) or "first"',
        "runs/test_settings"),
)
