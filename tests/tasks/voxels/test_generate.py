"""Conformer files: the same bytes from any number of workers, hopeless lists and settings refused."""

import pytest

from equiscope.errors import DataError, InputError
from equiscope.tasks.voxels.generate import ConformerData, generate

SMILES = ["CCO", "CCN", "CC(C)O", "CCCO", "CCCN", "CCOC"]


def made(folder, name, workers, **settings):
    source = folder / "few.smi"
    source.write_text("\n".join(f"{s} name" for s in SMILES))
    config = ConformerData(**{"conformers": 2, "min_atoms": 2, **settings}, smiles=str(source), path=str(folder / name))
    return generate(config, workers=workers, progress=False)


def test_same_configuration_gives_same_bytes(tmp_path):
    one, two = made(tmp_path, "one.npz", 1), made(tmp_path, "two.npz", 2)
    assert one.read_bytes() == two.read_bytes()
    assert made(tmp_path, "one.npz", 1) == one
    with pytest.raises(DataError, match=r"was made with conformers=2 \(asked: 3\)"):
        made(tmp_path, "one.npz", 1, conformers=3)


def test_empty_or_hopeless_lists_are_refused(tmp_path):
    for name, text in (("empty", ""), ("blank", "\n\n"), ("other", "CBr\nC[Si]\nnonsense")):
        source = tmp_path / f"{name}.smi"
        source.write_text(text)
        with pytest.raises(DataError, match="gives 0 molecules of"):
            generate(ConformerData(smiles=str(source), path=str(tmp_path / "x.npz")), workers=1, progress=False)
    with pytest.raises(DataError, match="no SMILES file"):
        generate(ConformerData(smiles=str(tmp_path / "none.smi"), path=str(tmp_path / "x.npz")), progress=False)


def test_a_list_without_conformers_is_refused_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("equiscope.tasks.voxels.generate.make", lambda molecule, conformers, seed: "embedding failed")
    with pytest.raises(DataError, match=r"found for 0 of 6 molecules \(dropped: {'embedding failed': 6}\)"):
        made(tmp_path, "none.npz", 1)
    assert not (tmp_path / "none.npz").exists()


def test_bad_settings_are_refused():
    for settings in ({"molecules": 2}, {"conformers": 0}, {"seed": -1}, {"min_atoms": 9, "max_atoms": 8}):
        with pytest.raises(InputError):
            ConformerData(**settings)
    assert str(ConformerData().resolved_path()) == "data/conformers-allx4-seed0-atoms10to20.npz"
    assert "train" in str(ConformerData(smiles="moses/train.csv.gz").resolved_path())
