"""The way to a path that a policy names, as it was seen on one walk.

Every name is looked up in the folder before it, which is held open, and no link is left to the kernel: it is read,
noted, and walked like the rest. So it can be asked of each who may have put it there, and what is told of a path is
what was seen, whatever is renamed or replaced meanwhile. Nothing is decided here.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from execsrv._processes.pidfd import SHORT

_MOST_WALKS = 128
"""So often a walk begins again, for a link or for `..`: they can lead back and forth."""

_MOST_BYTES = 8192
"""A path with what is left behind a link in it, each of which the kernel takes up to 4096 bytes of."""

_NO_LINK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = _NO_LINK | os.O_DIRECTORY


class Way(NamedTuple):
    """The things that were seen on the way to a path."""

    path: bytes
    """Where it leads, without links as far as something is there."""
    links: tuple[bytes, ...]
    """The links that it goes through, each in a folder whose path has none."""
    mode: int = 0
    """The kind of what is there, 0 where nothing was seen."""
    error: int = 0
    """The errno for which nothing was seen."""

    @property
    def is_missing(self) -> bool:
        """True where nothing is there. That nothing can be seen there is something else."""
        return self.error in (errno.ENOENT, errno.ENOTDIR)


def way_to(path: bytes) -> Way:
    """Walk to an absolute path, and return what was seen. Blocks as long as the file systems do.

    Raises `OSError` without a descriptor to look with.
    """
    links: list[bytes] = []
    for _ in range(_MOST_WALKS):
        found = _walk(path, links)
        if isinstance(found, Way):
            return found
        path = found
        if len(path) > _MOST_BYTES:
            return Way(path, tuple(links), error=errno.ENAMETOOLONG)
    return Way(path, tuple(links), error=errno.ELOOP)


def _walk(path: bytes, links: list[bytes]) -> Way | bytes:
    """Walk from the root, and return what was seen, or at a link or a `..` the path that is to be walked instead.

    For `..` that is from the root too: the folder that is held may have been moved.
    """
    at, mode = b"/", stat.S_IFDIR
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    try:
        folder = os.open(at, _FOLDER)
        try:
            for place, name in enumerate(names, 1):
                if name == b"..":
                    if not stat.S_ISDIR(mode):
                        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                    return os.path.join(os.path.dirname(at), *names[place:])
                child, mode = _look(name, folder, is_last=place == len(names))
                os.close(folder)
                folder = child
                if stat.S_ISLNK(mode):
                    links.append(os.path.join(at, name))
                    return os.path.join(at, os.readlink(b"", dir_fd=folder), *names[place:])
                at = os.path.join(at, name)
            return Way(at, tuple(links), mode)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno in SHORT:
            raise
        return Way(os.path.normpath(path), tuple(links), error=error.errno or errno.EIO)


def _look(name: bytes, folder: int, *, is_last: bool) -> tuple[int, int]:
    """Return what has that name in an open folder, as a descriptor, and its kind. A link is not followed."""
    if not is_last:
        try:
            return os.open(name, _FOLDER, dir_fd=folder), stat.S_IFDIR
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
    child = os.open(name, _NO_LINK, dir_fd=folder)
    try:
        return child, os.fstat(child).st_mode
    except OSError:
        os.close(child)
        raise
