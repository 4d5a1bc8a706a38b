"""Creating, removing and copying, of single entries and of whole trees.

However deep or wide a tree is, memory and open descriptors stay bounded. A change that others make meanwhile leads to
an error at worst.

These functions block for as long as the file system does, so they run in threads. A long one stops, half done, when
the task that wants it is cancelled.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from contextlib import suppress
from itertools import islice

import trio

from execsrv._files.contents import copy_file
from execsrv._files.kept import keep_all, permissions_of, set_permissions
from execsrv._files.listings import open_directory
from execsrv._files.roots import DIRECTORY, Place, Roots, failure, is_directory
from execsrv._wire.paths import part_name
from execsrv._wire.quoting import shown
from execsrv.errors import FileRefusedError, LimitExceededError
from execsrv.limits import ServerConfig

_BATCH = 100


def create_directory(
    roots: Roots, path: str, *, recursive: bool = True, follow: bool = True, permissions: int = 0o777
) -> bool:
    """Make a directory, and return whether it is new. With `recursive`, make its parents too, and accept one."""
    with roots.at(path, follow=follow, follow_last=False, make=recursive) as place:
        try:
            _make_directory(roots, place, permissions)
        except FileExistsError:
            if not recursive:
                raise
        else:
            return True
        if not follow:
            if not is_directory(place):
                raise failure(errno.ENOTDIR if stat.S_ISLNK(place.status().st_mode) else errno.EEXIST)
            return False
    try:
        with roots.at(path) as place:
            if is_directory(place):
                return False
    except FileNotFoundError:
        pass  # a link that leads nowhere
    raise failure(errno.EEXIST)


def _make_directory(roots: Roots, place: Place, permissions: int) -> None:
    """Make a directory at a place. Raises `FileExistsError` before the rules are asked, as the system does it."""
    try:
        place.status()
    except FileNotFoundError:
        roots.check(place.path, "write")
        os.mkdir(place.name, permissions, dir_fd=place.directory)
    else:
        raise failure(errno.EEXIST)


# -- remove --


def remove(place: Place, *, recursive: bool, no_links: bool = False, to_the_end: bool = False) -> None:
    """Remove what is there; of a link, the link itself. Raises `FileNotFoundError` and other `OSError`.

    `to_the_end` it goes on though the task that wanted it is cancelled.
    """
    if place.name == ".":
        raise FileRefusedError("this directory holds everything that may be reached; it cannot be removed")
    mode = place.status().st_mode
    if no_links and stat.S_ISLNK(mode):
        raise FileRefusedError("path contains a symbolic link")
    if not stat.S_ISDIR(mode):
        os.unlink(place.name, dir_fd=place.directory)
    elif recursive:
        _remove_tree(place, to_the_end)
    else:
        os.rmdir(place.name, dir_fd=place.directory)


def _remove_tree(place: Place, to_the_end: bool) -> None:
    """Remove a directory and what is in it.

    One descriptor goes down and up again. Each way up is checked: a directory that was moved meanwhile must not lead
    out of the tree, so that is an error (ESTALE).
    """
    here = os.open(".", DIRECTORY, dir_fd=place.directory)
    above: list[tuple[str, os.stat_result]] = []  # the name of each directory on the way down, and what it is in

    def go(name: str, flags: int = 0) -> None:
        nonlocal here
        there = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | flags, dir_fd=here)
        os.close(here)
        here = there

    def down(name: str) -> None:
        above.append((name, os.fstat(here)))
        go(name, os.O_NOFOLLOW)

    try:
        down(place.name)
        while above:
            if not to_the_end:
                trio.from_thread.check_cancelled()
            with os.scandir(here) as entries:
                names = [entry.name for entry in islice(entries, _BATCH)]
            full = next((name for name in names if not _removed(here, name)), None)
            if full is not None:
                down(full)
            elif not names:
                name, parent = above.pop()
                go("..")
                if not os.path.samestat(os.fstat(here), parent):
                    raise failure(errno.ESTALE)
                os.rmdir(name, dir_fd=here)
    finally:
        os.close(here)


def _removed(directory: int, name: str) -> bool:
    """Remove one entry. Return False for a directory that is not empty."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return True  # somebody else was quicker
    except IsADirectoryError as error:
        try:
            os.rmdir(name, dir_fd=directory)
        except NotADirectoryError:
            raise error from None
        except OSError as other:
            if other.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
    return True


# -- copy --


def copy(roots: Roots, source: str, destination: str, *, recursive: bool, config: ServerConfig) -> None:
    """Copy a file with its permissions, a link as a link, or, with `recursive`, a directory into what is there.

    In a directory, entries of any other kind are left out. The first error ends the copy; it leaves what was copied by
    then.
    """
    with roots.at(source, follow_last=False) as place:
        mode = place.status().st_mode
        if stat.S_ISDIR(mode):
            if not recursive:
                raise FileRefusedError("fs/copy requires recursive: true when sourcePath is a directory")
            copy_tree(roots, place.path, destination, config)
        else:
            with roots.at(destination, follow_last=False, use="write") as target:
                if not copy_one(roots, place, mode, target):
                    raise FileRefusedError("fs/copy only supports regular files, directories, and symlinks")


def copy_one(roots: Roots, source: Place, mode: int, destination: Place, *, exact: bool = False) -> bool:
    """Copy a file or a link, and return whether it is one of these. A link at a file's destination is followed.

    With `exact`, the copy is new, and gets all that its source has.
    """
    if stat.S_ISREG(mode):
        try:
            copy_file(source, destination, exact=exact)
        except OSError as error:
            if error.errno != errno.ELOOP or exact:
                raise
            with roots.at(destination.path, use="write") as place:
                copy_file(source, place)
    elif stat.S_ISLNK(mode):
        _copy_link(roots, source, destination, exact)
    else:
        return False
    return True


def _copy_link(roots: Roots, source: Place, destination: Place, exact: bool) -> None:
    """Make the same link, in place of the file or link that may be there."""
    with suppress(FileNotFoundError):
        if stat.S_IFMT(destination.status().st_mode) not in (stat.S_IFREG, stat.S_IFLNK):
            raise failure(errno.EEXIST)
        roots.check(destination.path, "replace")
    before = source.status()
    target = os.readlink(source.name, dir_fd=source.directory)
    part, folder = part_name(destination.name), destination.directory
    os.symlink(target, part, dir_fd=folder)
    try:
        if exact:
            with suppress(OSError):
                os.chown(part, before.st_uid, before.st_gid, dir_fd=folder, follow_symlinks=False)
            os.utime(part, ns=(before.st_atime_ns, before.st_mtime_ns), dir_fd=folder, follow_symlinks=False)
        os.rename(part, destination.name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(part, dir_fd=folder)
        raise


def copy_tree(roots: Roots, source: str, destination: str, config: ServerConfig, *, exact: bool = False) -> None:
    """Copy a directory, at a path without links, into what is there, or makes it: nobody else gets into it before.

    With `exact`, it is new, nothing is left out, and all get what their source has.
    """
    if posixpath.join(_would_be(roots, destination), "").startswith(posixpath.join(source, "")):
        raise _into_itself()
    waiting: list[tuple[str, str, os.stat_result | None]] = [(source, destination, None)]
    top: os.stat_result | None = None
    while waiting:
        from_path, to_path, full = waiting.pop()
        with roots.at(from_path, follow=False) as place, open_directory(place) as directory:
            permissions = permissions_of(directory)
            # Where we may not write, we may only once it is full.
            is_new = full is None and create_directory(roots, to_path, permissions=permissions.bits | stat.S_IRWXU)
            with roots.at(to_path, follow=full is None) as made, open_directory(made) as target:
                there = os.fstat(target)
                if full is not None:
                    if os.path.samestat(there, full):
                        _finish_directory(directory, target, exact)
                    continue
                top = top or there
                if os.path.samestat(os.fstat(directory), top):
                    if exact:
                        raise _into_itself()
                    continue  # the copy itself, by another way
                if is_new:
                    waiting.append((place.path, made.path, there))
                with os.scandir(directory) as entries:
                    for entry in entries:
                        trio.from_thread.check_cancelled()
                        source = posixpath.join(place.path, entry.name)
                        destination = posixpath.join(made.path, entry.name)
                        child = Place(directory, entry.name, source, source)
                        mode = child.status().st_mode
                        if not stat.S_ISDIR(mode):
                            roots.check(source, "read")
                            roots.check(destination, "write")
                            to = Place(target, entry.name, destination, destination)
                            if not copy_one(roots, child, mode, to, exact=exact) and exact:
                                raise not_to_copy(source)
                        elif len(waiting) >= config.directory_entries:
                            bound = config.directory_entries
                            message = f"the tree is too wide to copy: directory_entries ({bound}) would be exceeded"
                            raise LimitExceededError(message, limit="directory_entries", value=bound)
                        else:
                            waiting.append((source, destination, None))


def _finish_directory(source: int, made: int, exact: bool) -> None:
    """Give a directory that is full what its source has: the permissions, or all."""
    if exact:
        keep_all(made, source)
    else:
        permissions = permissions_of(source)
        inherited = os.fstat(made).st_mode & 0o7000
        set_permissions(made, permissions._replace(bits=permissions.bits | inherited))


def _into_itself() -> FileRefusedError:
    return FileRefusedError("fs/copy cannot copy a directory to itself or one of its descendants")


def not_to_copy(path: str) -> FileRefusedError:
    """Return the error for what cannot be moved to another file system."""
    return FileRefusedError(f"`{shown(path)}` is no file, directory or link: it cannot go to another file system")


def _would_be(roots: Roots, path: str) -> str:
    """Return a path without links in it, of an entry that may not exist yet."""
    missing: list[str] = []
    path = posixpath.normpath(path)
    while True:
        try:
            with roots.at(path) as place:
                return posixpath.join(place.path, *reversed(missing))
        except FileNotFoundError:
            path, name = posixpath.split(path)
            missing.append(name)
