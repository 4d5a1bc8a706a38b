"""`fs/*` that the Codex exec-server does not have: facts and changes of files, checksums, and watching a tree."""

from __future__ import annotations

from typing import Literal

from execsrv.protocol.bounds import Id, Offset, PathText
from execsrv.protocol.files import FileCall, FileHandle, FilePath, Nanoseconds, Permissions
from execsrv.protocol.messages import Told, Wire


class FileAppend(FilePath, frozen=True, kw_only=True):
    """Append to a file, wherever its end is at this moment; it is made if it is missing.

    Without data, its time is set to the present.
    """

    data_base64: bytes


class FileStatus(Wire, frozen=True, omit_defaults=True, kw_only=True):
    """The facts of a file. `target` is where a link leads, percent-escaped as in a URI."""

    kind: Told[Literal["file", "directory", "symlink", "fifo", "socket", "character-device", "block-device"]]
    size: int
    permissions: int
    modified_at_ns: int
    accessed_at_ns: int
    changed_at_ns: int
    user_id: int
    group_id: int
    inode: int
    device: int
    links: int
    target: str | None = None


class FileStat(FilePath, frozen=True, kw_only=True):
    """Ask for the facts of what a path leads to, or of a link itself with `of_link`."""

    of_link: bool = False


class ListedFile(Wire, frozen=True, omit_defaults=True):
    """A name in a directory, and the facts of what has it, of a link its own.

    A name that is not UTF-8 has U+FFFD in `file_name`, and `path` is then the URI to use.
    """

    file_name: str
    status: FileStatus
    path: str | None = None


class FileList(Wire, frozen=True):
    """A directory, sorted by name."""

    entries: list[ListedFile]


class FileChange(FilePath, frozen=True, kw_only=True):
    """Set what is given of a file: its permissions, its times, its size."""

    permissions: Permissions | None = None
    modified_at_ns: Nanoseconds | None = None
    accessed_at_ns: Nanoseconds | None = None
    size: Offset | None = None
    of_link: bool = False


Kept = Literal["nothing", "owner", "all"]
"""What a file gets of the one that it takes the place of."""


class FileRename(FileCall, frozen=True, kw_only=True):
    """Give what is at a path another one, in one step, in place of the file or empty directory that may be there.

    With `across`, what is to go to another file system is copied there with all that it has, and then removed. With
    `keep`, a file gets the owner, or the owner and the permissions, of the one that it takes the place of.
    """

    source_path: PathText
    destination_path: PathText
    across: bool = False
    keep: Kept = "nothing"


class LinkCreate(FilePath, frozen=True, kw_only=True):
    """Make a symbolic link at a path. `target`, percent-escaped as in a URI, may be anything."""

    target: PathText


class BlockChecksum(FileHandle, frozen=True):
    """Ask for the SHA-256 of `len` bytes at `offset`, or of those that are there."""

    offset: Offset
    len: Offset


class Checksum(Wire, frozen=True):
    """A SHA-256 in hexadecimal, and the number of bytes that it is of."""

    sha256: str
    len: int


class TreeWatch(FileCall, frozen=True, kw_only=True):
    """Note changes in a directory, and with `recursive` in all below it, until `fs/unwatch`."""

    watch_id: Id
    path: PathText
    recursive: bool = False


class WatchId(Wire, frozen=True):
    """Names a watch of this channel."""

    watch_id: Id


class TreeChange(Wire, frozen=True):
    """A change of the entry at `path`, a URI."""

    kind: Told[Literal["created", "changed", "removed"]]
    path: str


class TreeChanges(Wire, frozen=True):
    """Changes in the order in which they came. `lost`: there were others too, so look at the whole tree again."""

    changes: list[TreeChange]
    lost: bool = False
