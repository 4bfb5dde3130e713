"""ASE calculators: how far energies, forces and stresses are from rotation symmetry, structure by structure.

    from ase.build import bulk, molecule
    from ase.calculators.emt import EMT
    import equiscope as eq

    result = eq.adapters.ase.measure(EMT(), [bulk("Cu", cubic=True), molecule("CO")], progress=False)
    print(result)                    # one line an output; the worst structures by name
    result.to_csv("structures.csv")  # one row a structure

or from the shell, ``equiscope measure --calculator ase.calculators.emt:EMT structures.extxyz``.

Structures are measured one by one, or many in one call where the calculator can: metatomic's, those of SevenNet, MACE
and Orb where torch-sim is installed (:mod:`equiscope.adapters.routes`), and the engines of
:mod:`equiscope.adapters.metatomic` and :mod:`equiscope.adapters.torch_sim`, which take the place of one. Positions and
lattice vectors turn together, x -> R x, a -> R a, so that fractional coordinates and periodic images stay what they
are; forces turn back by R^T, a stress by R^T S R in ASE's Voigt order, an energy not at all. Units are ASE's, eV and Å.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from tqdm.auto import tqdm

from equiscope.adapters import ase_structures as st
from equiscope.adapters.ase_calls import Calculators
from equiscope.adapters.ase_result import AseResult, RowWriter, StructureRow, columns
from equiscope.adapters.ase_run import AseRun, AseSettings
from equiscope.adapters.many import Engine
from equiscope.adapters.peers import check_exports
from equiscope.adapters.routes import routed
from equiscope.decomposition.measure import NOISE_SAMPLES
from equiscope.decomposition.plan import second_cosets_need
from equiscope.decomposition.preserve import untouched
from equiscope.decomposition.symmetries import Symmetry
from equiscope.decomposition.symmetries.lattices import Supercell
from equiscope.errors import InputError, check_count

__all__ = ["AseResult", "StructureRow", "measure"]


def measure(
    calculator: Any,
    structures: str | Path | Iterable[Atoms],
    outputs: Sequence[str] | None = None,
    labels: bool | Mapping[str, str] = False,
    *,
    rotations: str = "T",
    cosets: float | None = None,
    seed: int = 0,
    symmetry: Symmetry = "rotation",
    spectrum: bool | int = False,
    progress: bool = True,
    energy_weight: float = 1.0,
    force_weight: float = 1.0,
    stress_weight: float = 1.0,
    energy_per_atom: bool = True,
    clusters: str | Sequence[Any] | None = None,
    rotate: Mapping[str, Any] | None = None,
    center: str = "origin",
    group: str = "SO3",
    noise_samples: int = NOISE_SAMPLES,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    label_length_unit: str | None = None,
    stress_unit: str | None = None,
    precision: str = "auto",
    csv: str | Path | None = None,
    on_error: str = "report",
    most_atoms: int | None = None,
    exports: Mapping[str, str | Path] | None = None,
) -> AseResult:
    """The equivariance error of a calculator's energies, forces and stresses, and its share of the loss with labels.

    For output f and g Haar distributed, with `p_g = g^-1 f(g x)`, and labels y where there are some, per component,

        equivariance = E_g |p_g - E p|^2,        percent = 100 mean(equivariance) / mean(E_g |p_g - y|^2),

    see :func:`equiscope.measure`.

    Args:
        calculator: an ASE calculator, asked anew at every rotation, its cached results dropped; or an
            :class:`equiscope.adapters.many.Engine`.
        structures: a file ASE reads, or an iterable of ``Atoms``. Constraints are left out.
        outputs: of "energy", "forces", "stress"; by default all that the calculator has. Stress is measured where a
            structure has a volume and a periodic direction. Engines may have more: "non_conservative_forces", features.
        labels: False: no labels, relative equivariance error only. True: the results ASE read with the structure
            (``SinglePointCalculator``). ``{"forces": "REF_forces"}``: named keys of ``arrays`` or ``info``.
        rotations, cosets, seed, symmetry, spectrum, group, noise_samples: as for :func:`equiscope.measure`, with 2
            cosets of rotations; those of a structure are a function of (seed, its position in ``structures``).
        progress: show a progress bar.
        energy_weight, force_weight, stress_weight: weights of the squared errors in the combined Result.
        energy_per_atom: measure energies in eV per atom.
        clusters: ``info`` key, or one label a structure, naming structures that are not independent.
        rotate: further fields of ``arrays`` or ``info`` that rotate, ``{"external_field": "1o"}``. Momenta (vectors)
            and magnetic moments with three components (pseudovectors) do so by themselves.
        center: "origin", or "mean": the mean of the positions. The cell turns alike.
        energy_unit, length_unit, label_length_unit, stress_unit: of the file, where it is not in eV and Å;
            ``length_unit`` is that of positions and cells, and of force labels unless ``label_length_unit`` differs
            (Å positions with Hartree/Bohr forces: energy_unit="Hartree", label_length_unit="Bohr").
        precision: of the calculator, "float32" or "float64"; "auto" takes it from the forces or stress it returns. A
            calculator in single precision is handed positions and cells rounded to it, so that the noise floor
            contains that rounding.
        csv: file to which each structure's row is written as soon as it is measured.
        on_error: "report": a structure on which the calculator raises becomes a failed row, and the rest goes on;
            "raise": stop at once.
        most_atoms: of one call, where many structures are answered in one; by default what suits the device. 1: one
            structure a call.
        exports: ``{"mlip-arena": "file.csv"}``: the columns of another benchmark, from the same passes, beside ours
            (:mod:`equiscope.adapters.peers`); of rotations alone.

    Raises:
        InputError: for bad arguments, ambiguous or missing labels, or if no structure could be measured.
        RandomModelError: if the calculator answers identical calls differently.
    """
    least = 2 if symmetry == "rotation" else 1
    _check_arguments(calculator, cosets, noise_samples, labels, least, most_atoms)
    for name, value, known in (
        ("on_error", on_error, ("report", "raise")),
        ("precision", precision, ("auto", "float32", "float64")),
        ("center", center, ("origin", "mean")),
    ):
        if value not in known:
            raise InputError(f"{name} must be one of {known}, got {value!r}")
    if cosets is not None and float(cosets).is_integer():
        cosets = int(cosets)
    units = st.Units(energy_unit, length_unit, label_length_unit, stress_unit)
    if labels is False and (energy_unit or label_length_unit or stress_unit):
        raise InputError("energy_unit, label_length_unit and stress_unit convert labels, but labels=False")
    listed = st.as_structures(structures)
    fields = st.find_fields(listed, rotate or {})
    engine = calculator if hasattr(calculator, "most_atoms") else None
    if engine is None and most_atoms != 1 and not rotate:
        engine = routed(calculator, listed[0], outputs)
    engine = engine or Calculators(calculator, fields, most_atoms)
    chosen = _outputs(engine, outputs)
    features = {name: str(engine.features(name)) for name in chosen if name not in engine.outputs}
    found = st.find_labels(listed, chosen, labels)
    plan = st.AsePlan(chosen, found, fields, units, energy_per_atom, features)
    weights = {"energy": energy_weight, "forces": force_weight, "stress": stress_weight}
    design = AseSettings(
        engine, plan, rotations, cosets, seed, center, group, noise_samples, weights, precision, spectrum, most_atoms,
        peers=check_exports(exports, chosen), symmetry=_total(symmetry, energy_per_atom),
    )  # fmt: skip
    named = _clusters(listed, clusters)
    if cosets is not None and not float(cosets).is_integer() and len(listed) < (needed := second_cosets_need(cosets)):
        raise InputError(f"cosets={cosets} needs at least {needed} structures, there are {len(listed)}: give 2")
    run = AseRun(design)
    bar = tqdm(run.measure(listed, named, on_error), "measuring", len(listed), unit="structure", disable=not progress)
    with untouched(calculator), RowWriter(csv, columns(chosen, found)) as writer:
        for row in bar:
            writer.write(row)
    result = run.result(listed)
    for benchmark, path in (exports or {}).items():
        assert design.peers is not None
        design.peers.write(benchmark, path, result)
    return result


def _total(symmetry: Any, per_atom: bool) -> Any:
    """Supercells of total energies, which grow with them."""
    several = isinstance(symmetry, Sequence) and not isinstance(symmetry, str)
    listed = symmetry if several else [symmetry]
    named = [Supercell(extensive=["energy"]) if s == Supercell.name and not per_atom else s for s in listed]
    return named if several else named[0]


def _check_arguments(
    calculator: Any, cosets: float | None, noise_samples: int, labels: Any, fewest: int, most_atoms: int | None
) -> None:
    if isinstance(calculator, type):
        raise InputError(f"calculator is the class {calculator.__name__}: give an instance, {calculator.__name__}(…)")
    if not any(hasattr(calculator, name) for name in ("get_property", "get_potential_energy", "most_atoms")):
        raise InputError(f"calculator is {type(calculator).__name__}, which is not an ASE calculator")
    if cosets is not None and (isinstance(cosets, bool) or not _possible(cosets, fewest)):
        raise InputError(f"cosets must be an integer >= {fewest}, got {cosets!r}; or between 1 and 2, such as 1.25")
    check_count("noise_samples", noise_samples)
    if most_atoms is not None:
        check_count("most_atoms", most_atoms, 1)
    if not isinstance(labels, bool | Mapping):
        raise InputError(f"labels must be True, False or {{'forces': 'REF_forces'}}, got {labels!r}")


def _possible(cosets: Any, fewest: int) -> bool:
    return isinstance(cosets, int | float) and (1 < cosets < 2 or (cosets >= fewest and float(cosets).is_integer()))


def _outputs(engine: Engine, outputs: Sequence[str] | None) -> tuple[str, ...]:
    known, all_known = engine.outputs, tuple(dict.fromkeys((*st.OUTPUTS, *engine.outputs)))
    implemented = list(getattr(engine, "implemented", None) or known)
    if outputs is None:
        if not known:
            raise InputError(f"{engine.name} has none of {st.OUTPUTS}; it implements {implemented}")
        return known
    if isinstance(outputs, str):
        raise InputError(f"outputs must be a list, got the string {outputs!r}: write [{outputs!r}]")
    features = [name for name in dict.fromkeys(outputs) if name not in all_known and engine.features(name)]
    unknown = sorted(set(outputs) - {*all_known, *features})
    if unknown or not outputs:
        raise InputError(f"outputs must be some of {all_known}, got {list(outputs)}")
    lacking = [o for o in outputs if o not in (*known, *features)]
    if lacking:
        raise InputError(f"{engine.name} does not implement {lacking}; it has {implemented}")
    return tuple(o for o in (*all_known, *features) if o in outputs)


def _clusters(structures: Sequence[Atoms], clusters: str | Sequence[Any] | None) -> list[Any]:
    if clusters is None:
        return list(range(len(structures)))
    if isinstance(clusters, str):
        # A structure without atoms becomes a failed row for that, not an error about its cluster.
        missing = [i for i, a in enumerate(structures) if len(a) and clusters not in a.info]
        if missing:
            raise InputError(f"clusters={clusters!r}: structures {missing[:5]} have no such info key")
        return [a.info.get(clusters) for a in structures]
    if len(clusters) != len(structures):
        raise InputError(f"clusters must name one cluster a structure ({len(structures)}), got {len(clusters)}")
    return list(clusters)
