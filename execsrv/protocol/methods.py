"""The tables: each method with its parameters and its result, and each notification of the server.

They have the structs of `execsrv.protocol` by their names, so that none is loaded that nobody asks for.
"""

from __future__ import annotations

from functools import cached_property
from importlib import import_module

from msgspec import Struct

from execsrv.protocol.roles import Role


class Method:
    """One method: what it takes and gives, the least role that may call it, and the family that handshake errors name.

    The family None is that of the handshake itself.
    """

    def __init__(self, params: str, result: str, role: Role, family: str | None = "exec") -> None:
        self._params = params
        self._result = result
        self.role = role
        self.family = family

    def __repr__(self) -> str:
        return f"<Method {self._params} -> {self._result} role={self.role.word}>"

    @cached_property
    def params(self) -> type[Struct]:
        """The struct of its parameters."""
        return struct_named(self._params)

    @cached_property
    def result(self) -> type[Struct]:
        """The struct of its result."""
        return struct_named(self._result)


def struct_named(name: str) -> type[Struct]:
    """Return the struct of that name."""
    struct: type[Struct] = getattr(import_module("execsrv.protocol"), name)
    return struct


HEALTH, VIEWER, WRITER, OWNER = Role

METHODS: dict[str, Method] = {
    "initialize": Method("Initialize", "Initialized", HEALTH, family=None),
    "process/start": Method("ProcessStart", "ProcessStarted", OWNER),
    "process/write": Method("ProcessWrite", "ProcessWritten", WRITER),
    "process/closeStdin": Method("ProcessCloseStdin", "Nothing", WRITER),
    "process/read": Method("ProcessRead", "ProcessOutputRead", VIEWER),
    "process/ack": Method("ProcessAck", "Nothing", VIEWER),
    "process/resize": Method("ProcessResize", "Nothing", WRITER),
    "process/signal": Method("ProcessSignal", "ProcessSignaled", WRITER),
    "process/terminate": Method("ProcessTerminate", "Running", WRITER),
    "process/wait": Method("ProcessWait", "ProcessWaited", VIEWER),
    "process/waitFor": Method("ProcessWaitFor", "ProcessHappened", VIEWER),
    "process/snapshot": Method("ProcessId", "ProcessSnapshot", VIEWER),
    "process/list": Method("ProcessListing", "ProcessList", VIEWER),
    "process/attach": Method("ProcessAttach", "ProcessAttached", VIEWER),
    "process/detach": Method("ProcessDetach", "Nothing", VIEWER),
    "connection/list": Method("Nothing", "ConnectionList", VIEWER),
    "connection/join": Method("ConnectionJoin", "ConnectionJoined", VIEWER),
    "connection/leave": Method("ConnectionId", "Nothing", VIEWER),
    "connection/grant": Method("ConnectionGrant", "ConnectionGranted", OWNER),
    "connection/revoke": Method("ConnectionRevoke", "ConnectionRevoked", OWNER),
    "connection/end": Method("ConnectionEnd", "Nothing", HEALTH),
    "command/exec": Method("CommandExec", "CommandId", OWNER),
    "command/exec/write": Method("CommandWrite", "Accepted", WRITER),
    "command/exec/terminate": Method("CommandId", "Running", WRITER),
    "http/request": Method("HttpRequest", "HttpResponse", OWNER, "http"),
    "http/read": Method("HttpRequestId", "HttpBodyPiece", OWNER, "http"),
    "http/close": Method("HttpRequestId", "Nothing", OWNER, "http"),
    "server/limits": Method("CeilingsAsked", "Ceilings", VIEWER),
    "environment/info": Method("Unit", "EnvironmentInfo", VIEWER, "environment info"),
    "environment/status": Method("Unit", "EnvironmentStatus", HEALTH, "environment status"),
    "environmentConfig/read": Method("EnvironmentConfigRead", "EnvironmentConfig", OWNER, "environment config"),
    "capabilityRoots/discoverV1": Method(
        "CapabilityRootsDiscover", "CapabilityRootsFound", OWNER, "capability discovery"
    ),
    "capabilities/discoverV2": Method("CapabilitiesDiscover", "CapabilitiesFound", OWNER, "capability discovery"),
    "fs/readFile": Method("FilePath", "FileData", OWNER, "filesystem"),
    "fs/writeFile": Method("FileWrite", "Nothing", OWNER, "filesystem"),
    "fs/createDirectory": Method("DirectoryCreate", "Nothing", OWNER, "filesystem"),
    "fs/getMetadata": Method("FilePath", "FileMetadata", OWNER, "filesystem"),
    "fs/canonicalize": Method("FilePath", "CanonicalPath", OWNER, "filesystem"),
    "fs/readDirectory": Method("FilePath", "DirectoryListing", OWNER, "filesystem"),
    "fs/walk": Method("FileWalk", "Walked", OWNER, "filesystem"),
    "fs/remove": Method("FileRemove", "Nothing", OWNER, "filesystem"),
    "fs/copy": Method("FileCopy", "Nothing", OWNER, "filesystem"),
    "fs/open": Method("FileOpen", "FileHandle", OWNER, "filesystem"),
    "fs/readBlock": Method("BlockRead", "Block", OWNER, "filesystem"),
    "fs/writeBlock": Method("BlockWrite", "Nothing", OWNER, "filesystem"),
    "fs/close": Method("FileHandle", "Nothing", OWNER, "filesystem"),
    "fs/watchMissing": Method("WatchMissing", "Watching", OWNER, "filesystem"),
    "fs/append": Method("FileAppend", "Nothing", OWNER, "filesystem"),
    "fs/stat": Method("FileStat", "FileStatus", OWNER, "filesystem"),
    "fs/list": Method("FilePath", "FileList", OWNER, "filesystem"),
    "fs/change": Method("FileChange", "Nothing", OWNER, "filesystem"),
    "fs/rename": Method("FileRename", "Nothing", OWNER, "filesystem"),
    "fs/symlink": Method("LinkCreate", "Nothing", OWNER, "filesystem"),
    "fs/checksum": Method("BlockChecksum", "Checksum", OWNER, "filesystem"),
    "fs/watch": Method("TreeWatch", "Nothing", OWNER, "filesystem"),
    "fs/readChanges": Method("WatchId", "TreeChanges", OWNER, "filesystem"),
    "fs/unwatch": Method("WatchId", "Nothing", OWNER, "filesystem"),
}


NOTIFICATIONS = {
    "process/output": "ProcessOutput",
    "process/gap": "ProcessGap",
    "process/exited": "ProcessExited",
    "process/closed": "ProcessClosed",
    "command/exec/outputDelta": "CommandOutputDelta",
    "command/exec/exited": "CommandExited",
    "http/request/bodyDelta": "HttpBodyDelta",
    "fs/missingChanged": "MissingChanged",
    "connection/presence": "ConnectionPresence",
    "server/shutdown": "ServerShutdown",
}
"""The notifications of the server, each with the name of its parameters. The only one of a client is `initialized`."""
