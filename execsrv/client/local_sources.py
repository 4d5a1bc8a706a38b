"""Files of this machine that are read, the near end of `put`. All of it blocks: for threads.

Below the top of a tree no link is followed, whatever takes the place of what was there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice

from msgspec import Struct

from execsrv.errors import FileError
from execsrv.protocol.files import sendable_time

MOST_ENTRIES = 1_000_000
"""The largest directory that is sent. Each entry is memory."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class LocalEntry(Struct, frozen=True):
    """Something on this machine that may be sent. `target` is where a link leads, `identity` its device and inode.

    `top` is the tree that it is in, empty for what is no part of one.
    """

    path: str
    name: str
    mode: int
    size: int
    modified_ns: int
    identity: tuple[int, int]
    target: str | None = None
    top: str = ""

    @property
    def is_directory(self) -> bool:
        """True for a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """True for a regular file."""
        return stat.S_ISREG(self.mode)


def look(path: str) -> LocalEntry:
    """Return the facts of what a path leads to. Raises `OSError`."""
    return _entry(path, os.path.basename(path.rstrip("/")), os.stat(path))


def _entry(path: str, name: str, found: os.stat_result, target: str | None = None, top: str = "") -> LocalEntry:
    modified = sendable_time(found.st_mtime_ns)
    return LocalEntry(path, name, found.st_mode, found.st_size, modified, identity_of(found), target, top)


def identity_of(found: os.stat_result) -> tuple[int, int]:
    """Return the device and the inode."""
    return found.st_dev, found.st_ino


def entries(directory: LocalEntry) -> list[LocalEntry]:
    """Return the entries of a directory, sorted by name. Raises `OSError`: EFBIG for more than `MOST_ENTRIES`."""
    folder = _open(directory, os.O_DIRECTORY)
    try:
        with os.scandir(folder) as scanned:
            names = [entry.name for entry in islice(scanned, MOST_ENTRIES + 1)]
        if len(names) > MOST_ENTRIES:
            raise OSError(errno.EFBIG, f"a directory of more than {MOST_ENTRIES} entries", directory.path)
        found = []
        for name in sorted(names):
            path = os.path.join(directory.path, name)
            with suppress(FileNotFoundError), _naming(path):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(status.st_mode) else None
                found.append(_entry(path, name, status, target, directory.top or directory.path))
        return found
    finally:
        os.close(folder)


def open_source(entry: LocalEntry) -> int:
    """Open a regular file for reading, and return its descriptor. Raises `OSError`."""
    descriptor = _open(entry, os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", entry.path)
    return descriptor


def _open(entry: LocalEntry, flags: int) -> int:
    """Open what is at the path of an entry by now, one folder of its tree after the other. Raises `OSError`."""
    if not entry.top:
        return os.open(entry.path, flags | os.O_CLOEXEC)
    *folders, name = entry.path.removeprefix(entry.top).strip("/").split("/")
    with _naming(entry.path):
        here = os.open(entry.top, _FOLDER)
        try:
            for folder in folders:
                there = os.open(folder, _FOLDER | os.O_NOFOLLOW, dir_fd=here)
                os.close(here)
                here = there
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        finally:
            os.close(here)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Let the errors of the system have this path."""
    try:
        yield
    except OSError as error:
        error.filename = path
        raise


def read_whole(entry: LocalEntry, most: int) -> bytes | None:
    """Return the content of a small file, None where it has become larger than that."""
    descriptor = open_source(entry)
    with open(descriptor, "rb") as file:
        data = file.read(most + 1)
    return None if len(data) > most else data


def check_same(descriptor: int, entry: LocalEntry, size: int) -> None:
    """Raise `FileError` for a file that is no more what it was, and ended at `size`. It may have grown."""
    modified = sendable_time(os.fstat(descriptor).st_mtime_ns)
    if size < entry.size or (size == entry.size and modified != entry.modified_ns):
        raise FileError("the file has changed while it was read", path=entry.path)
