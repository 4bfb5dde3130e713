"""The Hydra application behind studies: a multirun over ``point`` in which each job is one training run.

    python -m equiscope.runs.sweep --multirun +study=model_size task=forcefield +point=0,1,2

With ``hydra/launcher=submitit_slurm`` the jobs go to a SLURM cluster, with ``hydra/launcher=ray`` to a Ray cluster.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from equiscope import __version__, records
from equiscope.errors import InputError, UnsuitedModelError, sentence
from equiscope.runs.analyse import analyse
from equiscope.runs.devices import fitting
from equiscope.runs.study import Member, analyses_of, member, planned, state, study_folder
from equiscope.runs.train import train
from equiscope.writing import inner_folder, write_atomically

# Keys of the multirun itself; everything else on its command line is for the training runs.
_OWN = ("study", "point", "hydra")
#: Holds the number of the process that runs the study.
PARENT = "EQUISCOPE_STUDY_PROCESS"


def training_overrides(arguments: Sequence[str]) -> list[str]:
    """The overrides meant for the runs: without those of the study, the point and Hydra."""
    return [text for text in arguments if root_of(text) not in _OWN and root_of(text) != "task"]


def root_of(override: str) -> str:
    """The first part of an override's key: ``hydra`` of ``++hydra.launcher.n_jobs=2`` or ``hydra/launcher=ray``."""
    return override.lstrip("+~").partition("=")[0].replace("/", ".").partition(".")[0].partition("@")[0]


def _end_with_study() -> None:
    """Let a local worker end with the process of its study, which when killed tells nobody to stop."""
    parent = os.getppid()
    if os.environ.get(PARENT) != str(parent):
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def answer_path(member: Member, study: str) -> Path:
    """Where the job of a run leaves its answer."""
    folder = study_folder(member.config["root"], str(member.config["task"]), study)
    return folder / "answers" / f"{member.name}.json"


def _failure(member: Member, until: float | None = None, analyses: Mapping[str, Any] | None = None) -> str:
    """Train the run, then make its analyses, as far as the time goes; the reason in one line if that failed."""
    try:
        if until is None or time.time() < until:
            train(member.config, show_progress=False, until=until)
        device, path = fitting(None), member.folder.path
        for kind, step in analyses_due(member, analyses or {}):
            if until is not None and time.time() >= until:
                break
            try:
                analyse(path, [kind], [step], changes=(analyses or {})[kind], device=device, show_progress=False)
            except UnsuitedModelError as error:
                _refuse(member, kind, step, sentence(error))
    except Exception as error:
        return sentence(error)
    return ""


def _refuse(member: Member, kind: str, step: int, reason: str) -> None:
    """Record that the model cannot have an analysis, so that it is told of and not asked for again.

    Another version of equiscope asks anew, and so does ``equiscope analyse``.
    """
    with records.Records(member.folder.records) as book:
        book.append("refusal", analysis=kind, step=step, reason=reason, version=__version__)


def analyses_due(member: Member, analyses: Mapping[str, Any]) -> list[tuple[str, int]]:
    """(kind, kept step) of the analyses of a finished run that are neither recorded nor refused yet."""
    if not analyses or state(member).status != "finished":
        return []
    book = records.read(member.folder.records)
    made = {(r["analysis"], r["step"]) for r in book
            if r["kind"] == "analysis" or (r["kind"] == "refusal" and r["version"] == __version__)}  # fmt: skip
    return [(kind, step) for kind in analyses for step in member.folder.kept_steps() if (kind, step) not in made]


@hydra.main(config_path="pkg://equiscope.conf", config_name="config", version_base="1.3")
def application(config: DictConfig) -> str:
    """One job of the multirun: train the run of a point; a failure is an answer, so that the other points go on.

    A study with ``lease`` (minutes) or ``until`` (seconds of the epoch) has the run stop then with a checkpoint.

    Returns:
        The file ``ROOT/studies/TASK-STUDY/answers/RUN.json`` with ``status`` (``"finished"``, ``"open"`` where its time
        was over before, or ``"failed"``) and the ``reason`` of a failure.
    """
    if "study" not in config or "point" not in config:
        raise InputError("give +study=NAME and +point=NUMBER, see equiscope study --help")
    study: Any = OmegaConf.to_container(config.study, resolve=True)
    task, user = str(config.task), training_overrides(list(HydraConfig.get().overrides.task))
    # Only the job's own run is composed: the others are for the jobs beside it.
    chosen = member(*planned(study, task, user)[int(config.point)])
    path = answer_path(chosen, str(study["name"]))
    inner_folder(path.parent)
    _end_with_study()
    lease = time.time() + 60 * study["lease"] if study.get("lease") else None
    until = min((end for end in (study.get("until"), lease) if end is not None), default=None)
    reason = _failure(chosen, until, analyses_of(study, task))
    done = state(chosen).status == "finished"
    answer = {"status": "failed" if reason else "finished" if done else "open", "reason": reason}
    write_atomically(path, json.dumps(answer).encode())
    return str(path)


def multirun(arguments: Sequence[str]) -> None:
    """Run the application as Hydra's command line would; blocks until the launcher has done every job."""
    before, told = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [before[0] if before else "equiscope", "--multirun", *arguments]
    # Without it Hydra prints an error and ends the process.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        application()
    finally:
        sys.argv = before
        if told is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = told


if __name__ == "__main__":
    application()
