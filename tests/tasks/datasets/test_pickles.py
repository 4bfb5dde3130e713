"""Pickles are programs: what executes anything is refused before it could, and real molecules are read."""

import builtins
import os
import pickle
import pickletools

import pytest
from rdkit import Chem

from equiscope.errors import DataError
from equiscope.tasks.datasets import pickles


class Attack:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def mol():
    made = Chem.AddHs(Chem.MolFromSmiles("CO"))
    return made


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_molecules_come_back(tmp_path, protocol):
    content = {"conformers": [{"rd_mol": mol(), "totalenergy": -1.5, "set": 1}], "names": ("a", None, True)}
    (tmp_path / "a.pickle").write_bytes(pickle.dumps(content, protocol))
    found = pickles.load(tmp_path / "a.pickle")
    assert found["names"] == ("a", None, True)
    stored = found["conformers"][0]["rd_mol"]
    assert isinstance(stored, pickles.MoleculeBytes)
    assert Chem.MolToSmiles(stored.molecule()) == Chem.MolToSmiles(mol())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["system", "exec", "eval", "open"])
def test_malicious_pickles_execute_nothing(tmp_path, name, protocol):
    mark = tmp_path / "executed"
    attacks = {
        "system": Attack(os.system, f"touch {mark}"),
        "exec": Attack(exec, f"open({str(mark)!r}, 'w')"),
        "eval": Attack(builtins.eval, f"open({str(mark)!r}, 'w')"),
        "open": Attack(open, str(mark), "w"),
    }
    path = tmp_path / "attack.pickle"
    path.write_bytes(pickle.dumps([("CCO", [attacks[name]])], protocol))
    with pytest.raises(DataError, match=r"is refused: it asks for .*extended XYZ"):
        pickles.load(path)
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
            pickles.load(path)
        assert not mark.exists(), name


def test_state_of_a_molecule_is_left_out(tmp_path):
    # BUILD with an attribute of its own: nothing of it reaches the molecule.
    content = pickle.dumps(mol(), 2)
    end = next(at for op, _, at in reversed(list(pickletools.genops(content))) if op.name == "BUILD")
    (tmp_path / "a.pickle").write_bytes(content[:end] + b"0}X\x08\x00\x00\x00moleculeK\x01s" + content[end:])
    found = pickles.load(tmp_path / "a.pickle")
    assert found.molecule().GetNumAtoms() == 6


def test_damage(tmp_path):
    with pytest.raises(DataError, match="there is no pickle"):
        pickles.load(tmp_path / "none.pickle")
    for content in (b"", b"text", pickle.dumps([1, 2, 3])[:-3]):
        (tmp_path / "a.pickle").write_bytes(content)
        with pytest.raises(DataError):
            pickles.load(tmp_path / "a.pickle")
    with pytest.raises(DataError, match="damaged"):
        pickles.MoleculeBytes(b"\x00" * 40).molecule()
