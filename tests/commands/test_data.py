"""`equiscope data describe` on the formats, and training on a published set from the command line."""

import json

import pytest

from equiscope import cli
from equiscope.tasks.datasets.md17 import Md17
from tests.tasks.datasets import layouts


def describe(capsys, *arguments):
    status = cli.main(["data", "describe", *map(str, arguments)])
    return status, capsys.readouterr()


def test_spice(capsys, tmp_path):
    path = layouts.spice(tmp_path / "s.hdf5")
    status, shown = describe(capsys, path, "--format", "spice", "--json", tmp_path / "d.json")
    assert status == 0
    assert "12 frames of 3 groups, 3 to 5 atoms" in shown.out
    assert "positions bohr, energy hartree, gradient hartree/bohr (attributes in the file)" in shown.out
    assert "orientation tensor 0." in shown.out
    assert json.loads((tmp_path / "d.json").read_text())["frames"] == 12
    _, shown = describe(capsys, path, "--format", "spice", "--frames", "5")
    assert "5 frames of" in shown.out


def test_settings_and_errors(capsys, tmp_path):
    path = layouts.md17(tmp_path / "w.npz")
    status, shown = describe(capsys, path, "--format", "md17", "--set", "pieces=2")
    assert status == 0
    assert "5 frames of 2 groups" in shown.out
    for arguments, message in (
        (("--format", "md71"), "there is no format 'md71'"),
        (("--format", "md17", "--set", "piece=2"), "has no setting ['piece']"),
        (("--format", "md17", "--set", "pieces"), "--set needs KEY=VALUE"),
        (("--format", "md17", "--set", "pieces=2", "--set", "pieces=3"), "--set names 'pieces' twice: '2' and '3'"),
        (("--format", "extxyz"), "does not say its units"),
        (("--format", "spice"), "no HDF5 file"),
    ):
        status, shown = describe(capsys, path, *arguments)
        assert status == 2
        assert message in shown.err


def test_smiles_and_structures(capsys, tmp_path):
    (tmp_path / "m.csv").write_text("SMILES\nCCO\n")
    assert "1 molecules, 9 to 9 atoms" in describe(capsys, tmp_path / "m.csv", "--format", "smiles")[1].out
    status, shown = describe(capsys, tmp_path, "--format", "structures")
    assert status == 2
    assert "no structure file" in shown.err
    (tmp_path / "a.pdb").write_text(
        "".join(
            f"ATOM  {i:5d}  CA  ALA A{i:4d}    {3.8 * i:8.3f}{0.5 * (i % 2):8.3f}{0:8.3f}  1.00  0.00           C\n"
            for i in range(1, 60)
        )
    )
    status, shown = describe(capsys, tmp_path, "--format", "structures")
    assert status == 0
    assert "1 chains, 59 to 59 residues" in shown.out


@pytest.mark.parametrize("settings", [[], ["task=forcefield"]])
def test_data_is_a_group_of_the_configuration(settings):
    from equiscope.runs.config import configuration

    made = configuration(["run=a", *settings, "data=spice", "data.path=S.hdf5", "data.frames=100"])["data"]
    assert (made["format"], made["path"], made["frames"], made["neutral"]) == ("spice", "S.hdf5", 100, True)
    assert configuration(["run=a", *settings, "data.frames=60"])["data"]["sampler"] == "jitter"


@pytest.mark.parametrize("name", ["spice", "md17", "rmd17", "ani1x", "ani2x", "extxyz", "ase"])
def test_every_group_fits_its_reader(name):
    from equiscope.runs.config import configuration
    from equiscope.tasks import build

    units = ["data.energy_unit=eV", "data.length_unit=Angstrom"] if name == "extxyz" else []
    build(configuration(["run=a", f"data={name}", "data.path=x", *units]))


def test_missing_units_and_paths_are_asked_for(capsys):
    for settings, message in (
        (["data=spice"], "data.path has no value: add data.path=…"),
        (["data=extxyz", "data.path=x", "data.energy_unit=eV"], "data.length_unit has no value"),
        (["data=spyce"], "there is no data 'spyce', did you mean 'spice'?"),
    ):
        assert cli.main(["train", "run=a", *settings]) == 2
        assert message in capsys.readouterr().err


def test_words_for_settings_and_the_report(capsys, tmp_path):
    path = layouts.md17(tmp_path / "w.npz")
    for arguments, message in (
        (("--set", "pieces=²"), "pieces of md17 must be a whole number, got '²'"),
        (("--set", "pieces=-2"), "pieces must be at least 1, got -2"),
        (("--json", path), "that is read or written too"),
        (("--json", tmp_path / "none" / "d.json"), "there is no such folder"),
    ):
        status, shown = describe(capsys, path, "--format", "md17", *arguments)
        assert status == 2
        assert message in shown.err
    assert layouts.read(Md17(path))[0]
    (tmp_path / "a.xyz").write_bytes("1\nunit=Å\nH 0 0 0\n2\n\nH 0 0 0\n".encode("latin-1"))
    units = ("--set", "energy_unit=eV", "--set", "length_unit=Å", "--json", tmp_path / "d.json")
    status, shown = describe(capsys, tmp_path / "a.xyz", "--format", "extxyz", *units)
    assert status == 0
    assert "left out: 1 frame that cannot be read (first: frame 1: XYZError" in shown.out
    assert "read with a remark: 1 line with bytes that are no UTF-8" in shown.out
    plain = json.loads((tmp_path / "d.json").read_text())
    assert (list(plain["rejected"].values()), list(plain["remarks"].values())) == ([1], [1])
    assert describe(capsys, tmp_path / "a.xyz", "--format", "structures")[0] == 2
    assert describe(capsys, tmp_path, "--format", "structures", "--frames", "3")[0] == 2
