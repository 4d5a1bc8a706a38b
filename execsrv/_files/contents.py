"""Contents of regular files, whole or in blocks. Nothing else is opened: it could block for ever, or act on it.

These functions block for as long as the file system does, so they run in threads. A long copy stops when the task that
wants it is cancelled.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import suppress

import trio

from execsrv._files.holding import FREE_BYTES, hold, note_written
from execsrv._files.kept import (
    Permissions,
    keep_all,
    keep_owner,
    keep_permissions,
    permissions_of,
    set_permissions,
)
from execsrv._files.procfs import check_step
from execsrv._files.roots import Place, failure
from execsrv._wire.paths import part_name
from execsrv._wire.quoting import shown
from execsrv.errors import FileRefusedError

PIECE_BYTES = 1024 * 1024


def open_file(place: Place, flags: int, mode: int = 0o666) -> int:
    """Open the regular file at a place, or make it if the flags say so, and return its descriptor. Empties nothing.

    The file is looked at before, so that no fifo or device notices, and after, since it may have been replaced.
    Raises `FileRefusedError` for any other kind of file, and `OSError`: EISDIR for writing to a directory.
    """
    check_step(place.directory, place.name, None)
    try:
        _require_file(place, place.status().st_mode, flags)
    except FileNotFoundError:
        pass  # the flags say what that means
    descriptor = place.open(flags, mode)
    try:
        _require_file(place, os.fstat(descriptor).st_mode, flags)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_file(place: Place, mode: int, flags: int) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISLNK(mode):
        raise failure(errno.ELOOP)
    if stat.S_ISDIR(mode) and flags & os.O_ACCMODE:
        raise failure(errno.EISDIR)
    raise FileRefusedError(f"path `{shown(place.asked)}` is not a file")


def read_file(place: Place, most: int) -> bytes | None:
    """Return the content of a file, or None for more than `most` bytes. A size of 0 may be untrue, as in /proc."""
    descriptor = open_file(place, os.O_RDONLY)
    try:
        if (size := os.fstat(descriptor).st_size) > most:
            return None
        hold(2 * (size - FREE_BYTES))  # it is copied once
        size = max(size, FREE_BYTES)
        pieces: list[bytes] = []
        done = 0
        # All at once, where the size is true: to join pieces would hold up every other thread.
        while piece := os.read(descriptor, min(max(size - done, PIECE_BYTES), most + 1 - done)):
            pieces.append(piece)
            done += len(piece)
            if done > most:
                return None
            if done > size:
                hold(2 * PIECE_BYTES)
                size = done + PIECE_BYTES
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    finally:
        os.close(descriptor)


def write_file(place: Place, data: bytes) -> None:
    """Make a file with this content, or replace the content in place. A failure leaves a part of it."""
    descriptor = replace_file(place)
    try:
        write_at(descriptor, data, 0)
    finally:
        os.close(descriptor)


def append_file(place: Place, data: bytes) -> None:
    """Write behind the end of a file, or make it. A failure leaves a part of the data. Without data it is touched."""
    descriptor = open_file(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        write_at(descriptor, data, 0)
        if not data:
            os.utime(descriptor)  # to "now", which whoever may write may set
    finally:
        os.close(descriptor)


def put_file(place: Place, data: bytes, permissions: int | None, modified_at_ns: int | None) -> None:
    """Put a new file with this content at a place, whole or not at all.

    It is written beside and renamed. Without `permissions` it has those of the file that was there, but runs as nobody
    else, or the usual ones; its owner stays where the system lets us give files away.
    """
    before = facts_before(place)
    beside = Place(place.directory, part_name(place.name), place.path, place.asked)
    is_usual = permissions is None and before is None
    descriptor = beside.open(os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if is_usual else 0o600)
    try:
        try:
            write_at(descriptor, data, 0)
            if before is not None:
                keep_facts(descriptor, before, permissions=permissions is None)
            if permissions is not None:
                os.fchmod(descriptor, permissions)
            if modified_at_ns is not None:
                os.utime(descriptor, ns=(modified_at_ns, modified_at_ns))
        finally:
            os.close(descriptor)
        os.rename(beside.name, place.name, src_dir_fd=place.directory, dst_dir_fd=place.directory)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(beside.name, dir_fd=place.directory)
        if isinstance(error, OverflowError):
            raise failure(errno.EINVAL) from None
        raise


def facts_before(place: Place) -> tuple[os.stat_result, Permissions] | None:
    """Return the facts of the file that another one is to replace, None where nothing is there."""
    try:
        descriptor = place.open(os.O_PATH)
    except FileNotFoundError:
        return None
    try:
        before = os.fstat(descriptor)
        _require_file(place, before.st_mode, os.O_WRONLY)
        return before, permissions_of(descriptor)
    finally:
        os.close(descriptor)


def keep_facts(descriptor: int, before: tuple[os.stat_result, Permissions], *, permissions: bool) -> None:
    """Give an open file the owner of the one that it is to replace, and its permissions."""
    owner, kept = before
    if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
        keep_owner(descriptor, owner)
    if permissions:
        keep_permissions(descriptor, kept)


def checksum(descriptor: int, offset: int, size: int) -> tuple[str, int]:
    """Return the SHA-256 of up to `size` bytes at an offset, in hexadecimal, and the number of bytes that it is of."""
    sha256 = hashlib.sha256()
    done = 0
    while piece := os.pread(descriptor, min(PIECE_BYTES, size - done), offset + done):
        trio.from_thread.check_cancelled()
        sha256.update(piece)
        done += len(piece)
    return sha256.hexdigest(), done


def replace_file(place: Place, mode: int = 0o666) -> int:
    """Make or empty a file, and return a descriptor for writing to it."""
    descriptor = open_file(place, os.O_WRONLY | os.O_CREAT, mode)
    try:
        os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_at(descriptor: int, data: bytes, offset: int) -> None:
    """Write all the data at an offset, in bytes."""
    with memoryview(data) as left:
        written = 0
        while written < len(left):
            written += os.pwrite(descriptor, left[written:], offset + written)


def copy_file(source: Place, destination: Place, *, exact: bool = False) -> None:
    """Copy content and permissions of a file; with `exact`, all that it has. A copy onto the file changes nothing.

    The copy belongs to us, so it does not run with its owner's rights as the file may have done.
    """
    reader = open_file(source, os.O_RDONLY)
    try:
        writer = open_file(destination, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            if os.path.samestat(os.fstat(reader), os.fstat(writer)):
                return
            if not exact:
                set_permissions(writer, permissions_of(reader))  # before the content is there for others to read
            os.ftruncate(writer, 0)
            offset = 0
            while piece := os.read(reader, PIECE_BYTES):
                trio.from_thread.check_cancelled()
                note_written(len(piece))
                write_at(writer, piece, offset)
                offset += len(piece)
            if exact:
                keep_all(writer, reader)
        finally:
            os.close(writer)
    finally:
        os.close(reader)
