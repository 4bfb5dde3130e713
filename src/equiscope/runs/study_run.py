"""Run a study: plan its runs, leave out what is finished, launch the rest through Hydra, record what became of each."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from equiscope.errors import EquiscopeError, InputError, RunError
from equiscope.records import Records
from equiscope.runs.config import quoted, spelled, study_definition
from equiscope.runs.efficiency import profile
from equiscope.runs.study import Member, members, study_folder
from equiscope.runs.sweep import PARENT, answer_path, multirun, training_overrides
from equiscope.runs.watch import Watch, state, table
from equiscope.tasks.datasets.processes import available_cores
from equiscope.writing import Lock, inner_folder

STUDIES = ("replicates", "model_size", "data_size", "optimizer", "augmentation")
# Runs of a study share the cores, and threads that compete for one are many times slower than one.
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Outcome:
    """What became of a study.

    Attributes:
        folder: of its records and report; members: its runs; failed: run name -> reason.
    """

    folder: Path
    members: tuple[Member, ...]
    failed: dict[str, str]


def run_study(name: str, arguments: Sequence[str] = (), parallel: int | None = None, show: bool = True) -> Outcome:
    """Train every run of a study that is not finished; the same call goes on with a study that was stopped.

    Args:
        name: of ``conf/study/NAME.yaml``.
        arguments: ``task=…``, overrides for every run, ``study.seeds=[0,1]`` and the like, and settings of Hydra's
            launcher (``hydra/launcher=submitit_slurm hydra.launcher.partition=…``).
        parallel: runs at a time with the local launcher; None for one a core.
        show: a live table on the error stream.

    Raises:
        InputError: for an unknown study, task or setting.
        RunError: if the launcher itself fails, or the study is being run already.
    """
    arguments = [spelled(text) for text in arguments]
    task, own = _task(arguments), [text for text in arguments if _belongs_to(text, "study")]
    study = study_definition(name, own)
    planned = members(study, task, training_overrides(arguments))
    folder = study_folder(planned[0].config["root"], task, name)
    inner_folder(folder)
    lock = Lock(folder)
    lock.take()
    try:
        return _run(name, study, task, planned, folder, arguments, parallel, show)
    finally:
        lock.drop()


def _run(
    name: str,
    study: dict[str, Any],
    task: str,
    planned: Sequence[Member],
    folder: Path,
    arguments: Sequence[str],
    parallel: int | None,
    show: bool,
) -> Outcome:
    open_numbers = [i for i, member in enumerate(planned) if state(member).status != "finished"]
    for number in open_numbers:
        answer_path(planned[number], name).unlink(missing_ok=True)
    for variable in _ONE_THREAD:
        os.environ.setdefault(variable, "1")
    os.environ[PARENT] = str(os.getpid())
    broken = ""
    if open_numbers:
        launch = [*_hydra(arguments, folder, parallel), f"+study={name}", f"+point={','.join(map(str, open_numbers))}"]
        with Watch(planned) if show else contextlib.nullcontext():
            broken = _launch([*[text for text in arguments if not _belongs_to(text, "hydra")], *launch])
    failed = {m.name: r for m in planned if (r := _reason(m, name, broken))}
    _record(folder, study, task, planned, failed)
    if study.get("profile"):
        _profile(folder, study, task, planned)
    if broken and len(failed) == len(planned):
        raise RunError(broken)
    return Outcome(folder, tuple(planned), failed)


def _launch(arguments: Sequence[str]) -> str:
    """Run the jobs; the reason in one line if the launcher itself stopped before they had answered."""
    try:
        multirun(arguments)
    except EquiscopeError:
        raise
    except Exception as error:
        return f"the launcher stopped: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return ""


def _task(arguments: Sequence[str]) -> str:
    named = [text.partition("=")[2] for text in arguments if text.startswith("task=")]
    if len(named) > 1:
        raise InputError(f"a study is of one task, got {', '.join(named)}")
    return named[0] if named else "forcefield"


def _belongs_to(override: str, root: str) -> bool:
    key = override.lstrip("+~").partition("=")[0]
    return key == root or key.startswith((f"{root}.", f"{root}/"))


def _hydra(arguments: Sequence[str], folder: Path, parallel: int | None) -> list[str]:
    """Hydra's own settings: what the user gave, local processes where no launcher was named."""
    given = [text for text in arguments if _belongs_to(text, "hydra")]
    jobs = quoted(f"{folder}/jobs")
    made = [f"hydra.sweep.dir={jobs}", "hydra.sweep.subdir=${hydra.job.num}", "hydra.output_subdir=null",
            "hydra/hydra_logging=none", "hydra/job_logging=none"]  # fmt: skip
    if not any(text.startswith("hydra/launcher=") for text in given):
        made += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={parallel or available_cores()}"]
    if any("ray.init.address=" in text for text in given) and not any("object_store_memory" in text for text in given):
        # The launcher sets it otherwise, and ray then refuses to join a cluster that is there already.
        made.append("+hydra.launcher.ray.init.object_store_memory=null")
    return [*made, *given]


def _reason(member: Member, study: str, broken: str) -> str:
    """Why a run is not finished; empty if it is."""
    if state(member).status == "finished":
        return ""
    path = answer_path(member, study)
    answer: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return str(answer.get("reason") or broken or "it ended without an answer: was its process killed?")


def _record(
    folder: Path, study: dict[str, Any], task: str, planned: Sequence[Member], failed: dict[str, str]
) -> None:
    """One record of the study and its runs; the newest counts."""
    runs = [
        {
            "point": member.point,
            "seed": member.seed,
            "folder": os.path.relpath(member.folder.path, folder),
            "overrides": list(member.overrides),
            "status": "failed" if member.name in failed else "finished",
            "reason": failed.get(member.name, ""),
        }
        for member in planned
    ]
    with Records(folder / "records.jsonl") as records:
        told = {key: study.get(key) for key in ("name", "question", "axis")}
        records.append("study", task=task, **told, runs=runs)


def _profile(folder: Path, study: dict[str, Any], task: str, planned: Sequence[Member]) -> None:
    """What a step of each model costs, once a study; a model is timed at its first point, all cost the same."""
    configs: dict[str, Any] = {}
    for member in planned:
        configs.setdefault(str(member.config["model"]["name"]), dict(member.config))
    with Records(folder / "records.jsonl") as records:
        if records.find("profile", models=list(configs)) is None:
            threads = torch.get_num_threads()
            torch.set_num_threads(int(planned[0].config.get("threads") or threads))
            try:
                found = profile(configs)
            finally:
                torch.set_num_threads(threads)
            records.append(
                "profile",
                models=list(configs),
                costs=found,
                against=(study.get("against") or {}).get(task),
                threads=planned[0].config.get("threads"),
                device="cuda" if torch.cuda.is_available() else "cpu",
                load=os.getloadavg(),
            )


def summary(outcome: Outcome) -> str:
    """The table of a study's runs as they are now, and why some failed."""
    states = [state(member) for member in outcome.members]
    lines = [table(outcome.members, states)]
    for member in outcome.members:
        if member.name in outcome.failed:
            lines.append(f"failed: {member.point}, seed {member.seed}: {outcome.failed[member.name]}")
    return "\n".join(lines)
