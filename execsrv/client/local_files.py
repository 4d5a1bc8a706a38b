"""Files of this machine that are written, the near end of `get`. All of it blocks: for threads.

Below the top of a tree no link is followed, whatever a server says that is there.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import trio

from execsrv._wire.paths import part_name

T = TypeVar("T")


class Threads:
    """Threads for the local files of one client: its own limiter."""

    def __init__(self, most: int = 8) -> None:
        self._limiter = trio.CapacityLimiter(most)

    async def run(self, work: Callable[[], T], path: str | None = None) -> T:
        """Return what `work` returns in a thread. An `OSError` gets this path: the names of parts are ours.

        Cancelling waits for the thread: what it writes to must not be closed under it.
        """
        try:
            return await trio.to_thread.run_sync(work, limiter=self._limiter)
        except OSError as error:
            if path is not None:
                error.filename = path
                del error.filename2
            raise


def read_at(descriptor: int, offset: int, size: int, sha256: hashlib._Hash) -> bytes:
    """Return a block, as long as the file has it, added to the hash."""
    data = os.pread(descriptor, size, offset)
    sha256.update(data)
    return data


def write_at(descriptor: int, offset: int, data: bytes, sha256: hashlib._Hash) -> None:
    """Write a block, and add it to the hash."""
    sha256.update(data)
    with memoryview(data) as left:
        written = 0
        while written < len(left):
            written += os.pwrite(descriptor, left[written:], offset + written)


def check_place(path: str) -> None:
    """Raise `OSError` for a path at which no file may be put: a directory, or a device or pipe, which would be gone."""
    with suppress(FileNotFoundError):
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", path)


class Part:
    """A file that is being written beside its place. `finish` puts it there, `drop` leaves nothing of it.

    `leave` has it found again, with the same key.
    """

    def __init__(self, path: str, key: str = "") -> None:
        """With a `key`, a part of the same key is taken up, unless it is in use or another user's.

        Raises `OSError`, also where `path` is there and no file may take its place.
        """
        check_place(path)
        folder, name = os.path.split(path)
        self._path = path
        self._part = os.path.join(folder, part_name(name, key))
        self.size = 0
        """The bytes that were there already."""
        if key and (found := _open_own(self._part)) is not None:
            self.descriptor, self.size = found
        else:
            self._part = os.path.join(folder, part_name(name))
            self.descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def finish(self, mode: int, modified_ns: int, size: int | None = None) -> None:
        """Give the file its mode, time and name, and cut it to its size. Raises `OSError`."""
        if size is not None:
            os.ftruncate(self.descriptor, size)
        os.fchmod(self.descriptor, mode)
        os.utime(self.descriptor, ns=(modified_ns, modified_ns))
        os.rename(self._part, self._path)
        os.close(self.descriptor)
        self.descriptor = -1

    def drop(self) -> None:
        """Remove it, unless it is finished."""
        if self.descriptor >= 0:
            with suppress(OSError):
                os.unlink(self._part)
            self.leave()

    def leave(self) -> None:
        """Let go of it as it is."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _open_own(part: str) -> tuple[int, int] | None:
    """Return the descriptor of a part of ours and its size; None where somebody else has it, or it leads elsewhere."""
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(descriptor)
        is_own = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.geteuid()
        if is_own and os.stat(part, follow_symlinks=False).st_ino == found.st_ino:  # nobody has just finished it
            return descriptor, found.st_size
    except OSError:
        pass
    os.close(descriptor)
    return None


def is_there(path: str, size: int, modified_ns: int, mode: int) -> bool:
    """Return whether a file is there already, as far as size, time and mode tell."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    facts = found.st_size, found.st_mtime_ns, stat.S_IMODE(found.st_mode)
    return stat.S_ISREG(found.st_mode) and facts == (size, modified_ns, mode)


def write_whole(path: str, data: bytes, mode: int, modified_ns: int) -> None:
    """Put a small file at a path, whole or not at all. Raises `OSError`."""
    part = Part(path)
    try:
        write_at(part.descriptor, 0, data, hashlib.sha256())
        part.finish(mode, modified_ns)
    finally:
        part.drop()


def make_directory(path: str, *, follow: bool) -> None:
    """Make a directory, or take one that is there, through a link only with `follow`. Raises `OSError`."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(path, follow_symlinks=follow).st_mode):
            raise


@contextmanager
def sign(directory: str) -> Iterator[str]:
    """Give the name of a new file in a directory, which is gone when the block is left. Raises `OSError`."""
    name = part_name("sign")
    path = os.path.join(directory, name)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        yield name
    finally:
        with suppress(OSError):
            os.unlink(path)


def finish_directory(path: str, mode: int, modified_ns: int) -> None:
    """Give a directory its mode and time. Raises `OSError`."""
    os.chmod(path, mode)
    os.utime(path, ns=(modified_ns, modified_ns))


def make_link(path: str, target: str, modified_ns: int) -> None:
    """Put a symbolic link with that time at a path, in place of a file or link. Raises `OSError`."""
    if not os.path.islink(path):
        check_place(path)
    folder, name = os.path.split(path)
    part = os.path.join(folder, part_name(name))
    os.symlink(target, part)
    try:
        os.utime(part, ns=(modified_ns, modified_ns), follow_symlinks=False)
        os.rename(part, path)
    except BaseException:
        os.unlink(part)
        raise
