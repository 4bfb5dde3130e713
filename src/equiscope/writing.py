"""Writing files so that nothing is lost: whole or not at all, through no link, by one process at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import socket
import stat
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from equiscope.errors import RunError

_LEFT_OVER = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
_IN_USE = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_OWNER = b"process "
# Descriptors that a forked child must not keep: an orphan would hold their locks.
_held: weakref.WeakSet[Any] = weakref.WeakSet()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new file, open for writing, that takes the place of ``path`` when the body ends, and is gone if it fails.

    At every instant the path holds either the old or the new content, whole: a file of a random name, made for this
    alone, is filled, synced and renamed. A link at ``path`` is replaced, never followed.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name[:80]}.{secrets.token_hex(8)}.tmp")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o666)
    try:
        with open(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace ``path`` by ``content``, see :func:`replacing`."""
    with replacing(path) as file:
        file.write(content)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def inner_folder(path: str | os.PathLike[str]) -> Path:
    """A folder of ours within another, made if missing.

    Raises:
        RunError: it is a link, through which files elsewhere would be overwritten.
    """
    folder = Path(path)
    if folder.is_symlink():
        raise RunError(f"{folder} is a link to {os.readlink(folder)!r}: nothing is written through it; delete the link")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def open_own(path: str | os.PathLike[str]) -> int:
    """A descriptor of a regular file to read and append to, made if missing.

    Raises:
        RunError: it is a link, a pipe or a device.
        OSError: it cannot be opened.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise RunError(f"{path} is a link: nothing is written through it; put the file itself there") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunError(f"{path} is a pipe or a device: nothing is written to it; delete it")
    return descriptor


def remove_left_over(folder: Path) -> None:
    """Delete what :func:`replacing` left in a folder when its process was killed; only the folder's owner may."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _LEFT_OVER.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


def locked(descriptor: int) -> bool | None:
    """Take the exclusive lock of an open file: False if another has it, None if its file system has no locks.

    It belongs to the open file, not to a name: deleting the file or opening it again, here or through another mount,
    leaves it. The system releases it when the process ends, however it ends.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _IN_USE else None
    return True


def not_inherited(owner: Any) -> None:
    """Have ``owner.close()`` called in every forked child, which shares the open file and with it the lock."""
    _held.add(owner)


def _close_all() -> None:
    for owner in list(_held):
        owner.close()


os.register_at_fork(after_in_child=_close_all)


class Lock:
    """Admits one process at a time to a folder.

    The lock is on the folder itself; where folders have none (NFS), on the file ``.lock`` in it, which also says who
    holds it. Where the file system has no locks at all, a warning says so, and :meth:`check` is what is left.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._descriptors: list[int] = []
        self._token = b""

    @property
    def path(self) -> Path:
        """The file that says who holds the lock."""
        return self.folder / ".lock"

    def take(self) -> None:
        """Take the lock.

        Raises:
            RunError: another process, or this one, has it; or ``.lock`` is not a file of ours.
        """
        descriptors = [os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        try:
            taken = locked(descriptors[0])
            if taken is not False:
                descriptors.append(open_own(self.path))
                taken = taken or locked(descriptors[1])
            if taken is False:
                raise RunError(f"{self.folder} is {self._holder()}: wait for it, or choose another name")
            if taken is None:
                warnings.warn(
                    f"the file system of {self.folder} has no locks: start nothing else there, it would be noticed "
                    "only when both write"
                )
            self._sign(descriptors[1])
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        self._descriptors = descriptors
        not_inherited(self)

    def _holder(self) -> str:
        try:
            said = self.path.read_bytes()[:200] if self.path.is_file() and not self.path.is_symlink() else b""
        except OSError:
            said = b""
        words = said.decode(errors="replace") if said.startswith(_OWNER) else "another process"
        own = words.startswith(f"process {os.getpid()} on {socket.gethostname()}")
        return "already in use by this process" if own else f"in use by {words.partition(', ')[0]}"

    def _sign(self, descriptor: int) -> None:
        found = os.pread(descriptor, 200, 0)
        if found and not found.startswith(_OWNER):
            raise RunError(f"{self.path} is not what a run writes ({found[:40]!r}): move it away")
        self._token = f"process {os.getpid()} on {socket.gethostname()}, {secrets.token_hex(8)}".encode()
        os.ftruncate(descriptor, 0)
        os.write(descriptor, self._token)

    def check(self) -> None:
        """Nothing if the lock is still ours as far as can be seen; to be asked before every write.

        Raises:
            RunError: another process has signed.
        """
        try:
            found = self.path.read_bytes()
        except FileNotFoundError:
            return
        if self._token and found != self._token:
            who = found[:200].decode(errors="replace").partition(", ")[0] or "nobody"
            raise RunError(f"{self.folder} was taken over by {who}: nothing more is written by this process")

    def close(self) -> None:
        """Give the lock back."""
        _held.discard(self)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors, self._token = [], b""
