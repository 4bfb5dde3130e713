"""Opening files of others: compressed and badly encoded files read right; pipes, bombs and headers that lie refused."""

import bz2
import gzip
import importlib
import lzma
import os
import sys
from collections import Counter

import pytest

from equiscope import files
from equiscope.errors import DataError, EquiscopeError
from equiscope.files import FileError, Refused, frame_texts, opened, readable, text_lines

FRAME = "2\nenergy=-1.0\nH 0 0 0\nH 1 0 0\n"


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["a.xyz", "a.xyz.gz"])
def test_content_is_unpacked_whatever_the_name(tmp_path, pack, name):
    path = write(tmp_path / name, pack(FRAME.encode() * 3))
    if pack is bytes and name.endswith(".gz"):
        with pytest.raises(FileError, match="not compressed as its name says"):
            list(frame_texts(path))
    else:
        assert list(frame_texts(path)) == [FRAME] * 3


def test_zstandard_is_read_or_its_package_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.xyz", b"\x28\xb5\x2f\xfd" + b"anything")

    def missing(name, *more):
        if name == "zstandard":
            raise ImportError(f"No module named {name!r}")
        return importlib.__import__(name)

    with monkeypatch.context() as patch:
        patch.setattr(files.importlib, "import_module", missing)
        with pytest.raises(Refused, match=r"zstandard is needed .* pip install 'equiscope\[data\]'"):
            list(text_lines(path, "text"))

    class Package:
        class ZstdDecompressor:
            def decompressobj(self):
                return Frame()

    monkeypatch.setitem(sys.modules, "zstandard", Package)
    one = MAGIC + b"line\n" * 400 + b"END"
    for count in (1, 2):
        assert list(text_lines(write(path, one * count), "text")) == ["line\n"] * 400 * count
        with pytest.raises(FileError, match="ended before the end-of-stream marker"):
            list(text_lines(write(path, (one * count)[:-2]), "text"))


MAGIC = b"\x28\xb5\x2f\xfd"


class Frame:
    """What zstandard's ``decompressobj`` is to its caller; its packing is the content between MAGIC and END."""

    def __init__(self):
        self.eof, self.unused_data, self._held = False, b"", b""

    def decompress(self, packed):
        self._held += packed
        content, end, self.unused_data = self._held.partition(b"END")
        self.eof = bool(end)
        if not end:
            self._held = content[-2:]
            content = content[:-2]
        return content.removeprefix(MAGIC)


@pytest.mark.parametrize(
    ("encoding", "lines", "replaced"),
    [("utf-8", ["café\n", "x\n"], 0), ("latin-1", ["caf\ufffd\n", "x\n"], 1), ("utf-8-sig", ["café\n", "x\n"], 0)],
)
def test_other_bytes_are_replaced_and_their_lines_counted(tmp_path, encoding, lines, replaced):
    counts = Counter()
    assert list(text_lines(write(tmp_path / "a", "café\r\nx\n".encode(encoding)), "text", counts)) == lines
    assert counts == Counter({files.NOT_UTF8: replaced} if replaced else {})


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("damage", [lambda c: c[:-12], lambda c: c[:40] + bytes(8) + c[48:]])
def test_damaged_archives_are_typed(tmp_path, pack, damage):
    noise = os.urandom(2000).hex()
    path = write(tmp_path / "a.gz", damage(pack(noise.encode())))
    with pytest.raises(FileError, match=r"a\.gz is no text, or is damaged or cut short: "):
        list(text_lines(path, "text"))


def test_what_never_ends_is_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is a pipe or a device"), opened(tmp_path / "pipe", "file"):
        pass
    for bad in (tmp_path / "none", "a\0b"):
        with pytest.raises(DataError, match="there is no file at"), opened(bad, "file"):
            pass
    monkeypatch.setattr(files, "LONGEST_LINE", 100)
    with pytest.raises(FileError, match="a line of more than 100 characters"):
        list(text_lines(write(tmp_path / "long", "x" * 1000), "text"))


def test_bombs_are_bounded_and_real_files_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_UNPACKED", 10_000)
    bomb = write(tmp_path / "bomb.gz", gzip.compress(b"a\n" * 1_000_000))
    with pytest.raises(FileError, match=r"holds [\d,]+ bytes and claims to unpack to"):
        list(text_lines(bomb, "text"))
    # Twice what hexadecimal digits hold: far above the floor, far under the ratio.
    real = write(tmp_path / "real.gz", gzip.compress(os.urandom(20_000).hex().encode()))
    assert len(list(text_lines(real, "text"))) == 1


@pytest.mark.parametrize(
    ("count", "message"),
    [("1000000000", "1000000000 atoms, more than"), ("²", "expected a number of atoms, got '²'"), ("9" * 5000, "more")],
)
def test_headers_that_lie(tmp_path, count, message):
    with pytest.raises(FileError, match=f"line 5: .*{message}"):
        list(frame_texts(write(tmp_path / "a.xyz", f"{FRAME}{count}\n\nH 0 0 0\n")))


def test_a_frame_cut_short_ends_with_the_file(tmp_path):
    assert list(frame_texts(write(tmp_path / "a.xyz", f"{FRAME}999999\n\nH 0 0 0\n"))) == [FRAME, "999999\n\nH 0 0 0\n"]


def test_parsers_words_are_kept_and_our_errors_pass(tmp_path):
    with pytest.raises(FileError, match=r"a is no b, or is damaged or cut short: KeyError: 'c'"), readable("a", "b"):
        raise KeyError("c")
    with pytest.raises(FileError, match=r"^a: short$"), readable("a", "b"):
        raise DataError("short")
    for error in (Refused("x"), EquiscopeError("x"), DataError("a is short")):
        with pytest.raises(type(error)) as seen, readable("a", "b"):
            raise error
        assert seen.value is error
