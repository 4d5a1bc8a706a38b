"""The tables: each method with its parameters and its result, and each notification of the server."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from execsrv.protocol.command import Accepted, CommandExec, CommandExited, CommandId, CommandOutputDelta, CommandWrite
from execsrv.protocol.connection import Initialize, Initialized
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
from execsrv.protocol.http import HttpBodyDelta, HttpRequest, HttpResponse
from execsrv.protocol.messages import Nothing
from execsrv.protocol.process import (
    NoParams,
    ProcessAck,
    ProcessClosed,
    ProcessExited,
    ProcessGap,
    ProcessId,
    ProcessList,
    ProcessOutput,
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


class Method(NamedTuple):
    """One method: what it takes and gives, the family that handshake errors name (None: the handshake itself), and
    whether an answer may have to wait for something."""

    params: type[Struct]
    result: type[Struct]
    family: str | None = "exec"
    waits: bool = False


METHODS: dict[str, Method] = {
    "initialize": Method(Initialize, Initialized, family=None),
    "process/start": Method(ProcessStart, ProcessStarted),
    "process/write": Method(ProcessWrite, ProcessWritten, waits=True),
    "process/closeStdin": Method(ProcessId, Nothing),
    "process/read": Method(ProcessRead, ProcessOutputRead, waits=True),
    "process/ack": Method(ProcessAck, Nothing),
    "process/resize": Method(ProcessResize, Nothing),
    "process/signal": Method(ProcessSignal, ProcessSignaled),
    "process/terminate": Method(ProcessTerminate, Running),
    "process/wait": Method(ProcessWait, ProcessWaited, waits=True),
    "process/snapshot": Method(ProcessId, ProcessSnapshot),
    "process/list": Method(NoParams, ProcessList),
    "command/exec": Method(CommandExec, CommandId),
    "command/exec/write": Method(CommandWrite, Accepted, waits=True),
    "command/exec/terminate": Method(CommandId, Running),
    "http/request": Method(HttpRequest, HttpResponse, "http", waits=True),
    "environment/info": Method(Unit, EnvironmentInfo, "environment info"),
    "environment/status": Method(Unit, EnvironmentStatus, "environment status"),
    "environmentConfig/read": Method(EnvironmentConfigRead, EnvironmentConfig, "environment config"),
    "capabilityRoots/discoverV1": Method(
        CapabilityRootsDiscover, CapabilityRootsFound, "capability discovery", waits=True
    ),
    "capabilities/discoverV2": Method(CapabilitiesDiscover, CapabilitiesFound, "capability discovery"),
    "fs/readFile": Method(FilePath, FileData, "filesystem", waits=True),
    "fs/writeFile": Method(FileWrite, Nothing, "filesystem", waits=True),
    "fs/createDirectory": Method(DirectoryCreate, Nothing, "filesystem", waits=True),
    "fs/getMetadata": Method(FilePath, FileMetadata, "filesystem", waits=True),
    "fs/canonicalize": Method(FilePath, CanonicalPath, "filesystem", waits=True),
    "fs/readDirectory": Method(FilePath, DirectoryListing, "filesystem", waits=True),
    "fs/walk": Method(FileWalk, Walked, "filesystem", waits=True),
    "fs/remove": Method(FileRemove, Nothing, "filesystem", waits=True),
    "fs/copy": Method(FileCopy, Nothing, "filesystem", waits=True),
    "fs/open": Method(FileOpen, FileHandle, "filesystem", waits=True),
    "fs/readBlock": Method(BlockRead, Block, "filesystem", waits=True),
    "fs/writeBlock": Method(BlockWrite, Nothing, "filesystem", waits=True),
    "fs/close": Method(FileHandle, Nothing, "filesystem", waits=True),
    "fs/watchMissing": Method(WatchMissing, Watching, "filesystem", waits=True),
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
"""What the server tells. The one thing that a client tells is `initialized`."""
