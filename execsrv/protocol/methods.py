"""The tables: each method with its parameters and its result, and each notification of the server."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from execsrv.protocol.command import Accepted, CommandExec, CommandExited, CommandId, CommandOutputDelta, CommandWrite
from execsrv.protocol.connection import Initialize, Initialized
from execsrv.protocol.file_extras import (
    BlockChecksum,
    Checksum,
    FileAppend,
    FileChange,
    FileList,
    FileRename,
    FileStat,
    FileStatus,
    LinkCreate,
    TreeChanges,
    TreeWatch,
    WatchId,
)
from execsrv.protocol.files import (
    Block,
    BlockRead,
    BlockWrite,
    CanonicalPath,
    DirectoryCreate,
    DirectoryListing,
    FileCopy,
    FileData,
    FileHandle,
    FileMetadata,
    FileOpen,
    FilePath,
    FileRemove,
    FileWalk,
    FileWrite,
    MissingChanged,
    Walked,
    Watching,
    WatchMissing,
)
from execsrv.protocol.host import (
    CapabilitiesDiscover,
    CapabilitiesFound,
    CapabilityRootsDiscover,
    CapabilityRootsFound,
    EnvironmentConfig,
    EnvironmentConfigRead,
    EnvironmentInfo,
    EnvironmentStatus,
    Unit,
)
from execsrv.protocol.http import HttpBodyDelta, HttpBodyPiece, HttpRequest, HttpRequestId, HttpResponse
from execsrv.protocol.messages import Nothing
from execsrv.protocol.output import (
    ProcessClosed,
    ProcessExited,
    ProcessGap,
    ProcessOutput,
)
from execsrv.protocol.process import (
    ProcessAck,
    ProcessId,
    ProcessList,
    ProcessOutputRead,
    ProcessRead,
    ProcessResize,
    ProcessSignal,
    ProcessSignaled,
    ProcessSnapshot,
    ProcessStart,
    ProcessStarted,
    ProcessTerminate,
    ProcessWait,
    ProcessWaited,
    ProcessWrite,
    ProcessWritten,
    Running,
)
from execsrv.protocol.waiting import ProcessHappened, ProcessWaitFor


class Method(NamedTuple):
    """One method: what it takes and gives, and the family that handshake errors name (None: the handshake itself)."""

    params: type[Struct]
    result: type[Struct]
    family: str | None = "exec"


METHODS: dict[str, Method] = {
    "initialize": Method(Initialize, Initialized, family=None),
    "process/start": Method(ProcessStart, ProcessStarted),
    "process/write": Method(ProcessWrite, ProcessWritten),
    "process/closeStdin": Method(ProcessId, Nothing),
    "process/read": Method(ProcessRead, ProcessOutputRead),
    "process/ack": Method(ProcessAck, Nothing),
    "process/resize": Method(ProcessResize, Nothing),
    "process/signal": Method(ProcessSignal, ProcessSignaled),
    "process/terminate": Method(ProcessTerminate, Running),
    "process/wait": Method(ProcessWait, ProcessWaited),
    "process/waitFor": Method(ProcessWaitFor, ProcessHappened),
    "process/snapshot": Method(ProcessId, ProcessSnapshot),
    "process/list": Method(Nothing, ProcessList),
    "command/exec": Method(CommandExec, CommandId),
    "command/exec/write": Method(CommandWrite, Accepted),
    "command/exec/terminate": Method(CommandId, Running),
    "http/request": Method(HttpRequest, HttpResponse, "http"),
    "http/read": Method(HttpRequestId, HttpBodyPiece, "http"),
    "http/close": Method(HttpRequestId, Nothing, "http"),
    "environment/info": Method(Unit, EnvironmentInfo, "environment info"),
    "environment/status": Method(Unit, EnvironmentStatus, "environment status"),
    "environmentConfig/read": Method(EnvironmentConfigRead, EnvironmentConfig, "environment config"),
    "capabilityRoots/discoverV1": Method(CapabilityRootsDiscover, CapabilityRootsFound, "capability discovery"),
    "capabilities/discoverV2": Method(CapabilitiesDiscover, CapabilitiesFound, "capability discovery"),
    "fs/readFile": Method(FilePath, FileData, "filesystem"),
    "fs/writeFile": Method(FileWrite, Nothing, "filesystem"),
    "fs/createDirectory": Method(DirectoryCreate, Nothing, "filesystem"),
    "fs/getMetadata": Method(FilePath, FileMetadata, "filesystem"),
    "fs/canonicalize": Method(FilePath, CanonicalPath, "filesystem"),
    "fs/readDirectory": Method(FilePath, DirectoryListing, "filesystem"),
    "fs/walk": Method(FileWalk, Walked, "filesystem"),
    "fs/remove": Method(FileRemove, Nothing, "filesystem"),
    "fs/copy": Method(FileCopy, Nothing, "filesystem"),
    "fs/open": Method(FileOpen, FileHandle, "filesystem"),
    "fs/readBlock": Method(BlockRead, Block, "filesystem"),
    "fs/writeBlock": Method(BlockWrite, Nothing, "filesystem"),
    "fs/close": Method(FileHandle, Nothing, "filesystem"),
    "fs/watchMissing": Method(WatchMissing, Watching, "filesystem"),
    "fs/append": Method(FileAppend, Nothing, "filesystem"),
    "fs/stat": Method(FileStat, FileStatus, "filesystem"),
    "fs/list": Method(FilePath, FileList, "filesystem"),
    "fs/change": Method(FileChange, Nothing, "filesystem"),
    "fs/rename": Method(FileRename, Nothing, "filesystem"),
    "fs/symlink": Method(LinkCreate, Nothing, "filesystem"),
    "fs/checksum": Method(BlockChecksum, Checksum, "filesystem"),
    "fs/watch": Method(TreeWatch, Nothing, "filesystem"),
    "fs/readChanges": Method(WatchId, TreeChanges, "filesystem"),
    "fs/unwatch": Method(WatchId, Nothing, "filesystem"),
}


NOTIFICATIONS: dict[str, type[Struct]] = {
    "process/output": ProcessOutput,
    "process/gap": ProcessGap,
    "process/exited": ProcessExited,
    "process/closed": ProcessClosed,
    "command/exec/outputDelta": CommandOutputDelta,
    "command/exec/exited": CommandExited,
    "http/request/bodyDelta": HttpBodyDelta,
    "fs/missingChanged": MissingChanged,
}
"""The notifications of the server. The only one of a client is `initialized`."""
