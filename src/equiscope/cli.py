"""The ``equiscope`` command: one-line errors, and nothing heavy imported before it is needed."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equiscope import commands_measure, commands_sample
from equiscope.errors import EquiscopeError

FAILED, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it succeeded, 2 after an error that is explained in one line, 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return int(options.run(options) or 0)
        except EquiscopeError as error:
            print(f"equiscope: {' '.join(str(error).split())}", file=sys.stderr)
            return FAILED
        except KeyboardInterrupt:
            print("\nequiscope: stopped; the same command goes on from here", file=sys.stderr)
            return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="equiscope",
        description="How much of a model's loss is there only because its symmetry is imperfect.",
    )
    top.add_argument("--version", action="version", version=f"equiscope {_version()}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (_add_demo, _add_train, _add_data, _add_report, commands_measure.add_parser, commands_sample.add_parser):
        add(commands)
    return top


def _command(commands: Any, name: str, run: Any, summary: str, **more: Any) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary, **more)
    made.set_defaults(run=run)
    return made


_SETTINGS = "settings, for example trainer.max_steps=1200 model=escaip; see the files in equiscope/conf"


def _add_train(commands: Any) -> None:
    made = _command(commands, "train", _train, "train a task, measuring along the way; go on if it was stopped")
    made.add_argument("settings", nargs="*", metavar="key=value", help=_SETTINGS)


def _add_demo(commands: Any) -> None:
    made = _command(commands, "demo", _demo, "the main job: real data, a force field, its symmetry, the report")
    made.add_argument("--threads", type=int, help="CPU threads; all cores of this machine by default")
    made.add_argument("settings", nargs="*", metavar="key=value", help=_SETTINGS)


def _add_report(commands: Any) -> None:
    made = _command(commands, "report", _report, "make figures and report.html of a run from its records")
    made.add_argument("folder", metavar="RUN", help="the run's folder, or task/name under runs/")
    others = "draw these runs on the same axes into figures/beside.png"
    made.add_argument("--beside", nargs="+", default=[], metavar="RUN", help=others)


def _add_data(commands: Any) -> None:
    made = _command(commands, "data", None, "make a data set")
    kinds = made.add_subparsers(title="data sets", required=True, metavar="KIND")
    force = _command(kinds, "forcefield", _data_forcefield, "molecules with GFN2-xTB energies and forces")
    force.add_argument("--frames", type=int, default=4000, help="labelled geometries (default 4000)")
    force.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    force.add_argument("--sampler", default="jitter", help="jitter (default) or langevin")
    force.add_argument("--min-atoms", type=int, default=10, help="of a molecule, with hydrogens")
    force.add_argument("--max-atoms", type=int, default=20, help="of a molecule, with hydrogens")
    force.add_argument("--frames-per-molecule", type=int, help="most frames of one molecule")
    force.add_argument("--orientation", default="haar", help="haar (default) or embedded")
    force.add_argument("--smiles", help="a SMILES file of your own instead of RDKit's NCI list")
    force.add_argument("--out", dest="path", help="the file; data/forcefield-….npz by default")
    force.add_argument("--workers", type=int, help="processes; all cores by default")


def _train(options: argparse.Namespace) -> int:
    from equiscope.runs.config import configuration

    _run(configuration(options.settings))
    return 0


def _demo(options: argparse.Namespace) -> int:
    import torch

    from equiscope.runs.config import configuration

    config = configuration(["task=forcefield", "run=demo", *options.settings])
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    records = _run(config)
    print(f"report: {_build_report(records.parent)}")
    return 0


def _run(config: dict[str, Any]) -> Path:
    """Train and print the headline; the path of the records."""
    from equiscope import records
    from equiscope.runs.train import headline, train

    folder = train(config)
    # Processes that Lightning starts for other devices run this command too; one of them speaks.
    if not any(int(os.environ.get(name, 0)) for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")):
        book = records.read(folder.records)
        print(headline(book))
        print(f"records: {folder.records}")
    return folder.records


def _report(options: argparse.Namespace) -> int:
    from equiscope.runs.folder import find_run

    folder = find_run(options.folder)
    print(f"report: {_build_report(folder)}")
    if options.beside:
        from equiscope.report import beside

        others = [find_run(other) for other in options.beside]
        print(f"beside each other: {beside([folder, *others], folder / 'figures' / 'beside.png')}")
    return 0


def _build_report(folder: Path) -> Path:
    from equiscope.report import build

    return Path(build(folder))


def _data_forcefield(options: argparse.Namespace) -> int:
    from equiscope.tasks.forcefield.data import ForceFieldData, generate, load

    names = ForceFieldData.__dataclass_fields__
    config = ForceFieldData(**{name: getattr(options, name) for name in names if hasattr(options, name)})
    load(generate(config, workers=options.workers, progress=sys.stderr.isatty()))
    return 0


def _show_warning(message: Warning | str, *place: Any, **more: Any) -> None:
    print(f"equiscope: warning: {message}", file=sys.stderr)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("equiscope")
    except PackageNotFoundError:
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
