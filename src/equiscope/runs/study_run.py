"""Run a study: plan its runs, leave out what is finished, launch the rest through Hydra, record what became of each."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from equiscope.errors import EquiscopeError, InputError, RunError
from equiscope.files import said
from equiscope.records import Records, json_object, read, refusals
from equiscope.runs.config import quoted, spelled, study_definition
from equiscope.runs.devices import fitting, hardware
from equiscope.runs.efficiency import paces, profile
from equiscope.runs.study import Member, Watch, analyses_of, described, members, state, study_folder, table
from equiscope.runs.study import member as configured
from equiscope.runs.study import planned as planned_runs
from equiscope.runs.sweep import PARENT, analyses_due, answer_path, multirun, root_of, training_overrides
from equiscope.tasks.datasets.processes import available_cores
from equiscope.writing import Lock, inner_folder

STUDIES = ("replicates", "model_size", "data_size", "optimizer", "augmentation")
# Runs side by side on one card, where nobody says how many.
ON_A_GPU = 4
# Runs of a study share the cores, and threads that compete for one are many times slower than one.
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Outcome:
    """What became of a study.

    Attributes:
        folder: of its records and report; members: its runs; failed: run name -> reason; unfinished: names of runs that
            the time was too short for.
    """

    folder: Path
    members: tuple[Member, ...]
    failed: dict[str, str]
    unfinished: tuple[str, ...] = ()


def run_study(name: str, arguments: Sequence[str] = (), parallel: int | None = None, show: bool = True) -> Outcome:
    """Train every run of a study that is not finished; the same call goes on with a study that was stopped.

    With ``study.minutes`` it stops then, every run with a checkpoint. With ``study.lease`` (minutes) a run gives its
    place to the next after that time, those first that have the least to do, until all are finished: leases add up.

    Args:
        name: of ``conf/study/NAME.yaml``.
        arguments: ``task=…``, overrides for every run, ``study.seeds=[0,1]`` and the like, and settings of Hydra's
            launcher (``hydra/launcher=submitit_slurm hydra.launcher.partition=…``).
        parallel: runs at a time with the local launcher; None for one a core, and not more than four on a GPU.
        show: a live table on the error stream.

    Raises:
        InputError: for an unknown study, task or setting.
        RunError: if the launcher itself fails, or the study is being run already.
    """
    arguments = [spelled(text) for text in arguments]
    task, own = _task(arguments), [text for text in arguments if root_of(text) == "study"]
    study = study_definition(name, own)
    begun = time.time()
    user = training_overrides(arguments)
    check_time(study)
    folder = study_folder(configured(*planned_runs(study, task, user)[0]).config["root"], task, name)
    inner_folder(folder)
    lock = Lock(folder)
    lock.take()
    try:
        steps = _annealed(folder, study, task, user)
        if steps:
            study["steps"] = steps
            arguments = [*arguments, f"+study.steps=[{','.join(map(str, steps))}]"]
        if study.get("minutes"):
            study["until"] = begun + 60 * study["minutes"]
            arguments = [*arguments, f"+study.until={study['until']}"]
        return _run(name, study, task, members(study, task, user), folder, arguments, parallel, show)
    finally:
        lock.close()


def check_time(study: Mapping[str, Any]) -> None:
    """Minutes and leases are positive numbers where they are given.

    Raises:
        InputError: naming the value seen.
    """
    for key in ("minutes", "lease"):
        value = study.get(key)
        if value is not None and not (isinstance(value, int | float) and not isinstance(value, bool) and value > 0):
            raise InputError(f"study.{key} must be a positive number of minutes, or null, got {value!r}")


def _annealed(folder: Path, study: dict[str, Any], task: str, user: Sequence[str]) -> list[int]:
    """Steps of every point, 0 where its settings say them: ``seconds`` over the time of a step, taken once, alone."""
    points = described(study, task)
    timed = {point.name: point.seconds for point in points if point.seconds}
    if not timed:
        return []
    with Records(folder / "records.jsonl") as records:
        known = records.find("pace", seconds=timed)
        if known is None:
            configs = {p: dict(configured(p, s, o).config) for p, s, o in planned_runs(study, task, user) if p in timed}
            found = paces(configs)
            steps = {name: max(2, round(timed[name] / found[name])) for name in timed}
            known = records.append("pace", seconds=timed, step_seconds=found, steps=steps, hardware=here())
    return [known["steps"].get(point.name, 0) for point in points]


def _run(
    name: str, study: dict[str, Any], task: str, planned: Sequence[Member], folder: Path, arguments: Sequence[str],
    parallel: int | None, show: bool,
) -> Outcome:  # fmt: skip
    begun, analyses = time.time(), analyses_of(study, task)

    def unfinished() -> list[int]:
        found = [i for i, one in enumerate(planned) if state(one).status != "finished" or analyses_due(one, analyses)]
        return sorted(found, key=lambda i: _left(planned[i], study, task)) if study.get("lease") else found

    open_numbers = unfinished()
    for number in open_numbers:
        answer_path(planned[number], name).unlink(missing_ok=True)
    for variable in _ONE_THREAD:
        os.environ.setdefault(variable, "1")
    os.environ[PARENT] = str(os.getpid())
    broken, given = "", [text for text in arguments if root_of(text) != "hydra"]
    with Watch(planned) if show and open_numbers else contextlib.nullcontext():
        while open_numbers and not broken:
            points = f"+point={','.join(map(str, open_numbers))}"
            broken = _launch([*given, *_hydra(arguments, folder, parallel), f"+study={name}", points])
            # Another round for those whose lease is over, while there is time.
            again = [i for i in unfinished() if answer(planned[i], name).get("status") in ("open", "finished")]
            open_numbers = again if time.time() < study.get("until", math.inf) else []
    left = [planned[i] for i in unfinished()]
    failed = {one.name: reason for one in left if (reason := _reason(one, name, broken))}
    short = [one.name for one in left if one.name not in failed]
    _record(folder, study, task, planned, failed, short, time.time() - begun)
    if study.get("profile") and not short and time.time() < study.get("until", math.inf):
        _profile(folder, study, task, planned)
    if broken and len(failed) == len(planned):
        raise RunError(broken)
    return Outcome(folder, tuple(planned), failed, tuple(short))


def _left(one: Member, study: dict[str, Any], task: str) -> float:
    """Seconds that a run still needs, by its own pace, or what its point expects before it has one."""
    now = state(one)
    expected = next(point.milliseconds for point in described(study, task) if point.name == one.point) / 1000
    return (now.steps - now.step) * (now.seconds / now.step if now.step and now.seconds else expected)


def _launch(arguments: Sequence[str]) -> str:
    """Run the jobs; the reason in one line if the launcher itself stopped before they had answered."""
    try:
        multirun(arguments)
    except EquiscopeError:
        raise
    except Exception as error:
        return f"the launcher stopped: {said(error)}"
    return ""


def by_task(name: str, arguments: Sequence[str]) -> Iterator[list[str]]:
    """The arguments of a study for each task that it names, if none was chosen; they share its minutes.

    A task gets what the others before it left, in equal parts.
    """
    own = [text for text in arguments if root_of(text) == "study"]
    study = study_definition(name, [spelled(text) for text in own])
    check_time(study)
    tasks = study.get("tasks") or []
    if not tasks or any(text.startswith("task=") for text in arguments):
        yield list(arguments)
        return
    begun = time.time()
    for number, task in enumerate(tasks):
        mine = [*arguments, f"task={task}"]
        if study.get("minutes"):
            left = study["minutes"] - (time.time() - begun) / 60
            # Even where nothing is left, so that what is there is recorded and shown.
            mine.append(f"study.minutes={max(left / (len(tasks) - number), 0.01):.3f}")
        yield mine


def here() -> str:
    """The device that runs of this machine are given."""
    return hardware(torch.device(fitting(None)))


def _task(arguments: Sequence[str]) -> str:
    named = [text.partition("=")[2] for text in arguments if text.startswith("task=")]
    if len(named) > 1:
        raise InputError(f"a study is of one task, got {', '.join(named)}")
    return named[0] if named else "forcefield"


def _hydra(arguments: Sequence[str], folder: Path, parallel: int | None) -> list[str]:
    """Hydra's own settings: what the user gave, local processes where no launcher was named."""
    given = [text for text in arguments if root_of(text) == "hydra"]
    jobs = quoted(f"{folder}/jobs")
    made = [f"hydra.sweep.dir={jobs}", "hydra.sweep.subdir=${hydra.job.num}", "hydra.output_subdir=null",
            "hydra/hydra_logging=none", "hydra/job_logging=none"]  # fmt: skip
    if not any(text.startswith("hydra/launcher=") for text in given):
        most = min(available_cores(), ON_A_GPU) if torch.cuda.is_available() else available_cores()
        made += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={parallel or most}"]
    if any("ray.init.address=" in text for text in given) and not any("object_store_memory" in text for text in given):
        # The launcher sets it otherwise, and ray then refuses to join a cluster that is there already.
        made.append("+hydra.launcher.ray.init.object_store_memory=null")
    return [*made, *given]


def _reason(member: Member, study: str, broken: str) -> str:
    """Why a run that is not finished failed; empty if its time was over."""
    told = answer(member, study)
    if told.get("status") in ("open", "finished"):
        return ""
    return str(told.get("reason") or broken or "it ended without an answer: was its process killed?")


def answer(member: Member, study: str) -> dict[str, Any]:
    """What the job of a run answered; nothing if it did not, or not in its own words."""
    path = answer_path(member, study)
    return (json_object(path.read_bytes()) or {}) if path.exists() else {}


def _record(
    folder: Path, study: dict[str, Any], task: str, planned: Sequence[Member], failed: dict[str, str],
    short: Sequence[str], seconds: float,
) -> None:  # fmt: skip
    """One record of the study and its runs; the newest counts."""
    runs = [
        {"point": member.point, "seed": member.seed, "folder": os.path.relpath(member.folder.path, folder),
         "overrides": list(member.overrides), "reason": failed.get(member.name, ""),
         "status": "failed" if member.name in failed else "open" if member.name in short else "finished"}
        for member in planned
    ]  # fmt: skip
    with Records(folder / "records.jsonl") as records:
        told = {key: study.get(key) for key in ("name", "question", "axis")}
        records.append("study", task=task, **told, runs=runs, seconds=seconds, hardware=here())


def _profile(folder: Path, study: dict[str, Any], task: str, planned: Sequence[Member]) -> None:
    """What a step of each model costs, once a study; a model is timed at its first point, all cost the same."""
    configs: dict[str, Any] = {}
    timed = [point.name for point in described(study, task) if point.seconds]
    for member in (one for one in planned if not timed or one.point in timed):
        configs.setdefault(str(member.config["model"]["name"]), dict(member.config))
    with Records(folder / "records.jsonl") as records:
        if records.find("profile", models=list(configs)) is None:
            threads = torch.get_num_threads()
            torch.set_num_threads(int(planned[0].config.get("threads") or threads))
            try:
                found = profile(configs)
            finally:
                torch.set_num_threads(threads)
            against = (study.get("against") or {}).get(task)
            records.append("profile", models=list(configs), costs=found, against=against, device=fitting(None),
                           threads=planned[0].config.get("threads"), hardware=here(), load=os.getloadavg())  # fmt: skip


def summary(outcome: Outcome) -> str:
    """The table of a study's runs as they are now, and why some failed."""
    states, lines = [], []
    for member in outcome.members:
        book = read(member.folder.records) if member.folder.records.exists() else []
        states.append(state(member, records=book))
        if member.name in outcome.failed:
            lines.append(f"failed: {member.point}, seed {member.seed}: {outcome.failed[member.name]}")
        for kind, why in refusals(book).items():
            lines.append(f"no {kind} of {member.point}, seed {member.seed}: {why}")
    if outcome.unfinished:
        lines.append(f"{len(outcome.unfinished)} runs are not finished: the same command goes on with them")
    return "\n".join([table(outcome.members, states), *lines])
