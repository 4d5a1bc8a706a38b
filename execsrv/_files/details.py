"""Facts of files beyond what the Codex exec-server tells, and changes of them: modes, times, sizes, names, links.

These functions block for as long as the file system does, so they run in threads.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from typing import Literal
from urllib.parse import unquote_to_bytes

import trio

from execsrv._files.contents import facts_before, keep_facts, open_file
from execsrv._files.listings import hold_entries, open_directory, too_large
from execsrv._files.roots import Place, Roots, failure
from execsrv._wire.paths import escaped, uri_from_path
from execsrv._wire.quoting import shown
from execsrv.errors import FileRefusedError
from execsrv.limits import ServerConfig
from execsrv.protocol import FileChange, FileStatus, ListedFile
from execsrv.protocol.file_extras import Kept
from execsrv.protocol.files import sendable_time

_CHECK_EVERY = 256
_ENTRY_BYTES = 300
"""Bytes that the facts of a file take in an answer, beside its name."""

Kind = Literal["file", "directory", "symlink", "fifo", "socket", "character-device", "block-device"]

_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character-device",
    stat.S_IFBLK: "block-device",
}


def status(place: Place) -> FileStatus:
    """Return the facts of what is at a place, of a link its own. Raises `OSError`."""
    found = place.status()
    target = os.readlink(place.name, dir_fd=place.directory) if stat.S_ISLNK(found.st_mode) else None
    return FileStatus(
        kind=_KINDS[stat.S_IFMT(found.st_mode)],
        size=found.st_size,
        permissions=stat.S_IMODE(found.st_mode),
        modified_at_ns=sendable_time(found.st_mtime_ns),
        accessed_at_ns=sendable_time(found.st_atime_ns),
        changed_at_ns=sendable_time(found.st_ctime_ns),
        user_id=found.st_uid,
        group_id=found.st_gid,
        inode=found.st_ino,
        device=found.st_dev,
        links=found.st_nlink,
        target=None if target is None else escaped(target),
    )


def list_directory(roots: Roots, place: Place, config: ServerConfig) -> list[ListedFile]:
    """Return all entries that may be read but `.` and `..`, sorted by name.

    Raises `LimitExceededError` for too large a directory.
    """
    found: list[tuple[str, ListedFile]] = []
    size = 0
    with open_directory(place) as directory, os.scandir(directory) as entries:
        for number, entry in enumerate(entries):
            if number % _CHECK_EVERY == 0:
                trio.from_thread.check_cancelled()
            path = posixpath.join(place.path, entry.name)
            if not roots.may(path, "read"):
                continue
            try:
                facts = status(Place(directory, entry.name, path, path))
            except FileNotFoundError:
                continue  # gone meanwhile
            size += 3 * (len(os.fsencode(entry.name)) + len(facts.target or "")) + _ENTRY_BYTES
            if len(found) >= config.directory_entries or size > config.listing_bytes:
                raise too_large("listing_bytes" if size > config.listing_bytes else "directory_entries", config)
            name = shown(entry.name)
            addressed = uri_from_path(path) if os.fsencode(name) != os.fsencode(entry.name) else None
            found.append((entry.name, ListedFile(name, facts, addressed)))
            hold_entries(len(found))
    return [listed for _, listed in sorted(found, key=lambda named: named[0])]


def change(place: Place, params: FileChange) -> None:
    """Set what is given. Raises `OSError`: ELOOP for the mode or size of a link."""
    if params.size is not None:
        descriptor = open_file(place, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, params.size)
        finally:
            os.close(descriptor)
    if params.permissions is None and params.modified_at_ns is None and params.accessed_at_ns is None:
        return
    # Of exactly what is there now, and without opening it: nothing notices, and nothing can be put in between.
    descriptor = os.open(place.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.directory)
    try:
        found = os.fstat(descriptor)
        is_link = stat.S_ISLNK(found.st_mode)
        if is_link and (params.permissions is not None or not params.of_link):
            raise failure(errno.ELOOP)
        if params.permissions is not None:
            os.chmod(f"/proc/self/fd/{descriptor}", params.permissions)
        if params.modified_at_ns is not None or params.accessed_at_ns is not None:
            accessed = found.st_atime_ns if params.accessed_at_ns is None else params.accessed_at_ns
            modified = found.st_mtime_ns if params.modified_at_ns is None else params.modified_at_ns
            if is_link:
                os.utime(place.name, ns=(accessed, modified), dir_fd=place.directory, follow_symlinks=False)
            else:
                os.utime(f"/proc/self/fd/{descriptor}", ns=(accessed, modified))
    except OverflowError:
        raise failure(errno.EINVAL) from None
    finally:
        os.close(descriptor)


def rename(roots: Roots, source: str, destination: str, keep: Kept = "nothing") -> None:
    """Give what is at a path another one, in one step; of a link, the link itself. Raises `OSError`.

    `keep` is what it gets of the file that it takes the place of.
    """
    with (
        roots.at(source, follow_last=False, use="replace") as old,
        roots.at(destination, follow_last=False, use="replace") as new,
    ):
        if "." in (old.name, new.name):
            raise FileRefusedError("this directory holds everything that may be reached; it cannot be renamed")
        if keep != "nothing" and (before := facts_before(new)) is not None:
            descriptor = open_file(old, os.O_WRONLY)
            try:
                keep_facts(descriptor, before, permissions=keep == "all")
            finally:
                os.close(descriptor)
        os.rename(old.name, new.name, src_dir_fd=old.directory, dst_dir_fd=new.directory)


def make_link(place: Place, target: str) -> None:
    """Make a symbolic link, to a target that is percent-escaped. Raises `OSError`, `FileExistsError` among them."""
    to = os.fsdecode(unquote_to_bytes(target))
    if "\0" in to:
        raise failure(errno.EINVAL)
    os.symlink(to, place.name, dir_fd=place.directory)
