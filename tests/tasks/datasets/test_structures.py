"""Tests of the structure folder reader on files written with gemmi."""

import gzip
import os

import gemmi
import numpy as np
import pytest

from equiscope.errors import DataError
from equiscope.tasks.datasets.protein_chains import ProteinChains, centred, write_npz
from equiscope.tasks.datasets.stream import Sample
from equiscope.tasks.datasets.structures import Structures, StructuresDescription, read_structures
from tests.tasks.datasets.test_protein_chains import helix


def structure(ca, name="x", residue="ALA", without_ca=(), second=None) -> gemmi.Structure:
    """One chain A with N and CA atoms; ``second`` adds an alternative location B of every CA at its place."""
    made, model, chain = gemmi.Structure(), gemmi.Model(1), gemmi.Chain("A")
    for number, place in enumerate(ca, start=1):
        unit = gemmi.Residue()
        unit.name, unit.seqid = residue, gemmi.SeqId(number, " ")
        _add(unit, "N", place - [0.0, 0.0, 1.4])
        if number not in without_ca:
            if second is None:
                _add(unit, "CA", place)
            else:
                _add(unit, "CA", place, "A")
                _add(unit, "CA", second[number - 1], "B")
        chain.add_residue(unit)
    model.add_chain(chain)
    made.add_model(model)
    made.name = name
    made.setup_entities()
    made.assign_label_seq_id()
    return made


def _add(residue: gemmi.Residue, name: str, place, altloc: str = "\0") -> None:
    atom = gemmi.Atom()
    atom.name, atom.element, atom.altloc = name, gemmi.Element(name[0]), altloc
    atom.pos = gemmi.Position(*(float(v) for v in place))
    residue.add_atom(atom)


def cif(made: gemmi.Structure, path) -> None:
    made.make_mmcif_document().write_file(str(path))


def same(ca, expected, tolerance=2e-3) -> bool:
    return ca.shape == expected.shape and np.abs(ca - (expected - expected.mean(axis=0))).max() < tolerance


def test_a_file_of_chains_is_described_as_a_folder_is(tmp_path):
    cif(structure(helix(50)), tmp_path / "a.cif")
    write_npz(read_structures(tmp_path), tmp_path / "chains.npz")
    places = tmp_path, tmp_path / "chains.npz"
    one, other = (str(Structures(place).describe(Sample())).splitlines() for place in places)
    assert one[0] == other[0] == "1 chains, 50 to 50 residues, 50 in all"
    assert one[2] == other[2] == "random orientation: fewer than 20 frames that have a direction, not tested"
    # Twenty chains in one orientation, of as many files.
    ca = tuple(centred(helix(45 + k)) for k in range(20))
    chains = ProteinChains(tuple(f"f{k}_A_1" for k in range(20)), ca, None, "test")
    found = StructuresDescription(chains).to_dict()["orientation_bias"]
    assert (found["by"], found["units"]) == ("groups", 12)
    assert found["auc"] > 0.9


def test_mmcif_pdb_and_gzipped_files_give_the_same_trace(tmp_path):
    made = structure(helix(50))
    cif(made, tmp_path / "a.cif")
    made.write_pdb(str(tmp_path / "b.pdb"))
    (tmp_path / "c.pdb.gz").write_bytes(gzip.compress((tmp_path / "b.pdb").read_bytes()))
    (tmp_path / "notes.txt").write_text("no structure")
    chains = read_structures(tmp_path)
    assert chains.ids == ("a_A_1", "b_A_1", "c_A_1")
    assert all(same(ca, helix(50)) for ca in chains.ca)
    assert chains.sequences == ("A" * 50,) * 3
    assert dict(chains.counts) == {"kept": 3, "files": 3}


def test_first_model_and_first_alternative_location(tmp_path):
    made = structure(helix(50), second=helix(50) + 1.0)
    other = structure(helix(60))[0]
    other.num = 2
    made.add_model(other)
    cif(made, tmp_path / "a.cif")
    chains = read_structures(tmp_path)
    assert len(chains) == 1
    assert same(chains.ca[0], helix(50))


def test_of_two_residues_at_one_place_in_the_chain_the_first_is_read(tmp_path):
    made = structure(helix(50))
    chain = made[0][0]
    twin = chain[10].clone()
    twin.name = "SER"
    for residue, altloc in ((chain[10], "A"), (twin, "B")):
        for atom in residue:
            atom.altloc = altloc
    chain.add_residue(twin, 11)
    made.setup_entities()
    made.write_pdb(str(tmp_path / "a.pdb"))
    chains = read_structures(tmp_path)
    assert len(chains) == 1
    assert chains.sequences == ("A" * 50,)
    assert same(chains.ca[0], helix(50))


def test_a_break_and_a_missing_ca_cut_the_chain_and_are_counted(tmp_path):
    broken = helix(100)
    broken[50:] += [20.0, 0.0, 0.0]
    cif(structure(broken), tmp_path / "broken.cif")
    cif(structure(helix(90), without_ca=(41,)), tmp_path / "missing.cif")
    chains = read_structures(tmp_path)
    assert chains.ids == ("broken_A_1", "broken_A_51", "missing_A_1", "missing_A_42")
    assert chains.lengths.tolist() == [50, 50, 40, 49]
    assert sum(count for reason, count in chains.counts.items() if "chain break" in reason) == 1
    assert sum(count for reason, count in chains.counts.items() if "without CA" in reason) == 1


def test_every_unusable_file_is_counted_under_its_reason(tmp_path):
    cif(structure(helix(50)), tmp_path / "good.cif")
    cif(structure(helix(1)), tmp_path / "single.cif")
    cif(structure(helix(20)), tmp_path / "short.cif")
    cif(structure(0.6 * helix(50)), tmp_path / "squeezed.cif")
    not_a_number = helix(50)
    not_a_number[10, 1] = np.nan
    cif(structure(not_a_number), tmp_path / "nan.cif")
    cif(structure(helix(50), residue="DA"), tmp_path / "dna.cif")
    (tmp_path / "text.cif").write_text("hello\n")
    (tmp_path / "empty.pdb").write_text("")
    (tmp_path / "truncated.cif").write_bytes((tmp_path / "good.cif").read_bytes()[:900])
    counts = dict(read_structures(tmp_path).counts)
    assert counts.pop("kept") == 1
    assert counts.pop("files") == 9
    for reason in ("one residue", "shorter than 40", "nearer than 2.5", "not finite", "without a protein chain"):
        assert sum(count for name, count in counts.items() if reason in name) == 1, (reason, counts)
    # Text, nothing, and half a file: unreadable or without atoms, whichever the parser says; never silent.
    assert sum(count for name, count in counts.items() if "cannot be read" in name or "without atoms" in name) == 3


def test_nothing_usable_is_an_error_that_lists_the_reasons(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        read_structures(tmp_path / "absent")
    with pytest.raises(DataError, match="no structure file"):
        read_structures(tmp_path)
    cif(structure(helix(20)), tmp_path / "short.cif")
    with pytest.raises(DataError, match="1 shorter than 40 residues"):
        read_structures(tmp_path)


def test_files_whose_names_share_a_stem_are_all_read(tmp_path):
    for number in (1, 2, 3):
        cif(structure(helix(50)), tmp_path / f"m.{number}.cif")
    made = structure(helix(50))
    cif(made, tmp_path / "a.cif")
    made.write_pdb(str(tmp_path / "a.pdb"))
    structure(helix(60)).write_pdb(str(tmp_path / "a.ent"))
    chains = read_structures(tmp_path)
    # Of a.cif and a.pdb, which hold one chain, one is read; a.ent holds another.
    assert chains.ids == ("a_A_1", "a.ent_A_1", "m.1_A_1", "m.2_A_1", "m.3_A_1")
    assert chains.lengths.tolist() == [50, 60, 50, 50, 50]
    assert chains.counts["same name as an earlier chain"] == 1


def renumbered(numbers, names=None, labels=False):
    made = structure(helix(50))
    for place, residue in enumerate(made[0]["A"]):
        residue.seqid = gemmi.SeqId(numbers(place), " ")
        residue.label_seq = place + 1 if labels else None
        residue.name = names[place % len(names)] if names else residue.name
    return made


@pytest.mark.parametrize("names", [None, ("GLY", "ALA")])
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize(
    "numbers",
    [
        lambda place: place if place > 30 else min(place, 29) + 1,
        lambda place: place // 2 + 1,
        lambda place: place % 25 + 1,
    ],
    ids=["one twice", "each twice", "numbers that start anew"],
)
def test_residues_with_one_author_number_are_all_read(tmp_path, numbers, labels, names):
    made = renumbered(numbers, names, labels)
    cif(made, tmp_path / "a.cif")
    made.write_pdb(str(tmp_path / "b.pdb"))
    chains = read_structures(tmp_path)
    expected = "".join({"GLY": "G", "ALA": "A"}[(names or ("ALA",))[place % len(names or "1")]] for place in range(50))
    assert chains.sequences == (expected,) * 2
    assert all(same(ca, helix(50)) for ca in chains.ca)


def test_names_without_their_column_and_elements(tmp_path):
    for name, atom, element in (("a", "CA  ", "C"), ("b", "CA  ", " "), ("c", " CA ", " ")):
        rows = [
            f"ATOM  {k:5d} {atom} ALA A{k:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.90          {element:>2}\n"
            for k, (x, y, z) in enumerate(helix(50), start=1)
        ]
        (tmp_path / f"{name}.pdb").write_text("".join(rows) + "END\n")
    assert read_structures(tmp_path).lengths.tolist() == [50, 50, 50]


def test_unreadable_files_cost_themselves_alone_with_a_reason(tmp_path):
    cif(structure(helix(50)), tmp_path / "good.cif")
    content = (tmp_path / "good.cif").read_bytes()
    (tmp_path / "cut.cif.gz").write_bytes(gzip.compress(content)[:-40])
    (tmp_path / "latin.cif").write_bytes("# Å\n".encode("latin-1") + content)
    (tmp_path / "wrong.pdb").write_bytes(content)
    os.mkfifo(tmp_path / "pipe.pdb")
    chains = read_structures(tmp_path)
    assert chains.ids == ("good_A_1", "latin_A_1", "wrong_A_1")
    reasons = sorted(why for why in chains.counts if "cannot be read" in why)
    assert len(reasons) == 2
    assert "file cut.cif.gz: " in reasons[0]
    assert "pipe.pdb is a pipe" in reasons[1]
    assert chains.counts["read with a remark: line with bytes that are no UTF-8 (read as '\ufffd')"] == 1
