"""GEOM's msgpack stream and pickles, and MiDi's split: conformers, total energies, nothing executed."""

import builtins
import json
import os
import pickle
import pickletools

import msgpack
import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets import geom
from equiscope.tasks.datasets.geom import GeomCrude, GeomFolder, Midi
from tests.tasks.datasets import layouts

SMILES = ["CCO", "CC(=O)[O-]"]


def mol(smiles, seed):
    made = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(made, randomSeed=seed)
    return made


def conformers(smiles):
    return [
        {"geom_id": k, "set": 1, "degeneracy": 1, "totalenergy": -10.0 - k, "relativeenergy": 0.1 * k,
         "boltzmannweight": 0.5, "conformerweights": [0.5], "rd_mol": mol(smiles, k)}
        for k in range(2)
    ]  # fmt: skip


def rows(made):
    numbers = [[atom.GetAtomicNum()] for atom in made.GetAtoms()]
    return np.hstack([numbers, made.GetConformer().GetPositions()]).tolist()


def check(blocks):
    assert [b.group for b in blocks] == [s for s in SMILES for _ in range(2)]
    assert [b.charge for b in blocks] == [0, 0, -1, -1]
    for block, (smiles, k) in zip(blocks, ((s, k) for s in SMILES for k in range(2)), strict=True):
        made = mol(smiles, k)
        assert block.numbers.tolist() == [a.GetAtomicNum() for a in made.GetAtoms()]
        np.testing.assert_allclose(block.positions[0], made.GetConformer().GetPositions(), atol=1e-4)
        if block.energy is not None:
            assert block.energy[0] == pytest.approx((-10.0 - k) * layouts.HARTREE)


def test_crude(tmp_path):
    with (tmp_path / "drugs_crude.msgpack").open("wb") as file:
        for smiles in SMILES:
            found = [{**c, "xyz": rows(c["rd_mol"]), "rd_mol": None} for c in conformers(smiles)]
            file.write(msgpack.packb({smiles: {"conformers": found, "charge": -smiles.count("-")}}))
        file.write(msgpack.packb({"C": {"conformers": [{"xyz": [[1, 2]]}]}}))
    blocks, rejected = layouts.read(GeomCrude(tmp_path / "drugs_crude.msgpack"))
    check(blocks)
    reason = "xyz has shape (1, 2), expected rows [Z, x, y, z]"
    assert rejected == {f"conformer that cannot be read (first: conformer 0: {reason})": 1}


def folder(path):
    (path / "drugs").mkdir()
    summary = {}
    for i, smiles in enumerate(SMILES):
        (path / "drugs" / f"{i}.pickle").write_bytes(pickle.dumps({"conformers": conformers(smiles)}))
        summary[smiles] = {"pickle_path": f"drugs/{i}.pickle", "charge": -smiles.count("-")}
    summary["N"] = {"charge": 0}
    summary["O"] = {"pickle_path": "drugs/9.pickle"}
    summary["S"] = {"pickle_path": "../../outside.pickle"}
    (path / "summary_drugs.json").write_text(json.dumps(summary))
    return path / "summary_drugs.json"


def test_folder(tmp_path):
    blocks, rejected = layouts.read(GeomFolder(folder(tmp_path)))
    check(blocks)
    assert rejected == {
        "molecule without pickle_path": 1,
        "pickle that is missing": 1,
        "pickle_path outside the folder": 1,
    }


class Attack:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_attacks_in_a_folder_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = folder(tmp_path)
    (tmp_path / "drugs" / "1.pickle").write_bytes(pickle.dumps({"conformers": [{"rd_mol": Attack()}]}))
    with pytest.raises(DataError, match="refused"):
        layouts.read(GeomFolder(path))
    assert not (tmp_path / "executed").exists()


def test_midi(tmp_path):
    entries = [(smiles, [mol(smiles, k) for k in range(4)]) for smiles in SMILES]
    (tmp_path / "val_data.pickle").write_bytes(pickle.dumps([*entries, ("C", [Chem.MolFromSmiles("C")]), 3]))
    blocks, rejected = layouts.read(Midi(tmp_path / "val_data.pickle", conformers=2))
    check(blocks)
    assert rejected == {"molecule without conformer": 1, "entry that is not (SMILES, molecules)": 1}
    with pytest.raises(InputError, match="conformers"):
        Midi("x", conformers=0)
    (tmp_path / "dict.pickle").write_bytes(pickle.dumps({}))
    with pytest.raises(DataError, match="no list of"):
        layouts.read(Midi(tmp_path / "dict.pickle"))


def test_refusals(tmp_path):
    (tmp_path / "a").write_bytes(b"\xc1\xc1")
    with pytest.raises(DataError, match="msgpack"):
        layouts.read(GeomCrude(tmp_path / "a"))
    with pytest.raises(DataError, match="no JSON"):
        layouts.read(GeomFolder(tmp_path / "a"))


def test_a_stream_that_is_cut_short_is_said(tmp_path):
    one = msgpack.packb({"O": {"conformers": [{"xyz": [[8, 0, 0, 0]], "totalenergy": -75.0}], "charge": 0}})
    path = tmp_path / "a.msgpack"
    path.write_bytes(one * 3)
    assert len(layouts.read(GeomCrude(path))[0]) == 3
    for cut in range(1, len(one)):
        path.write_bytes((one * 3)[:-cut])
        with pytest.raises(DataError, match=f"cut short: its last {len(one) - cut} bytes are no whole object"):
            layouts.read(GeomCrude(path))
    path.write_bytes(b"\xdd\x7f\xff\xff\xff")
    with pytest.raises(DataError, match="exceeds max_array_len"):
        layouts.read(GeomCrude(path))


@pytest.mark.parametrize(
    ("molecule", "reason"),
    [
        ({"conformers": [{"xyz": [[6.5, 0, 0, 0]]}]}, "must be 1 … 118, got [6.5]"),
        ({"conformers": [{"xyz": [[6, 0, 0, 0]], "totalenergy": "failed"}]}, "energy holds 'failed'"),
        ({"conformers": [{"xyz": [[6, 0, 0, 0]]}], "charge": "0"}, "charge holds '0'"),
        ({"conformers": [3]}, "TypeError"),
        ({"conformers": None}, "without a list of conformers"),
        (3, "without a list of conformers"),
    ],
)
def test_bad_conformers_are_counted_with_their_reason(tmp_path, molecule, reason):
    good = {"conformers": [{"xyz": [[8, 0, 0, 0]]}]}
    (tmp_path / "a.msgpack").write_bytes(msgpack.packb({"C": molecule, "O": good}))
    blocks, rejected = layouts.read(GeomCrude(tmp_path / "a.msgpack"))
    assert ([b.group for b in blocks], list(rejected.values())) == (["O"], [1])
    assert reason in next(iter(rejected))


def test_a_damaged_pickle_costs_its_molecule_alone(tmp_path):
    path = folder(tmp_path)
    file = tmp_path / "drugs" / "1.pickle"
    file.write_bytes(file.read_bytes()[:-5])
    blocks, rejected = layouts.read(GeomFolder(path))
    assert {b.group for b in blocks} == {SMILES[0]}
    (why,) = [why for why in rejected if "no sound pickle" in why]
    assert rejected[why] == 1


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def bare():
    made = Chem.AddHs(Chem.MolFromSmiles("CO"))
    return made


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_molecules_come_back(tmp_path, protocol):
    content = {"conformers": [{"rd_mol": bare(), "totalenergy": -1.5, "set": 1}], "names": ("a", None, True)}
    (tmp_path / "a.pickle").write_bytes(pickle.dumps(content, protocol))
    found = geom.load_pickle(tmp_path / "a.pickle")
    assert found["names"] == ("a", None, True)
    stored = found["conformers"][0]["rd_mol"]
    assert isinstance(stored, geom.MoleculeBytes)
    assert Chem.MolToSmiles(stored.molecule()) == Chem.MolToSmiles(bare())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["system", "exec", "eval", "open"])
def test_malicious_pickles_execute_nothing(tmp_path, name, protocol):
    mark = tmp_path / "executed"
    attacks = {
        "system": Call(os.system, f"touch {mark}"),
        "exec": Call(exec, f"open({str(mark)!r}, 'w')"),
        "eval": Call(builtins.eval, f"open({str(mark)!r}, 'w')"),
        "open": Call(open, str(mark), "w"),
    }
    path = tmp_path / "attack.pickle"
    path.write_bytes(pickle.dumps([("CCO", [attacks[name]])], protocol))
    with pytest.raises(DataError, match=r"is refused: it asks for .*extended XYZ"):
        geom.load_pickle(path)
    assert not mark.exists()
    # The same bytes do execute in an ordinary reader: the attack is a real one.
    pickle.loads(path.read_bytes())
    assert mark.exists()


def test_side_doors_are_shut(tmp_path):
    path, mark = tmp_path / "a.pickle", tmp_path / "executed"
    doors = {
        # The attribute of an allowed class: protocol 4 resolves dotted names.
        "dotted name": b"\x80\x04\x8c\x11rdkit.Chem.rdchem\x8c\x0cMol.__init__\x93.",
        "allowed module, other name": b"crdkit.Chem.rdchem\nAtom\n.",
        "other encoding": b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",
        "INST": b"(S'touch " + str(mark).encode() + b"'\nios\nsystem\n.",
        "persistent id": b"P1\n.",
        "molecule of text": b"crdkit.Chem.rdchem\nMol\n(X\x01\x00\x00\x00atR.",
        "extension registry": b"\x82\x01.",
    }
    for name, content in doors.items():
        path.write_bytes(content)
        with pytest.raises(DataError):
            geom.load_pickle(path)
        assert not mark.exists(), name


def test_state_of_a_molecule_is_left_out(tmp_path):
    # BUILD with an attribute of its own: nothing of it reaches the molecule.
    content = pickle.dumps(bare(), 2)
    end = next(at for op, _, at in reversed(list(pickletools.genops(content))) if op.name == "BUILD")
    (tmp_path / "a.pickle").write_bytes(content[:end] + b"0}X\x08\x00\x00\x00moleculeK\x01s" + content[end:])
    found = geom.load_pickle(tmp_path / "a.pickle")
    assert found.molecule().GetNumAtoms() == 6


def test_damage(tmp_path):
    with pytest.raises(DataError, match="there is no pickle"):
        geom.load_pickle(tmp_path / "none.pickle")
    for content in (b"", b"text", pickle.dumps([1, 2, 3])[:-3]):
        (tmp_path / "a.pickle").write_bytes(content)
        with pytest.raises(DataError):
            geom.load_pickle(tmp_path / "a.pickle")
    with pytest.raises(DataError, match="damaged"):
        geom.MoleculeBytes(b"\x00" * 40).molecule()
