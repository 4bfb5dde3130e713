"""Tests of the chain container, its checks and the npz format."""

import numpy as np
import pytest

from equiscope.errors import DataError, IntegrityError
from equiscope.tasks.datasets import protein_chains as pc


def helix(length: int) -> np.ndarray:
    """An ideal Cα helix: radius 2.3 Å, 100° and 1.5 Å a residue; neighbours 3.8 Å apart."""
    angle = np.deg2rad(100) * np.arange(length)
    return np.stack([2.3 * np.cos(angle), 2.3 * np.sin(angle), 1.5 * np.arange(length)], axis=1)


def some_chains(sequences=True) -> pc.ProteinChains:
    traces = tuple(pc.centred(helix(n)) for n in (40, 57))
    return pc.ProteinChains(
        ("1ABC_A_1", "2XYZ_B_7"), traces, ("A" * 40, "G" * 57) if sequences else None, "helices", "none", {"kept": 2}
    )


def test_the_shipped_chains_are_a_thousand_of_40_to_128_residues_with_sequences_and_licence():
    chains = pc.shipped_chains()
    assert len(chains) == 1000
    assert chains.lengths.min() >= 40
    assert chains.lengths.max() <= 128
    assert [len(s) for s in chains.sequences] == chains.lengths.tolist()
    assert "CC0" in chains.licence
    assert "Apache-2.0" in chains.licence
    steps = np.concatenate([np.linalg.norm(np.diff(ca, axis=0), axis=1) for ca in chains.ca])
    assert abs(steps.mean() - 3.80) < 0.02
    assert max(np.abs(ca.mean(axis=0)).max() for ca in chains.ca) < 1e-5


def test_the_licence_note_names_every_entry():
    from importlib import resources

    note = (resources.files("equiscope.tasks.datasets") / "protein_chains_1000.LICENSE.txt").read_text("utf-8")
    words = set(note.split())
    assert {name.split("_")[0] for name in pc.shipped_chains().ids} <= words


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ca: ca, None),
        (lambda ca: ca[:1], "one residue"),
        (lambda ca: ca[:5], "shorter than 10"),
        (lambda ca: helix(60), "longer than 50"),
        (lambda ca: np.delete(ca, 20, axis=0), "break"),
        (lambda ca: np.insert(ca, 20, ca[20] + 0.1, axis=0), "nearer than 2.5"),
        (lambda ca: np.where(np.arange(40)[:, None] == 3, np.nan, ca), "not finite"),
    ],
)
def test_rejection_names_the_reason(change, reason):
    found = pc.rejection(change(helix(40)), shortest=10, longest=50)
    assert (found is None) if reason is None else reason in found


@pytest.mark.parametrize("sequences", [True, False])
def test_npz_round_trip(tmp_path, sequences):
    chains = some_chains(sequences)
    pc.write_npz(chains, tmp_path / "c.npz")
    back = pc.read_npz(tmp_path / "c.npz")
    assert back.ids == chains.ids
    assert back.sequences == chains.sequences
    assert back.source == chains.source
    assert dict(back.counts) == dict(chains.counts)
    for a, b in zip(back.ca, chains.ca, strict=True):
        # Half a unit in the last place, and the centroid of the rounded trace.
        assert np.abs(a - b).max() <= 0.011


def test_a_plain_npz_without_sequences_or_checksum_is_read(tmp_path):
    np.savez(tmp_path / "p.npz", ids=["1ABC_A"], length=[40], ca_i16=np.rint(100 * helix(40)).astype(np.int16))
    chains = pc.read_npz(tmp_path / "p.npz")
    assert chains.sequences is None
    assert len(chains) == 1


def test_a_flipped_bit_anywhere_is_an_error_or_changes_nothing(tmp_path):
    path = tmp_path / "c.npz"
    pc.write_npz(some_chains(), path)
    whole, good = path.read_bytes(), pc.read_npz(path)
    seen = 0
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        try:
            back = pc.read_npz(path)
        except (DataError, IntegrityError):
            seen += 1
            continue
        assert all(np.array_equal(a, b) for a, b in zip(back.ca, good.ca, strict=True))
        assert (back.ids, back.sequences) == (good.ids, good.sequences)
    assert seen > 0.5 * len(whole) / 7


def test_wrong_content_with_a_valid_archive_fails_its_checksum(tmp_path):
    path = tmp_path / "c.npz"
    pc.write_npz(some_chains(), path)
    arrays = dict(np.load(path))
    arrays["ca_i16"] = arrays["ca_i16"] + np.int16(1)
    np.savez(path, **arrays)
    with pytest.raises(IntegrityError, match="SHA-256"):
        pc.read_npz(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": ["a"], "length": [40]}, "no array ca_i16"),
        ({"ids": ["a"], "length": [41], "ca_i16": np.zeros((40, 3), np.int16)}, "inconsistent"),
        ({"ids": ["a"], "length": [40], "ca_i16": np.zeros((40, 3), np.int16)}, "nearer"),
        ({"ids": ["a", "a"], "length": [40, 40], "ca_i16": np.zeros((80, 3), np.int16)}, "repeated"),
        ({"ids": [], "length": [], "ca_i16": np.zeros((0, 3), np.int16)}, "no usable protein chain"),
        (
            {"ids": ["a"], "length": [4], "ca_i16": (100 * helix(4)).astype("i2"), "sequence": np.zeros(3, "u1")},
            "3 sequence letters for 4 residues",
        ),
    ],
)
def test_bad_npz_is_refused_with_the_reason(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=message):
        pc.read_npz(tmp_path / "bad.npz")


def test_foreign_and_missing_files_are_data_errors(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"not a zip archive")
    with pytest.raises(DataError, match="not an npz"):
        pc.read_npz(tmp_path / "x.npz")
    with pytest.raises(DataError, match="no file"):
        pc.read_npz(tmp_path / "absent.npz")
    np.savez(tmp_path / "pickle.npz", ids=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="plain arrays"):
        pc.read_npz(tmp_path / "pickle.npz")


def test_a_coordinate_that_16_bits_cannot_hold_is_refused(tmp_path):
    chains = some_chains()
    far = pc.ProteinChains(chains.ids, (chains.ca[0], chains.ca[1] + 400), chains.sequences, "far")
    with pytest.raises(DataError, match="327"):
        pc.write_npz(far, tmp_path / "far.npz")
