"""The ``equiscope`` command: one-line errors, and nothing heavy imported before it is needed."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equiscope import (
    commands_analyse,
    commands_completion,
    commands_data,
    commands_doctor,
    commands_measure,
    commands_report,
    commands_sample,
    commands_study,
)
from equiscope.commands_common import (
    BOLD,
    FILES,
    RED,
    SETTINGS,
    YELLOW,
    add_command,
    completed_by,
    paint,
    show_report,
    writable_folder,
)
from equiscope.errors import EquiscopeError, InputError, sentence
from equiscope.words import aligned

FAILED, UNFORESEEN, INTERRUPTED = 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: the one place where errors become a line of words and a status.

    Returns:
        0 if it succeeded; 2 after an error of equiscope's own, of the disk, or for want of a package; 3 after one that
        nobody foresaw; 130 after Ctrl-C. With ``--traceback`` errors come as they are.
    """
    options = parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return int(options.run(options) or 0)
        except KeyboardInterrupt:
            print("\nequiscope: stopped; the same command goes on from here", file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:
            # Whoever read the output has seen enough; without this Python would complain at its own end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except Exception as error:
            if options.traceback:
                raise
            foreseen = isinstance(error, EquiscopeError | OSError | ImportError)
            more = "" if foreseen else "; nobody foresaw this: equiscope --traceback COMMAND … shows where it came from"
            print(f"{paint('equiscope:', RED, sys.stderr)} {sentence(error)}{more}", file=sys.stderr)
            return FAILED if foreseen else UNFORESEEN


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="equiscope",
        description="How much of a model's loss is there only because its symmetry is imperfect.",
        epilog="equiscope COMMAND --help shows examples.",
    )
    top.add_argument("--version", action="version", version=f"equiscope {_version()}")
    top.add_argument("--traceback", action="store_true", help="show errors as Python does, to report them")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (
        _add_demo,
        _add_train,
        _add_data,
        commands_study.add_parser,
        commands_report.add_parser,
        commands_analyse.add_parser,
        commands_measure.add_parser,
        commands_sample.add_parser,
        commands_doctor.add_parser,
    ):
        add(commands)
    commands_completion.add_parser(commands, parser)
    return top


_SETTINGS = "settings, for example trainer.max_steps=1200 model=escaip; equiscope train --settings lists all"


def _add_settings(command: argparse.ArgumentParser) -> None:
    completed_by(command.add_argument("settings", nargs="*", metavar="key=value", help=_SETTINGS), SETTINGS)


def _add_train(commands: Any) -> None:
    summary = "train a task, measuring along the way; go on if it was stopped"
    examples = (
        "equiscope train task=forcefield run=first model=edge_transformer data.frames=4000 trainer.max_steps=2400",
        "equiscope train task=forcefield run=escaip model=escaip loss=escaip seed=1",
        "equiscope train task=proteinflow run=flow trainer.max_steps=1200 logger=none",
        "equiscope train task=voxels --settings",
    )
    made = add_command(commands, "train", _train, summary, examples)
    _add_settings(made)
    listed = "list every setting with its default and meaning, of the task, model and data chosen, and train nothing"
    made.add_argument("--settings", "--cfg", dest="listed", nargs="?", const="job", metavar="job", help=listed)


def _add_demo(commands: Any) -> None:
    summary = "the main job: real data, a force field, its symmetry, the report"
    examples = ("equiscope demo", "equiscope demo --threads 1 data.frames=1000 trainer.max_steps=600 run=short")
    made = add_command(commands, "demo", _demo, summary, examples)
    made.add_argument("--threads", type=int, help="CPU threads; OMP_NUM_THREADS, or as many as help, by default")
    _add_settings(made)


def _add_data(commands: Any) -> None:
    examples = (
        "equiscope data forcefield --frames 4000",
        "equiscope data describe SPICE-2.0.1.hdf5 --format spice --frames 10000",
    )
    made = add_command(commands, "data", None, "make a data set, or say what is in one", examples)
    kinds = made.add_subparsers(title="data sets", required=True, metavar="KIND")
    commands_data.add_describe(kinds)
    examples = (
        "equiscope data forcefield --frames 4000 --seed 0",
        "equiscope data forcefield --sampler langevin --smiles my.smi --out data/mine.npz",
    )
    force = add_command(kinds, "forcefield", _data_forcefield, "molecules with GFN2-xTB energies and forces", examples)
    force.add_argument("--frames", type=int, default=4000, help="labelled geometries (default 4000)")
    force.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    force.add_argument("--sampler", default="jitter", help="jitter (default) or langevin")
    force.add_argument("--min-atoms", type=int, default=10, help="of a molecule, with hydrogens")
    force.add_argument("--max-atoms", type=int, default=20, help="of a molecule, with hydrogens")
    force.add_argument("--frames-per-molecule", type=int, help="most frames of one molecule")
    force.add_argument("--orientation", default="haar", help="haar (default) or embedded")
    smiles = "a SMILES file of your own instead of RDKit's NCI list"
    completed_by(force.add_argument("--smiles", help=smiles), FILES)
    force.add_argument("--out", dest="path", help="the file; data/forcefield-….npz by default")
    force.add_argument("--workers", type=int, help="processes; all cores by default")


def _train(options: argparse.Namespace) -> int:
    from equiscope.runs.config import configuration
    from equiscope.runs.settings import settings

    if options.listed:
        # What follows the option may be meant as a setting: --settings task=voxels.
        chosen = [options.listed] if "=" in options.listed else []
        rows = [(s.name, s.default, s.meaning) for s in settings([*chosen, *options.settings])]
        print("\n".join(aligned([("setting", "default", "meaning"), *rows])))
        return 0

    _run(configuration(options.settings))
    return 0


def _demo(options: argparse.Namespace) -> int:
    import torch

    from equiscope.runs.config import configuration
    from equiscope.runs.doctor import threads_worth_having

    # `make demo` does not install TensorBoard; the report shows the curves.
    quiet = [] if importlib.util.find_spec("tensorboard") else ["logger=none"]
    config = configuration(["task=forcefield", "run=demo", *quiet, *options.settings])
    if options.threads is not None and options.threads < 1:
        raise InputError(f"--threads must be at least 1, got {options.threads}")
    if options.threads or (config["threads"] is None and "OMP_NUM_THREADS" not in os.environ):
        torch.set_num_threads(options.threads or threads_worth_having())
    print(f"{torch.get_num_threads()} CPU thread(s); make demo THREADS=1, or --threads 1, for another number")
    show_report(_run(config).parent)
    return 0


def _run(config: dict[str, Any]) -> Path:
    """Train and print the headline; the path of the records."""
    from equiscope import records
    from equiscope.runs.train import headline, train

    folder = train(config)
    # Processes that Lightning starts for other devices run this command too; one of them speaks.
    if not any(int(os.environ.get(name, 0)) for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")):
        book = records.read(folder.records)
        print(paint(headline(book), BOLD, sys.stdout))
        print(f"records: {folder.records}")
    return folder.records


def _data_forcefield(options: argparse.Namespace) -> int:
    from equiscope.tasks.forcefield.data import ForceFieldData, generate, load

    writable_folder("--out", options.path and str(Path(options.path).parent))
    names = ForceFieldData.__dataclass_fields__
    config = ForceFieldData(**{name: getattr(options, name) for name in names if hasattr(options, name)})
    load(generate(config, workers=options.workers, progress=sys.stderr.isatty()))
    return 0


def _show_warning(message: Warning | str, *place: Any, **more: Any) -> None:
    print(f"{paint('equiscope: warning:', YELLOW, sys.stderr)} {message}", file=sys.stderr)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("equiscope")
    except PackageNotFoundError:
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
