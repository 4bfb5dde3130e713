"""QM9: Mathematica's powers of ten, hartree to eV, the excluded list, and the archive as published."""

import gzip
import io
import tarfile

import numpy as np
import pytest

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets.qm9 import Qm9
from tests.tasks.datasets import layouts


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "qm9"
    made.mkdir()
    (made / "dsgdb9nsd_000001.xyz").write_text(layouts.QM9)
    (made / "dsgdb9nsd_000002.xyz").write_text(layouts.QM9.replace("gdb 1", "gdb 2"))
    (made / "readme.xyz").write_text("not a molecule\n")
    return made


def test_numbers(folder):
    (block,), _ = layouts.read(Qm9(folder / "dsgdb9nsd_000001.xyz"))
    assert block.group == "gdb 1"
    assert block.numbers.tolist() == [6, 1, 1, 1, 1]
    assert block.positions[0, 2].tolist() == [1.0117308433, 1.4637511618, 2.765748e-6]
    assert block.energy[0] == pytest.approx(-40.47893 * layouts.HARTREE, rel=1e-12)
    assert block.forces is None
    (free,), _ = layouts.read(Qm9(folder / "dsgdb9nsd_000001.xyz", energy="G"))
    assert free.energy[0] == pytest.approx(-40.498597 * layouts.HARTREE, rel=1e-12)


@pytest.mark.parametrize("mode", ["w:bz2", "w"])
def test_archive_and_folder_agree(folder, tmp_path, mode):
    with tarfile.open(tmp_path / "dsgdb9nsd.xyz.tar.bz2", mode) as archive:
        archive.add(folder, arcname="")
    packed, dropped = layouts.read(Qm9(tmp_path / "dsgdb9nsd.xyz.tar.bz2"))
    plain, _ = layouts.read(Qm9(folder))
    assert sorted(b.group for b in packed) == [b.group for b in plain] == ["gdb 1", "gdb 2"]
    assert all(np.array_equal(b.positions, plain[0].positions) for b in packed)
    assert dropped == {"file that is no QM9 molecule": 1}


def test_excluded_list(folder, tmp_path):
    (tmp_path / "uncharacterized.txt").write_text("List of molecules\n\n  2  C\n  77  CC\n2 compounds\n")
    blocks, rejected = layouts.read(Qm9(folder, exclude=tmp_path / "uncharacterized.txt"))
    assert [b.group for b in blocks] == ["gdb 1"]
    assert rejected["uncharacterized (excluded list)"] == 1


def test_refusals(tmp_path):
    with pytest.raises(InputError, match="U0, U, H, G"):
        Qm9("x", energy="U1")
    (tmp_path / "x.tar").write_text("no")
    with pytest.raises(DataError, match="no tar archive"):
        layouts.read(Qm9(tmp_path / "x.tar"))
    (tmp_path / "x.xyz").write_text("1\n\nH 0 0 0\n")
    with pytest.raises(DataError, match="no molecule in QM9's layout"):
        layouts.read(Qm9(tmp_path / "x.xyz"))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_archives_that_are_cut_short_are_said_wherever_the_cut_is(tmp_path, mode):
    path = tmp_path / "a.tar"
    with tarfile.open(path, mode) as archive:
        for number in range(8):
            content = layouts.QM9.replace("gdb 1", f"gdb {number}").encode()
            about = tarfile.TarInfo(f"dsgdb9nsd_{number:06d}.xyz")
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    whole = path.read_bytes()
    assert len(layouts.read(Qm9(path))[0]) == 8
    ends = range(512, 512 * 23, 512) if mode == "w" else range(100, len(whole) - 12, max(1, len(whole) // 20))
    for end in ends:
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match="no tar archive, or is damaged or cut short"):
            layouts.read(Qm9(path))


def test_compressed_files_and_half_ones(tmp_path):
    (tmp_path / "a.xyz.gz").write_bytes(gzip.compress(layouts.QM9.encode()))
    (block,), _ = layouts.read(Qm9(tmp_path / "a.xyz.gz"))
    assert block.group == "gdb 1"
    # The last number of the last atom is cut: without the lines after it, 0.906 would be read as 0.90.
    (tmp_path / "a.xyz").write_text(layouts.QM9[: layouts.QM9.index("63972942")])
    with pytest.raises(DataError, match="cut short among or after their lines"):
        layouts.read(Qm9(tmp_path / "a.xyz"))
    (tmp_path / "b.xyz").write_text(layouts.QM9.replace("-40.47893", "-40,47893"))
    with pytest.raises(DataError, match="could not convert string to float: '-40,47893'"):
        layouts.read(Qm9(tmp_path / "b.xyz"))
