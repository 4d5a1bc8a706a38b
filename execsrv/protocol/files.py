"""`fs/*`: the files of the server's machine."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from execsrv.protocol.bounds import Id, Offset, PathText, PathTexts, Whole
from execsrv.protocol.messages import Told, Wire
from execsrv.protocol.sandbox import Sandbox


class FileCall(Wire, frozen=True, kw_only=True):
    """The base of calls that name a path. `sandbox` is a policy that the call keeps, as a command would."""

    sandbox: Sandbox | None = None


class FilePath(FileCall, frozen=True):
    """Names a file: an absolute path or a `file:` URI. Without `follow_symlinks` no link is walked on the way."""

    path: PathText
    follow_symlinks: bool | None = None


class FileData(Wire, frozen=True):
    """A whole file."""

    data_base64: bytes


Permissions = Annotated[int, Meta(ge=0, le=0o7777)]
"""The mode of a file as chmod(2) takes it."""

Nanoseconds = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""A time since the epoch, until the year 2262. A later one, which a file can have, is sent as the last of these."""


def sendable_time(nanoseconds: int) -> int:
    """Return the time of a file as `Nanoseconds` has it."""
    return min(max(nanoseconds, -(2**63)), 2**63 - 1)


class FileWrite(FilePath, frozen=True, kw_only=True):
    """Make a file, or replace what is in it. Its directory must exist.

    With `atomic`, another file with that content takes its place, or nothing changes at all. `permissions` are then
    exact; without them the file keeps its own.
    """

    data_base64: bytes
    atomic: bool = False
    permissions: Permissions | None = None
    modified_at_ns: Nanoseconds | None = None


class DirectoryCreate(FilePath, frozen=True, kw_only=True):
    """Make a directory, with `permissions`; unless `recursive` is false, its parents too, and it may exist."""

    recursive: bool | None = None
    permissions: Permissions | None = None


class FileMetadata(Wire, frozen=True):
    """Of what a path leads to; `is_symlink` is about the path itself. A `created_at_ms` of 0 is not known."""

    is_directory: bool
    is_file: bool
    is_symlink: bool
    size: int
    created_at_ms: int
    modified_at_ms: int


class CanonicalPath(Wire, frozen=True):
    """A path without links, as a URI."""

    path: str


class DirectoryEntry(Wire, frozen=True, omit_defaults=True, gc=False):
    """A name in a directory, and what it leads to; a link that leads nowhere is neither.

    A name that is not UTF-8 has U+FFFD in `file_name`, and `path` is then the URI to use.
    """

    file_name: str
    is_directory: bool
    is_file: bool
    is_symlink: bool
    path: str | None = None


class DirectoryListing(Wire, frozen=True):
    """A directory, sorted by name."""

    entries: list[DirectoryEntry]


class WalkOptions(Wire, frozen=True):
    """The limits of a walk. Depth 0 lists the directory itself."""

    max_depth: Whole
    max_directories: Whole
    max_entries: Whole
    follow_directory_symlinks: bool
    prune_hidden_directories: bool | None = None


class FileWalk(FileCall, frozen=True, kw_only=True):
    """List a tree, breadth first."""

    path: PathText
    options: WalkOptions


class WalkEntry(Struct, frozen=True, gc=False):
    """A URI that a walk has found."""

    path: str
    kind: Told[Literal["file", "directory"]]


class WalkError(Struct, frozen=True, gc=False):
    """A directory that a walk could not read."""

    path: str
    message: str


class Walked(Wire, frozen=True):
    """The result of a walk; `truncated` when one of its limits ended it."""

    entries: list[WalkEntry]
    errors: list[WalkError]
    truncated: bool


class FileRemove(FilePath, frozen=True, kw_only=True):
    """Remove a file, a link or a directory: by default the whole tree, and it is no error if nothing is there."""

    recursive: bool | None = None
    force: bool | None = None


class FileCopy(FileCall, frozen=True, kw_only=True):
    """Copy a file, a link as a link, or a tree, which is merged into what is there."""

    source_path: PathText
    destination_path: PathText
    recursive: bool


OpenMode = Literal["read", "replace", "update", "append", "create"]
"""What a file is opened for."""


class FileOpen(FilePath, frozen=True, kw_only=True):
    """Open a file for blocks under an id of the client's choice.

    `replace` makes or empties it at once, `update` takes it as it is, for reading too, `append` writes behind its end,
    and `create` makes one that did not exist. `update` and `append` make one that is missing, with `permissions`.
    A file that is open `alone` is opened so by nobody else.
    """

    handle_id: Id
    mode: OpenMode | None = None
    permissions: Permissions | None = None
    alone: bool = False


class FileHandle(Wire, frozen=True):
    """Names an open file of this channel."""

    handle_id: Id


class BlockRead(FileHandle, frozen=True):
    """Read up to `len` bytes at `offset`."""

    offset: Offset
    len: Offset


class Block(Wire, frozen=True):
    """A piece of a file; `eof` when it is shorter than what was asked for."""

    chunk: bytes
    eof: bool


class BlockWrite(FileHandle, frozen=True):
    """Write at `offset`; what lies between it and the end of the file becomes a hole."""

    offset: Offset
    chunk: bytes


class WatchMissing(FileCall, frozen=True, kw_only=True):
    """Tell, once, when one of `missing` may have come into being, or `present` may have changed. A greater id than
    any before replaces the watch before."""

    watch_id: Whole
    missing: PathTexts
    present: PathText | None = None


class Watching(Wire, frozen=True):
    """The answer to a watch. Where `watching` is false, the client has to look for itself."""

    watching: bool


class MissingChanged(Wire, frozen=True):
    """<- look again: what `fs/watchMissing` asked about may have changed. That watch is over."""

    watch_id: int
