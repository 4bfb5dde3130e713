"""Dashboards of a run: its records, copied as they are written to TensorBoard, Weights & Biases, Trackio or MLflow.

Loggers only ever read the records, so a run is the same with any of them or with none. A position file in the run's
folder says how many records were copied: a run that was stopped goes on where its dashboard ended.
"""

from __future__ import annotations

import importlib.util
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from equiscope.errors import InputError, IntegrityError
from equiscope.records import Record, Records
from equiscope.runs.folder import RunFolder
from equiscope.words import leaves, without_secrets
from equiscope.writing import inner_folder, write_atomically

#: The loggers, each of the name of the package that it needs.
PACKAGES = ("tensorboard", "wandb", "trackio", "mlflow")
#: Fields of a measurement that are logged, and their names on the dashboard.
SHOWN = {"percent": "percent", "r2": "R2", "total": "total", "equivariance": "equivariance"}


def chosen(config: Mapping[str, Any]) -> str:
    """Name of the logger that a configuration chooses; "none" where it says nothing.

    Raises:
        InputError: for an unknown logger, or one whose package is missing, with the line that installs it.
    """
    name = str((config.get("logger") or {}).get("name", "none"))
    if name != "none" and name not in PACKAGES:
        raise InputError(f"logger must be one of {', '.join(PACKAGES)}, none; got {name!r}")
    if name != "none" and importlib.util.find_spec(name) is None:
        raise InputError(f"logger={name} needs the package {name}: pip install {name}, or choose logger=none")
    return name


def build(config: Mapping[str, Any], folder: RunFolder, state: Mapping[str, Any]) -> Logger | None:
    """Lightning's logger of the configuration's ``logger`` section; None for ``logger=none`` or no section.

    Args:
        state: of :func:`read_state`; its ``id`` makes a restarted run continue the same dashboard.

    Raises:
        InputError: as :func:`chosen`.
    """
    name = chosen(config)
    if name == "none":
        return None
    if name == "trackio":
        project, run = str(config["logger"].get("project", "equiscope")), f"{_run_name(folder)}-{state['id']}"
        return Trackio(project, run, dict(leaves(without_secrets(config))))
    return _MAKERS[name](config["logger"], folder, state)


def _tensorboard(section: Mapping[str, Any], folder: RunFolder, state: Mapping[str, Any]) -> Logger:
    from pytorch_lightning.loggers import TensorBoardLogger

    inner_folder(folder.path / "tensorboard")
    return TensorBoardLogger(save_dir=folder.path, name=None, version="tensorboard", default_hp_metric=False)


def _wandb(section: Mapping[str, Any], folder: RunFolder, state: Mapping[str, Any]) -> Logger:
    from pytorch_lightning.loggers import WandbLogger

    project, offline = str(section.get("project", "equiscope")), bool(section.get("offline", False))
    chosen = {"entity": section["entity"]} if section.get("entity") else {}
    return WandbLogger(name=_run_name(folder), save_dir=folder.path, id=str(state["id"]), project=project,
                       offline=offline, resume="allow", **chosen)  # fmt: skip


def _mlflow(section: Mapping[str, Any], folder: RunFolder, state: Mapping[str, Any]) -> Logger:
    from pytorch_lightning.loggers import MLFlowLogger

    uri = section.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI")
    place, experiment = folder.path.absolute(), str(section.get("experiment", "equiscope"))
    return MLFlowLogger(experiment_name=experiment, run_name=_run_name(folder), run_id=state.get("run_id"),
                        tracking_uri=uri or f"sqlite:///{place}/mlflow.db",
                        artifact_location=None if uri else str(place / "mlflow"))  # fmt: skip


_MAKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}


def _run_name(folder: RunFolder) -> str:
    return f"{folder.path.parent.name}-{folder.name}"


class Trackio(Logger):
    """Trackio (a local dashboard with the calls of Weights & Biases) behind Lightning's logger interface."""

    def __init__(self, project: str, run: str, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self._project, self._run, self._settings = project, run, dict(settings)
        self._experiment: Any = None

    @property
    def name(self) -> str:
        return self._project

    @property
    def version(self) -> str:
        return self._run

    @property
    def experiment(self) -> Any:
        """Trackio's run, begun or gone on with when it is first needed."""
        if self._experiment is None:
            import trackio

            self._experiment = trackio.init(
                project=self._project, name=self._run, config=self._settings, resume="allow", embed=False
            )
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the settings are given when the run begins."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.experiment.log(dict(metrics), step=step)


def read_state(folder: RunFolder, logger: str) -> dict[str, Any]:
    """How many records the dashboard has, and the identity it knows the run by; fresh for a new dashboard.

    Raises:
        IntegrityError: if the file cannot be read.
    """
    path = _state_path(folder, logger)
    if not path.exists():
        return {"logger": logger, "copied": 0, "id": uuid.uuid4().hex[:12]}
    try:
        state = json.loads(path.read_bytes())
        return {**state, "logger": logger, "copied": int(state["copied"]), "id": str(state["id"])}
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} is damaged: delete it, and the dashboard is filled again") from error


def _state_path(folder: RunFolder, logger: str) -> Path:
    return folder.path / f"logger-{logger}.json"


class Mirror(pl.Callback):
    """Copies new train and measure records to a logger; comes after the tracker, which writes them.

    Args:
        state: of :func:`read_state`, the one the logger was built with.
        config: shown on the dashboard as the run's settings, once.
    """

    def __init__(
        self, logger: Logger, records: Records, folder: RunFolder, state: Mapping[str, Any], config: Mapping[str, Any]
    ) -> None:
        self._logger, self._records, self._folder, self._state = logger, records, folder, dict(state)
        self._config = config

    def on_train_start(self, *_: Any) -> None:
        self.copy()

    def on_train_batch_end(self, *_: Any) -> None:
        self.copy()

    def copy(self) -> None:
        """Log every record that the dashboard lacks, then note how far it came."""
        entries, copied = self._records.entries, self._state["copied"]
        if len(entries) <= copied:
            return
        if copied == 0:
            self._logger.log_hyperparams(dict(leaves(without_secrets(self._config))))
        for record in entries[copied:]:
            metrics = metrics_of(record)
            if metrics:
                self._logger.log_metrics(metrics, step=int(record["step"]))
        self._logger.save()
        self._state["copied"] = len(entries)
        if run_id := getattr(self._logger, "run_id", None):
            self._state["run_id"] = run_id
        path = _state_path(self._folder, self._state["logger"])
        write_atomically(path, json.dumps(self._state).encode())

    def on_exception(self, *_: Any) -> None:
        self._close("failed")

    def finish(self) -> None:
        """Copy what came after the training, such as the final figure, and close the dashboard's run."""
        self.copy()
        self._close("success")

    def _close(self, status: str) -> None:
        self._logger.finalize(status)
        # Lightning leaves these runs open: the next run of this process would be written into them.
        if self._state["logger"] in ("wandb", "trackio"):
            self._logger.experiment.finish()  # type: ignore[attr-defined]


def metrics_of(record: Record) -> dict[str, float]:
    """What a dashboard shows of one record: loss, parts and rate of training; percent, R² and losses of a probe.

    The headline probe's percent and R² also stand under the plain names ``percent`` and ``R2``. Values that are not
    known (NaN) are left out.
    """
    found: dict[str, Any] = {}
    if record["kind"] == "train":
        found = {"train/loss": record.get("loss"), "train/lr": record.get("lr")}
        found |= {f"train/{name}": value for name, value in (record.get("parts") or {}).items()}
    elif record["kind"] == "measure":
        result, place = record["result"], f"{record['part']}/{record['probe']}"
        found = {f"{place}/{shown}": result.get(key) for key, shown in SHOWN.items()}
        if record.get("headline") and record["part"] == "track":
            found |= {SHOWN[key]: result.get(key) for key in ("percent", "r2")}
    return {name: float(value) for name, value in found.items() if value is not None}
