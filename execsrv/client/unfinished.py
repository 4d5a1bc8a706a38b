"""Remains of an earlier copy that another one finds: files that are there, and parts that were left where it was cut.

A part is found again by its name, which is made of what it is a copy of. Nothing in it is trusted: it is compared piece
by piece, by SHA-256, and goes on where it differs.
"""

from __future__ import annotations

import errno
import hashlib
import posixpath
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from execsrv._wire.paths import part_name
from execsrv.client.file_info import FileInfo
from execsrv.errors import ConnectionLostError, FileError, LimitExceededError

if TYPE_CHECKING:
    from execsrv.client.local_sources import LocalEntry
    from execsrv.client.remote_changes import RemoteChanges

_KEY_LETTERS = 16


def part_key(*facts: object) -> str:
    """Return the key of a part in its name, made of the facts of what is copied."""
    text = "\0".join(map(repr, facts)).encode(errors="surrogateescape")
    return hashlib.sha256(text).hexdigest()[:_KEY_LETTERS]


async def part_for(path: str, key: str, find: Callable[[str], Awaitable[FileInfo | None]]) -> tuple[str, int]:
    """Return the path of the part of a file on a server, and how many bytes of it are there already.

    It is a new one without a key, and where its name is of something that is no part, and may lead elsewhere.
    """
    folder, name = posixpath.split(path)
    if key:
        part = posixpath.join(folder, part_name(name, key))
        found = await find(part)
        if found is None or (found.is_file and found.links == 1):
            return part, 0 if found is None else found.size
    return posixpath.join(folder, part_name(name)), 0


def is_kept(error: BaseException) -> bool:
    """Return whether a part is left for another time after this error: the line is cut, or nobody waits any longer."""
    return isinstance(error, ConnectionLostError) or not isinstance(error, Exception)


def is_taken(error: BaseException) -> bool:
    """Return whether another copy has the part."""
    return isinstance(error, FileError) and error.errno == errno.EAGAIN


def is_same(found: FileInfo | None, size: int, modified_ns: int, permissions: int) -> bool:
    """Return whether a file is there already, as far as size, time and mode tell."""
    return (
        found is not None
        and found.is_file
        and (found.size, found.modified_ns, found.mode & 0o7777) == (size, modified_ns, permissions)
    )


async def entries_there(
    remote: RemoteChanges, directory: str, entries: Iterable[LocalEntry]
) -> Mapping[str, FileInfo | None]:
    """Return what a directory of the server has under the names of some entries.

    One with more entries than a server lists is asked for each of them.
    """
    try:
        return {found.name: found for found in await remote.list(directory)}
    except LimitExceededError:
        paths = {entry.name: posixpath.join(directory, entry.name) for entry in entries}
        return {name: await remote.find(path) for name, path in paths.items()}
