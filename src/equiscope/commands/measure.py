"""The command ``equiscope measure``: the equivariance error of an atomistic model over a file of structures.

It ends with status 0, or with 1 if some structures could not be measured (the rest is reported all the same).
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from equiscope.commands.common import FILES, add_command, completed_by, pairs, writable
from equiscope.errors import InputError
from equiscope.words import aligned, nearest

SOME_FAILED = 1
# How libraries say that they could not download.
OFFLINE = re.compile(
    r"URLError|HTTPError|ConnectionError|ConnectError|MaxRetry|gaierror|LocalEntryNotFound|OfflineMode|"
    r"name resolution|Name or service not known|nodename nor servname"
)
_EXAMPLES = (
    "equiscope measure --calculator ase.calculators.emt:EMT structures.extxyz --csv structures.csv",
    "equiscope measure --calculator mace.calculators:mace_mp --set model=small --set device=cpu structures.extxyz",
    "equiscope measure --calculator my_model:make --with-labels --label forces=REF_forces structures.extxyz",
    "equiscope measure --metatomic model.pt --outputs forces,non_conservative_forces structures.extxyz",
)
#: Options of both measurements that are handed on by their own names.
_SHARED = ("rotations", "cosets", "seed", "clusters", "center", "group", "length_unit")
_UNSAID = "unless said; the file cannot say"


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    summary = "how far an ASE calculator or another atomistic model is from rotation symmetry, on a file of structures"
    made = add_command(subparsers, "measure", run, summary, _EXAMPLES)
    completed_by(made.add_argument("structures", help="a file ASE can read, such as extended XYZ"), FILES)
    made.add_argument("--index", default=":", help="which structures, as ASE writes it (default ':', all)")
    one = made.add_mutually_exclusive_group(required=True)
    one.add_argument("--calculator", metavar="PACKAGE:FACTORY", help="an ASE one, such as ase.calculators.emt:EMT")
    completed_by(one.add_argument("--metatomic", metavar="FILE", help="an exported metatomic model"), FILES)
    one.add_argument("--torch-sim", metavar="PACKAGE:FACTORY", help="a torch-sim model, on Python 3.12 or later")
    made.add_argument(
        "--set", dest="keywords", action="append", default=[], metavar="KEY=VALUE",
        help="argument for the factory, or device=, variant= and extensions= of a metatomic model",
    )  # fmt: skip
    made.add_argument(
        "--outputs", metavar="NAMES", help="of energy,forces,stress, or others that the model has; all by default"
    )
    made.add_argument("--with-labels", action="store_true", help="compare with the file's labels: percent of the loss")
    made.add_argument(
        "--label", action="append", default=[], metavar="OUTPUT=KEY", help="the key of a label: forces=REF_forces"
    )
    made.add_argument(
        "--rotate", action="append", default=[], metavar="FIELD=IRREPS", help="another field that turns: e_field=1o"
    )
    made.add_argument("--clusters", metavar="KEY", help="info key of structures that belong together")
    made.add_argument("--rotations", default="T", help="set of rotations: T (default), D2, O, I, haar, …")
    cosets = "independent cosets a structure (default 2; 10 with --rotations haar); 1.25: a quarter has two"
    made.add_argument("--cosets", type=float, help=cosets)
    symmetry = (
        "rotation (default), translation=ANGSTROM, parity, mirror, permutation, lattice, supercell, space_group, "
        "point_group; several with commas, to see how much of the error each adds"
    )
    made.add_argument("--symmetry", default="rotation", metavar="NAMES", help=symmetry)
    made.add_argument("--spectrum", action="store_true", help="shares of the error by Wigner degree too")
    made.add_argument("--most-atoms", type=int, metavar="N", help="of one call, where a model takes many structures")
    made.add_argument("--seed", type=int, default=0, help="of the rotations (default 0)")
    made.add_argument("--group", default="SO3", help="claimed symmetry: SO3 (default), or O3 with reflections")
    made.add_argument("--center", default="origin", help="structures turn about the origin (default) or their mean")
    for loss in ("energy", "force", "stress"):
        made.add_argument(f"--{loss}-weight", type=float, default=1.0, help="in the combined loss (default 1)")
    made.add_argument("--total-energy", action="store_true", help="energies of structures instead of per atom")
    made.add_argument("--energy-unit", help=f"of the labels: eV {_UNSAID}")
    made.add_argument("--length-unit", help=f"of positions and cells, and of force labels: Å {_UNSAID}")
    made.add_argument("--label-length-unit", help="of force labels, where it is not --length-unit")
    made.add_argument("--stress-unit", help="of stress labels, such as GPa")
    made.add_argument("--precision", default="auto", help="of the calculator: auto (default), float32 or float64")
    made.add_argument(
        "--precisions", metavar="NAMES", help="the same rotations in each of float64,float32,tf32,bf16,float16,compiled"
    )
    made.add_argument("--csv", metavar="FILE", help="table of structures, written as they are measured")
    made.add_argument("--json", metavar="FILE", help="everything, written at the end")
    made.add_argument(
        "--export", nargs=2, action="append", default=[], metavar=("BENCHMARK", "FILE"),
        help="the columns of ml-peg or mlip-arena as a table, from the same passes",
    )  # fmt: skip
    made.add_argument("--worst", type=int, default=5, help="how many of the worst structures to list (default 5)")
    made.add_argument("--quiet", action="store_true", help="no progress bar")
    made.set_defaults(stopped="rows measured so far are in the --csv file; the same command begins anew, keeping it")
    return made


def run(options: argparse.Namespace) -> int:
    """Measure and print; 1 if some structures could not be measured.

    Raises:
        InputError: for anything wrong with the options, the calculator or the file.
    """
    from equiscope.adapters import ase as door
    from equiscope.adapters.ase_structures import read

    labels = pairs("--label", options.label, "forces=REF_forces")
    writable("--csv", options.csv, options.structures, options.json)
    writable("--json", options.json, options.structures)
    for _, path in options.export:
        writable("--export", path, options.structures, options.csv, options.json)
    structures = read(options.structures, options.index)
    if options.precisions:
        return _ladder(options, structures)
    same = ("spectrum", "most_atoms", "energy_weight", "force_weight", "stress_weight", "energy_unit",
            "label_length_unit", "stress_unit", "precision", "csv")  # fmt: skip
    result = door.measure(
        _model(options), structures, labels=labels or options.with_labels, progress=not options.quiet,
        symmetry=options.symmetry.split(",") if "," in options.symmetry else options.symmetry,
        exports=dict(options.export), **_common(options), **{name: getattr(options, name) for name in same},
    )  # fmt: skip
    try:
        # Before anything is printed, which may fail too.
        if options.json:
            result.to_json(options.json)
    finally:
        print(result)
        print("\n".join(_table(result, options.worst)))
    failed = [r for r in result.unmeasured if r.status == "failed"]
    return SOME_FAILED if failed else 0


def _ladder(options: argparse.Namespace, structures: Sequence[Any]) -> int:
    """The same rotations in several precisions; labels play no part in it, nor does a table of structures."""
    from equiscope.adapters.ase_ladder import precisions
    from equiscope.adapters.ase_result import write_json

    if not options.calculator:
        raise InputError("--precisions converts the torch modules of a --calculator: give one")
    unused = [o for o in ("csv", "with_labels", "label") if getattr(options, o)]
    if unused:
        raise InputError(f"--precisions compares relative errors: leave out --{unused[0].replace('_', '-')}")
    model = load_calculator(options.calculator, _keywords(options.keywords))
    found = precisions(model, structures, options.precisions, **_common(options))
    try:
        if options.json:
            write_json(options.json, found.to_dict())
    finally:
        print(found)
    return 0


def _common(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of both measurements."""
    outputs = options.outputs.split(",") if options.outputs else None
    own: dict[str, Any] = {"outputs": outputs, "energy_per_atom": not options.total_energy}
    own["rotate"] = pairs("--rotate", options.rotate, "e_field=1o")
    return own | {name: getattr(options, name) for name in _SHARED}


def _table(result: Any, count: int) -> list[str]:
    """The worst structures as aligned text."""
    rows = result.worst(count)
    if count < 1 or not rows:
        return []
    names = ["structure", "atoms", "pbc", *dict.fromkeys(name for r in rows for name in r.values)]
    return aligned([[f"{name}, {unit}" if (unit := result.unit(name)) else name for name in names], *(
        [str(r), str(r.atoms), r.pbc, *(f"{r.values[n]:.3g}" if n in r.values else "" for n in names[3:])] for r in rows
    )])  # fmt: skip


def _keywords(given: Sequence[str]) -> dict[str, Any]:
    return {name: _literal(value) for name, value in pairs("--set", given, "device=cpu").items()}


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _model(options: argparse.Namespace) -> Any:
    """The calculator, or the engine, that was asked for."""
    keywords = _keywords(options.keywords)
    if options.calculator:
        return load_calculator(options.calculator, keywords)
    if options.torch_sim:
        from equiscope.adapters.torch_sim import TorchSim

        return TorchSim(_load("--torch-sim", options.torch_sim, keywords, is_model, "a torch-sim model"))
    from equiscope.adapters.metatomic import Metatomic

    unknown = sorted(set(keywords) - {"device", "variant", "extensions"})
    if unknown:
        raise InputError(f"--set gives {unknown}, but a metatomic model takes device, variant and extensions")
    return Metatomic(options.metatomic, **keywords)


def load_calculator(spec: str, keywords: Mapping[str, Any]) -> Any:
    """The calculator that PACKAGE:FACTORY names: what the factory returns, or the object itself if it is one.

    The working directory is searched for modules too, as ``python -m`` does.

    Raises:
        InputError: for a malformed name, a module or name that does not exist, a factory that fails, or one that
            returns something else than a calculator.
    """
    return _load("--calculator", spec, keywords, is_calculator, "an ASE calculator")


def _load(option: str, spec: str, keywords: Mapping[str, Any], fits: Callable[[Any], bool], what: str) -> Any:
    package, colon, path = spec.partition(":")
    if not (package and colon and path):
        raise InputError(f"{option} must be PACKAGE:FACTORY, for example ase.calculators.emt:EMT, got {spec!r}")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name and (package == error.name or package.startswith(f"{error.name}.")):
            raise InputError(f"{option} {spec!r}: there is no module {error.name!r}; is it installed?") from error
        raise InputError(f"{option} {spec!r}: importing {package} failed: {error}") from error
    except Exception as error:
        raise InputError(f"{option} {spec!r}: importing {package} failed: {type(error).__name__}: {error}") from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise InputError(f"{option} {spec!r}: {package} has no {name!r}{nearest(name, dir(found))}")
        found = getattr(found, name)
    if fits(found) and not inspect.isclass(found):
        if keywords:
            raise InputError(f"--set gives {sorted(keywords)}, but {spec} is a calculator already, not a factory")
        return found
    if not callable(found):
        raise InputError(f"{option} {spec!r} is {type(found).__name__}, neither {what} nor a factory of one")
    try:
        made = found(**keywords)
    except Exception as error:
        text = f"{option} {spec!r}: the factory failed: {type(error).__name__}: {error}{_network(error)}"
        raise InputError(text) from error
    if not fits(made):
        raise InputError(f"{option} {spec!r}: the factory returned {type(made).__name__}, not {what}")
    return made


def _network(error: BaseException) -> str:
    """What to do where a factory wanted to download its weights."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    if not any(OFFLINE.search(f"{type(e).__name__}: {e}") for e in chain):
        return ""
    return (
        ". Its weights are downloaded, and that failed: fetch them where there is a network, and give the factory "
        "their place with --set"
    )


def is_calculator(thing: Any) -> bool:
    """Whether ASE could ask it for energies."""
    return hasattr(thing, "get_property") or hasattr(thing, "get_potential_energy")


def is_model(thing: Any) -> bool:
    """Whether it is what torch-sim calls a model."""
    return hasattr(thing, "compute_forces") and hasattr(thing, "memory_scales_with")
