"""Moving to another file system: a copy that is whole, and keeps all, takes the place, and then the source goes.

Nothing is lost on the way: whatever could not be copied is refused, and until the copy is whole nothing at the
destination has changed. One place may have two paths, through two mounts. That is found out before anything goes.

These functions block for as long as the file system does, so they run in threads. A cancel ends the copy, and leaves
nothing of it; once that has its place, the source goes whatever happens.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from contextlib import suppress

from execsrv._files.changes import copy_one, copy_tree, not_to_copy, remove
from execsrv._files.details import rename
from execsrv._files.listings import open_directory
from execsrv._files.roots import Place, Roots, failure
from execsrv._wire.paths import part_name
from execsrv.errors import FileRefusedError
from execsrv.limits import ServerConfig


def move(roots: Roots, source: str, destination: str, config: ServerConfig) -> None:
    """Rename, or copy to another file system and remove. Raises `OSError` and `FileRefusedError`."""
    try:
        rename(roots, source, destination)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        return
    with (
        roots.at(source, follow_last=False, use="replace") as old,
        roots.at(destination, follow_last=False, use="replace") as new,
    ):
        before = old.status()
        _check_destination(new, before)
        part = part_name(new.name)
        beside = Place(new.directory, part, posixpath.join(posixpath.dirname(new.path), part), new.asked)
        try:
            if stat.S_ISDIR(before.st_mode):
                copy_tree(roots, old.path, beside.path, config, exact=True)
            elif not copy_one(roots, old, before.st_mode, beside, exact=True):
                raise not_to_copy(old.path)
            if _facts(old.status()) != _facts(before):
                raise FileRefusedError("it has changed while it was copied to another file system")
            os.rename(beside.name, new.name, src_dir_fd=new.directory, dst_dir_fd=new.directory)
        except BaseException:
            with suppress(OSError):
                remove(beside, recursive=True, to_the_end=True)
            raise
        if not os.path.samestat(old.status(), before):  # the copy has just taken its place: two paths lead there
            raise _one_file()
        remove(old, recursive=True, to_the_end=True)


def _check_destination(new: Place, source: os.stat_result) -> None:
    """Raise the error of a rename to what is there."""
    try:
        there = new.status()
    except FileNotFoundError:
        return
    if os.path.samestat(there, source):
        raise _one_file()
    if stat.S_ISDIR(there.st_mode) != stat.S_ISDIR(source.st_mode):
        raise failure(errno.EISDIR if stat.S_ISDIR(there.st_mode) else errno.ENOTDIR)
    if stat.S_ISDIR(there.st_mode):
        with open_directory(new) as directory, os.scandir(directory) as entries:
            if next(entries, None) is not None:
                raise failure(errno.ENOTEMPTY)


def _facts(status: os.stat_result) -> tuple[int, ...]:
    """Return the facts that tell whether something was changed, or replaced."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _one_file() -> FileRefusedError:
    return FileRefusedError("both paths lead to the same file")
