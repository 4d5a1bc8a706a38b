"""`fs/*`: the files of the server's machine."""

from __future__ import annotations

from execsrv._server.methods.table import Caller, Later, handles, handles_later
from execsrv.protocol import (
    Block,
    BlockChecksum,
    BlockRead,
    BlockWrite,
    CanonicalPath,
    Checksum,
    DirectoryCreate,
    DirectoryListing,
    FileAppend,
    FileChange,
    FileCopy,
    FileData,
    FileHandle,
    FileList,
    FileMetadata,
    FileOpen,
    FilePath,
    FileRemove,
    FileRename,
    FileStat,
    FileStatus,
    FileWalk,
    FileWrite,
    LinkCreate,
    Nothing,
    TreeChanges,
    TreeWatch,
    Walked,
    WatchId,
    Watching,
    WatchMissing,
)


@handles_later("fs/readFile")
def read_file(caller: Caller, params: FilePath) -> Later[FileData]:
    return caller.files().read_file(params)


@handles_later("fs/writeFile")
def write_file(caller: Caller, params: FileWrite) -> Later[Nothing]:
    return caller.files().write_file(params)


@handles_later("fs/createDirectory")
def create_directory(caller: Caller, params: DirectoryCreate) -> Later[Nothing]:
    return caller.files().create_directory(params)


@handles_later("fs/getMetadata")
def get_metadata(caller: Caller, params: FilePath) -> Later[FileMetadata]:
    return caller.files().get_metadata(params)


@handles_later("fs/canonicalize")
def canonicalize(caller: Caller, params: FilePath) -> Later[CanonicalPath]:
    return caller.files().canonicalize(params)


@handles_later("fs/readDirectory")
def read_directory(caller: Caller, params: FilePath) -> Later[DirectoryListing]:
    return caller.files().read_directory(params)


@handles_later("fs/walk")
def walk(caller: Caller, params: FileWalk) -> Later[Walked]:
    return caller.files().walk(params)


@handles_later("fs/remove")
def remove(caller: Caller, params: FileRemove) -> Later[Nothing]:
    return caller.files().remove(params)


@handles_later("fs/copy")
def copy(caller: Caller, params: FileCopy) -> Later[Nothing]:
    return caller.files().copy(params)


@handles_later("fs/open")
def open_file(caller: Caller, params: FileOpen) -> Later[FileHandle]:
    return caller.files().blocks.open(params)


@handles_later("fs/readBlock")
def read_block(caller: Caller, params: BlockRead) -> Later[Block]:
    return caller.files().blocks.read_block(params)


@handles_later("fs/writeBlock")
def write_block(caller: Caller, params: BlockWrite) -> Later[Nothing]:
    return caller.files().blocks.write_block(params)


@handles_later("fs/close")
def close_file(caller: Caller, params: FileHandle) -> Later[Nothing]:
    return caller.files().blocks.close(params)


@handles_later("fs/watchMissing")
def watch_missing(caller: Caller, params: WatchMissing) -> Later[Watching]:
    return caller.files().watches.watch_missing(params)


@handles_later("fs/append")
def append(caller: Caller, params: FileAppend) -> Later[Nothing]:
    return caller.files().append(params)


@handles_later("fs/stat")
def stat(caller: Caller, params: FileStat) -> Later[FileStatus]:
    return caller.files().stat(params)


@handles_later("fs/list")
def list_directory(caller: Caller, params: FilePath) -> Later[FileList]:
    return caller.files().list(params)


@handles_later("fs/change")
def change(caller: Caller, params: FileChange) -> Later[Nothing]:
    return caller.files().change(params)


@handles_later("fs/rename")
def rename(caller: Caller, params: FileRename) -> Later[Nothing]:
    return caller.files().rename(params)


@handles_later("fs/symlink")
def symlink(caller: Caller, params: LinkCreate) -> Later[Nothing]:
    return caller.files().symlink(params)


@handles_later("fs/checksum")
def checksum(caller: Caller, params: BlockChecksum) -> Later[Checksum]:
    return caller.files().blocks.checksum(params)


@handles_later("fs/watch")
def watch(caller: Caller, params: TreeWatch) -> Later[Nothing]:
    return caller.files().tree_watches.watch(params)


@handles_later("fs/readChanges")
def read_changes(caller: Caller, params: WatchId) -> Later[TreeChanges]:
    return caller.files().tree_watches.read(params)


@handles("fs/unwatch")
def unwatch(caller: Caller, params: WatchId) -> Nothing:
    return caller.files().tree_watches.unwatch(params)
