"""`equiscope measure`: from a file and PACKAGE:FACTORY to a printed result, tables, and a status."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from equiscope.cli import main
from equiscope.commands.measure import load_calculator
from equiscope.errors import InputError
from tests.adapters.calculators import FORCE, Broken, crystals, molecules

HERE = "tests.adapters.calculators"
SOME_FAILED, FAILED = 1, 2


@pytest.fixture
def structures(tmp_path: Path) -> Path:
    """Crystals and molecules with the peer's forces as labels under two names."""
    made = []
    for atoms in [*crystals(), *molecules()]:
        atoms.calc = Broken(0 * FORCE)
        forces = atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=forces + 0.5)
        atoms.arrays["REF_forces"] = forces
        made.append(atoms)
    path = tmp_path / "structures.extxyz"
    ase.io.write(path, made)
    return path


def run(*arguments: Any) -> int:
    return main(["measure", *map(str, arguments), "--quiet", "--rotations", "D2"])


def test_with_labels_tables_and_the_worst(structures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, everything = tmp_path / "rows.csv", tmp_path / "all.json"
    status = run(
        "--calculator", f"{HERE}:Broken", structures, "--outputs", "forces", "--label", "forces=REF_forces",
        "--csv", table, "--json", everything, "--worst", 2,
    )  # fmt: skip
    assert status == 0
    printed = capsys.readouterr().out
    assert "Broken: 5 structures x 8 rotations" in printed
    assert "periodic (3):" in printed
    assert "non-periodic (2):" in printed
    assert "forces_rms, eV/Å" in printed
    assert "forces_percent, %" in printed
    assert "forces_total, (eV/Å)²" in printed
    assert len([line for line in printed.splitlines() if line.split()[:1] and line.split()[0].isdigit()]) == 2
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 5
    for row in rows:
        # The file keeps eight decimals of positions that the steep potential amplifies.
        assert float(row["forces_total"]) == pytest.approx(FORCE @ FORCE / 3, rel=1e-4)
        assert float(row["forces_percent"]) == pytest.approx(100, rel=1e-4)
    assert json.loads(everything.read_text())["results"]["all"]["percent"] == pytest.approx(100, rel=1e-4)


def test_with_labels_as_ase_reads_them_needs_a_choice_here(
    structures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--calculator", f"{HERE}:Broken", structures, "--outputs", "forces", "--with-labels")
    assert run(*arguments) == FAILED
    assert "--label forces=REF_forces" in capsys.readouterr().err
    assert run(*arguments, "--label", "forces=calculator", "--index", "-1") == 0
    assert "non-periodic (1):" in capsys.readouterr().out


def test_without_labels(structures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--calculator", f"{HERE}:Broken", "--set", "stress=[0,0,0,0,0,0]", structures) == 0
    assert "percent needs labels" in capsys.readouterr().out


def test_a_structure_that_fails_is_reported_and_shows_in_the_status(
    structures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--calculator", f"{HERE}:Raising", "--set", "number=8", structures) == SOME_FAILED
    printed = capsys.readouterr().out
    assert "failed: structure 3 H2O: ValueError: no parameters for gold" in printed
    assert "all (4):" in printed


def test_every_option_reaches_the_measure(structures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from equiscope.adapters import ase as door

    seen: dict[str, Any] = {}

    class Stop(BaseException):
        pass

    def record(*arguments: Any, **settings: Any) -> None:
        seen.update(settings, given=arguments)
        raise Stop

    monkeypatch.setattr(door, "measure", record)
    options = {
        "--cosets": "3", "--seed": "4", "--group": "O3", "--center": "mean", "--energy-weight": "0.5",
        "--force-weight": "2", "--stress-weight": "3", "--energy-unit": "Hartree", "--length-unit": "Bohr",
        "--label-length-unit": "nm", "--stress-unit": "GPa", "--clusters": "family", "--rotate": "e_field=1o",
        "--csv": "rows.csv", "--precision": "float32", "--outputs": "forces,energy", "--symmetry": "rotation,parity",
    }  # fmt: skip
    with pytest.raises(Stop):
        run("--calculator", f"{HERE}:make_emt", structures, *[x for o in options.items() for x in o],
            "--total-energy", "--with-labels", "--index", "1:3")  # fmt: skip
    calculator, listed = seen.pop("given")
    assert type(calculator).__name__ == "EMT"
    assert len(listed) == 2
    assert seen == {
        "outputs": ["forces", "energy"], "labels": True, "rotations": "D2", "cosets": 3, "seed": 4, "progress": False,
        "energy_weight": 0.5, "force_weight": 2.0, "stress_weight": 3.0, "energy_per_atom": False,
        "clusters": "family", "rotate": {"e_field": "1o"}, "center": "mean", "group": "O3", "energy_unit": "Hartree",
        "length_unit": "Bohr", "label_length_unit": "nm", "stress_unit": "GPa", "csv": "rows.csv",
        "precision": "float32", "symmetry": ["rotation", "parity"], "spectrum": False, "most_atoms": None,
            "exports": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calculator", "ase.calculators.emt"], "PACKAGE:FACTORY"),
        (["--calculator", ":EMT"], "PACKAGE:FACTORY"),
        (["--calculator", "no_such_package:Calc"], "no module 'no_such_package'"),
        (["--calculator", "ase.calculators.nothing:Calc"], "no module 'ase.calculators.nothing'"),
        (["--calculator", "ase.calculators.emt:EMTT"], "did you mean 'EMT'?"),
        (["--calculator", "ase.calculators.emt:parameters"], "neither an ASE calculator nor a factory of one"),
        (["--calculator", "ase.calculators.emt:EMT", "--set", "colour=red", "--set", "colour=blue"], "twice"),
        (["--calculator", "ase.calculators.emt:EMT", "--set", "colour"], "NAME=VALUE"),
        (["--calculator", f"{HERE}:Broken", "--set", "colour=red"], "factory failed: TypeError"),
        (["--calculator", f"{HERE}:molecules"], "the factory returned list"),
        (["--calculator", f"{HERE}:Broken", "--json", "/no/such/folder/a.json"], "no such folder"),
        (["--calculator", f"{HERE}:Broken", "--csv", "/no/such/folder/a.csv"], "no such folder"),
        (["--calculator", f"{HERE}:Broken", "--csv", "."], "--csv '.' is a folder"),
        (["--calculator", f"{HERE}:Broken", "--json", "/proc/a.json"], "--json '/proc/a.json' cannot be written"),
        (["--calculator", f"{HERE}:Broken", "--label", "forces"], "such as --label forces=REF_forces, got 'forces'"),
        (["--calculator", f"{HERE}:Broken", "--label", "force=REF_forces"], "(--label OUTPUT=KEY) names ['force']"),
        (["--calculator", f"{HERE}:Broken", "--index", "nonsense"], "cannot read"),
    ],
)
def test_wrong_options_are_one_line(
    arguments: list[str], message: str, structures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, structures) == FAILED
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_an_empty_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.extxyz"
    path.touch()
    assert run("--calculator", f"{HERE}:Broken", path) == FAILED
    assert "is empty" in capsys.readouterr().err


def test_factories_of_the_working_directory_and_ready_calculators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_model_of_this_test.py").write_text(
        "from ase.calculators.emt import EMT\nready = EMT()\nclass Zoo:\n    emt = EMT\n"
    )
    (tmp_path / "my_broken_model.py").write_text("import no_such_dependency\n")
    (tmp_path / "my_raising_model.py").write_text("raise RuntimeError('no weights')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert type(load_calculator("my_model_of_this_test:ready", {})).__name__ == "EMT"
    assert type(load_calculator("my_model_of_this_test:Zoo.emt", {})).__name__ == "EMT"
    with pytest.raises(InputError, match="calculator already"):
        load_calculator("my_model_of_this_test:ready", {"a": 1})
    with pytest.raises(InputError, match="importing my_broken_model failed: No module named 'no_such_dependency'"):
        load_calculator("my_broken_model:x", {})
    with pytest.raises(InputError, match="RuntimeError: no weights"):
        load_calculator("my_raising_model:x", {})


def test_from_the_shell(structures: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "equiscope.cli", "measure", "--calculator", "ase.calculators.emt:EMT", str(structures),
         "--index", "1", "--rotations", "D2"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "EMT: 1 structures" in done.stdout
    assert "not distinguishable from numerical noise" in done.stdout
    assert "measuring" in done.stderr
    assert np.all(["nan" not in line for line in done.stdout.splitlines()])


def interrupted_at(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Ctrl-C while the calculator is at structure ``count``."""
    from equiscope.adapters.ase_run import AseRun

    right, calls = AseRun._group, []

    def structure(self: AseRun, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > count:
            raise KeyboardInterrupt
        return right(self, *arguments)

    monkeypatch.setattr(AseRun, "_group", structure)


@pytest.mark.filterwarnings("always:the table that was in")
def test_an_interrupted_measurement_keeps_its_rows_and_those_of_before(
    structures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "rows.csv"
    given = ("--calculator", f"{HERE}:Broken", structures, "--outputs", "forces", "--csv", table)
    assert run(*given) == 0
    whole = table.read_bytes()
    for again in (1, 2):
        with monkeypatch.context() as patch:
            interrupted_at(patch, 2)
            assert run(*given) == 130
        told = capsys.readouterr().err
        assert "goes on from here" not in told
        assert "kept as" in told
        assert len(list(csv.reader(table.open()))) == 3
        assert (tmp_path / "rows.csv.1").read_bytes() == whole
        assert (tmp_path / "rows.csv.2").exists() == (again == 2)


def test_neither_the_input_nor_the_other_output_is_written_over(
    structures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, one = structures.read_bytes(), tmp_path / "one"
    (tmp_path / "soft").symlink_to(structures)
    (tmp_path / "hard").hardlink_to(structures)
    names = (structures, tmp_path / "soft", tmp_path / "hard", tmp_path / "." / structures.name)
    pairs = [(option, path) for option in ("--csv", "--json") for path in names]
    for options in [*pairs, ("--csv", one, "--json", one)]:
        assert run("--calculator", f"{HERE}:Broken", structures, *options) == FAILED
        assert "that is read or written too" in capsys.readouterr().err
        assert structures.read_bytes() == before
    assert not one.exists()


def test_the_json_is_there_before_anything_is_printed(
    structures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        encoding, errors = "ascii", "strict"

        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            pass

    everything = tmp_path / "all.json"
    monkeypatch.setattr(sys, "stdout", Full())
    given = ("--calculator", f"{HERE}:Broken", structures, "--outputs", "forces", "--json", everything)
    assert run(*given) == FAILED
    assert json.loads(everything.read_text())["rows"]


def test_an_output_of_ascii_alone_is_no_reason_to_lose_anything(structures: Path, tmp_path: Path) -> None:
    everything = tmp_path / "all.json"
    done = subprocess.run(
        [sys.executable, "-m", "equiscope.cli", "measure", "--calculator", f"{HERE}:Broken", structures, "--outputs",
         "forces", "--rotations", "D2", "--quiet", "--json", everything],
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert everything.exists()
    assert "rotations" in done.stdout


def test_a_table_that_the_disk_refuses_does_not_end_the_measurement(structures: Path, tmp_path: Path) -> None:
    from equiscope.adapters.ase_result import RowWriter, StructureRow

    row = StructureRow(0, "=1+1", "H", 1, "FFF", "x", "measured")
    with RowWriter(tmp_path / "rows.csv", ["id", "name"]) as writer:
        writer._names, writer._writer.extrasaction = ["id", "name"], "ignore"
        writer.write(row)
        file = writer._file
        assert file is not None
        writer._file = type("Full", (), {"flush": lambda self: (_ for _ in ()).throw(OSError(28, "full"))})()
        with pytest.warns(UserWarning, match="takes no more rows"):
            writer.write(row)
        writer.write(row)
        file.flush()
    assert list(csv.reader((tmp_path / "rows.csv").open()))[1] == ["0", "'=1+1"]
