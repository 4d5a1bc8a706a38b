"""Facts of files on the server's machine."""

from __future__ import annotations

import os
import posixpath
from typing import Literal
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from execsrv.errors import BadAnswerError
from execsrv.protocol import FileStatus


class FileInfo(Struct, frozen=True, kw_only=True):
    """The facts of a file at one moment. `path` is absolute; `target` is where a link leads, as it is written in it.

    `mode` is what chmod(2) takes; times are in nanoseconds since the epoch.
    """

    path: str
    kind: Literal["file", "directory", "symlink", "fifo", "socket", "character-device", "block-device"]
    size: int
    mode: int
    modified_ns: int
    accessed_ns: int
    changed_ns: int
    user_id: int
    group_id: int
    inode: int
    device: int
    links: int
    target: str | None = None

    @property
    def name(self) -> str:
        """Last part of the path."""
        return posixpath.basename(self.path)

    @property
    def modified(self) -> float:
        """Time of the last change of the content, in seconds since the epoch."""
        return self.modified_ns / 1e9

    @property
    def is_file(self) -> bool:
        """True for a regular file."""
        return self.kind == "file"

    @property
    def is_directory(self) -> bool:
        """True for a directory."""
        return self.kind == "directory"

    @property
    def is_symlink(self) -> bool:
        """True for a link that was not followed."""
        return self.kind == "symlink"


_MOST_NS = 2**63 - 1
"""The latest time that a system keeps of a file."""


def info(method: str, path: str, status: FileStatus) -> FileInfo:
    """Return the facts that a server has answered. Raises `BadAnswerError` for those that no file here could have."""
    target = None if status.target is None else unquote_to_bytes(status.target)
    times = status.modified_at_ns, status.accessed_at_ns, status.changed_at_ns
    if not 0 <= status.permissions <= 0o7777 or max(map(abs, times)) > _MOST_NS or b"\0" in (target or b""):
        raise BadAnswerError(method, f"these are no facts of a file: {path!r}")
    return FileInfo(
        path=path,
        kind=status.kind,
        size=status.size,
        mode=status.permissions,
        modified_ns=status.modified_at_ns,
        accessed_ns=status.accessed_at_ns,
        changed_ns=status.changed_at_ns,
        user_id=status.user_id,
        group_id=status.group_id,
        inode=status.inode,
        device=status.device,
        links=status.links,
        target=None if target is None else os.fsdecode(target),
    )
