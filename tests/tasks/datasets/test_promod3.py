"""Tests of the structure_db.dat reader on small files written here by the layout alone."""

import struct

import numpy as np
import pytest

from equiscope.errors import DataError
from equiscope.tasks.datasets.promod3 import read_structure_db
from tests.tasks.datasets.test_protein_chains import helix

WIDTHS = (1, 24, 4, 2, 2, 1, 40, 40)


def database(entries, magic=1234, version=2, counts=None, extra=b"") -> bytes:
    """Bytes of a database: entries are (pdb, chain, first number, shift, Cα trace in Å, sequence)."""
    blob = struct.pack("<II", magic, version).ljust(0x4D, b"\0") + struct.pack("<Q", len(entries))
    offset = 0
    for pdb, chain, first, shift, ca, _ in entries:
        blob += struct.pack("<I", len(pdb)) + pdb.encode() + struct.pack("<I", len(chain)) + chain.encode()
        blob += struct.pack("<IHH3f", offset, len(ca), first, *shift)
        offset += len(ca)
    sequence = "".join(entry[5] for entry in entries).encode()
    packed = np.zeros((offset, 4, 3), dtype="<u2")
    at = 0
    for *_, shift, ca, _seq in entries:
        packed[at : at + len(ca), 1] = np.rint((ca - np.float32(shift)) * 100)
        at += len(ca)
    arrays = [sequence, packed.tobytes()] + [bytes(width * offset) for width in WIDTHS[2:]]
    for number, array in enumerate(arrays):
        blob += struct.pack("<Q", (counts or {}).get(number, offset)) + array
    return blob + extra


def entry(pdb="1ABC", length=50, letter="A", shift=(-30.0, -30.0, -5.0), ca=None):
    return (pdb, "A", 7, shift, helix(length) if ca is None else ca, letter * length)


@pytest.fixture
def write(tmp_path):
    def put(blob: bytes):
        path = tmp_path / "structure_db.dat"
        path.write_bytes(blob)
        return path

    return put


def test_coordinates_names_sequences_and_counts(write):
    cut = np.delete(helix(51), 20, axis=0)
    entries = [
        entry("1ABC"),
        entry("2SHO", length=39, letter="C"),
        entry("3LON", length=61, letter="D"),
        entry("4CUT", length=50, letter="E", ca=cut),
        entry("5DUP"),
        entry("6XYZ", length=45, letter="G", shift=(-100.5, 3.25 - 20, -7.75)),
    ]
    chains = read_structure_db(write(database(entries)), shortest=40, longest=60)
    assert chains.ids == ("1ABC_A_7", "6XYZ_A_7")
    assert chains.sequences == ("A" * 50, "G" * 45)
    for ca, length in zip(chains.ca, (50, 45), strict=True):
        expected = helix(length) - helix(length).mean(axis=0)
        assert np.abs(ca - expected).max() < 0.011
    dropped = {reason: count for reason, count in chains.counts.items() if reason != "kept"}
    assert chains.counts["kept"] == 2
    assert sorted(dropped.values()) == [1, 1, 1, 1]
    assert sum(chains.counts.values()) == len(entries)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "too short"),
        (b"hello " * 40, "begins with"),
        (database([entry()], magic=4321), "begins with 4321"),
        (database([entry()], version=3), "format version 3"),
        (database([entry()], counts={0: 49}), "residues in its coordinates array"),
        (database([entry()], counts={5: 51}), "51 residues in its DSSP array"),
        (database([entry()], extra=b"123"), "3 bytes after"),
        (database([entry(length=30)]), "no usable protein chain: 1 shorter than 40"),
        (database([]), "no usable protein chain"),
    ],
)
def test_foreign_and_inconsistent_files_are_data_errors(write, blob, message):
    with pytest.raises(DataError, match=message):
        read_structure_db(write(blob))


def test_every_truncation_is_a_data_error(write):
    whole = database([entry(), entry("2DEF", letter="K")])
    for length in range(0, len(whole), 97):
        with pytest.raises(DataError, match=r"truncated|too short|announces|ends or breaks"):
            read_structure_db(write(whole[:length]))
    assert len(read_structure_db(write(whole))) == 2


def test_an_entry_beyond_the_arrays_is_a_data_error(write):
    blob = bytearray(database([entry()]))
    at = 0x55 + 4 + 4 + 4 + 1
    blob[at : at + 4] = struct.pack("<I", 10)
    with pytest.raises(DataError, match="reach residue 60"):
        read_structure_db(write(bytes(blob)))


def test_an_absurd_count_of_entries_is_a_data_error(write):
    blob = bytearray(database([entry()]))
    blob[0x4D:0x55] = struct.pack("<Q", 2**40)
    with pytest.raises(DataError, match="announces"):
        read_structure_db(write(bytes(blob)))


def test_a_missing_file_says_what_to_unpack(tmp_path):
    with pytest.raises(DataError, match="promod3-data"):
        read_structure_db(tmp_path / "absent.dat")
