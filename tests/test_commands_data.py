"""`equiscope data describe` on the formats, and training on a published set from the command line."""

import json

import pytest

from equiscope import cli
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
        (["data=spyce"], "Could not find 'data/spyce'"),
    ):
        assert cli.main(["train", "run=a", *settings]) == 2
        assert message in capsys.readouterr().err
