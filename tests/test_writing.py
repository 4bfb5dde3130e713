"""Writing: whole or not at all, through no link, and one process at a time whatever becomes of the lock's file."""

import os
import stat

import pytest

from equiscope import writing
from equiscope.errors import RunError
from equiscope.writing import Lock, inner_folder, open_own, remove_left_over, replacing, write_atomically


def test_a_link_is_replaced_and_what_it_names_stays(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "file").symlink_to(victim)
    (tmp_path / ".file.tmp").symlink_to(victim)
    write_atomically(tmp_path / "file", b"new")
    assert victim.read_bytes() == b"mine"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not (tmp_path / "file").is_symlink()


def test_temporary_files_have_random_names_and_go_when_writing_fails(tmp_path):
    names = []

    def fail():
        with replacing(tmp_path / "file") as file:
            file.write(b"half")
            names.append(*(p.name for p in tmp_path.iterdir()))
            raise OSError("full")

    for _ in range(2):
        with pytest.raises(OSError, match="full"):
            fail()
    assert len(set(names)) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_was_guessed_is_not_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(writing.secrets, "token_hex", lambda count: "0" * 16)
    guessed = tmp_path / f".file.{'0' * 16}.tmp"
    guessed.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "file", b"new")
    assert guessed.read_bytes() == b"mine"


def test_a_new_file_has_the_rights_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_long_names(tmp_path):
    path = tmp_path / ("ü" * 120 + ".x")
    write_atomically(path, b"x")
    assert path.read_bytes() == b"x"


def test_only_what_a_killed_writer_left_is_removed(tmp_path):
    for name in (".a.0123456789abcdef.tmp", ".a.tmp", "a.0123456789abcdef.tmp", ".a.0123456789abcdeg.tmp", "a"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".link.0123456789abcdef.tmp").symlink_to(tmp_path / "a")
    (tmp_path / ".folder.0123456789abcdef.tmp").mkdir()
    remove_left_over(tmp_path)
    assert not (tmp_path / ".a.0123456789abcdef.tmp").exists()
    assert len(list(tmp_path.iterdir())) == 6


def test_folders_and_files_of_ours_are_no_links(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    (tmp_path / "file").symlink_to("/dev/null")
    with pytest.raises(RunError, match="is a link"):
        inner_folder(tmp_path / "link")
    assert inner_folder(tmp_path / "there" / "new").is_dir()
    with pytest.raises(RunError, match="is a link"):
        open_own(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError, match="a pipe or a device"):
        open_own(tmp_path / "pipe")


def test_a_lock_taken_twice_says_who_has_it(tmp_path):
    first, second = Lock(tmp_path), Lock(tmp_path)
    first.take()
    with pytest.raises(RunError, match="already in use by this process"):
        second.take()
    first.close()
    second.take()
    second.check()
    second.close()


def test_a_lock_without_file_system_locks_warns_and_sees_another_owner(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "locked", lambda descriptor: None)
    first, second = Lock(tmp_path), Lock(tmp_path)
    with pytest.warns(UserWarning, match="has no locks"):
        first.take()
    first.check()
    with pytest.warns(UserWarning, match="has no locks"):
        second.take()
    with pytest.raises(RunError, match="taken over"):
        first.check()
    second.check()


def test_where_folders_have_no_locks_the_file_has(tmp_path, monkeypatch):
    right, folders = writing.locked, []

    def locked(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            folders.append(descriptor)
            return None
        return right(descriptor)

    monkeypatch.setattr(writing, "locked", locked)
    first = Lock(tmp_path)
    first.take()
    with pytest.raises(RunError, match="in use"):
        Lock(tmp_path).take()
    assert len(folders) == 2


def test_descriptors_are_closed_after_a_refusal(tmp_path):
    first = Lock(tmp_path)
    first.take()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(RunError):
            Lock(tmp_path).take()
    assert len(os.listdir("/proc/self/fd")) == before
