"""Errors that a server answers to a request which it refused, or which failed.

An answer crosses the wire as a JSON-RPC code, a stable word (`kind`), a text for people and a few facts for programs.
`RequestError.to_wire` and `RequestError.from_wire` are the two directions of one mapping, so that a caller in another
process catches the class that the server raised.

Codes follow JSON-RPC 2.0 section 5.1; -32004 and -32010 are the Codex exec-server's, -32001 is execsrv's own.
"""

from __future__ import annotations

import errno
from typing import Any

from execsrv.errors.base import ExecsrvError


class RequestError(ExecsrvError):
    """A request was refused or failed; everything else on the connection goes on.

    `code` is the JSON-RPC error code, `kind` a stable word to test for, `facts` further JSON values. `method` is the
    method that a server answered with this, None if the request was refused before it was sent; `server` is the URL of
    the server, where a pool has chosen it.
    """

    code: int = -32603
    kind: str = "internal-error"
    method: str | None = None
    server: str | None = None

    def __init__(self, message: str, /, **facts: Any) -> None:
        super().__init__(message)
        self.facts: dict[str, Any] = facts

    @property
    def message(self) -> str:
        """Text for people."""
        return str(self.args[0])

    def to_wire(self) -> tuple[int, str, dict[str, Any]]:
        """Return `code`, `message` and `data` of the JSON-RPC error object."""
        return self.code, self.message, {"kind": self.kind, **self.facts}

    @staticmethod
    def from_wire(code: int, message: str, data: Any) -> RequestError:
        """Return the error that `to_wire` described, or a plain `RequestError` for a kind that is not known here."""
        facts = {str(name): value for name, value in data.items()} if isinstance(data, dict) else {}
        kind = str(facts.pop("kind", "")) or "refused"
        error = _BY_KIND.get(kind, RequestError)(message, **facts)
        error.code, error.kind = code, kind
        return error


class InternalError(RequestError):
    """A fault of the server itself. Its log has the traceback, with the `requestId` of `facts`."""


_FIRST, _LAST = 800, 200


class InvalidParamsError(RequestError):
    """The parameters of a call are malformed; the text names the field, and shows no more of a value than its ends."""

    code = -32602
    kind = "invalid-params"

    def __init__(self, message: str, /, **facts: Any) -> None:
        if len(message) > _FIRST + _LAST:
            message = f"{message[:_FIRST]} ... {message[-_LAST:]}"
        super().__init__(message, **facts)


class UnknownMethodError(RequestError):
    """No such method."""

    code = -32601
    kind = "unknown-method"


class NotReadyError(RequestError):
    """The handshake does not allow this call now."""

    code = -32600
    kind = "not-ready"


class UnknownConnectionError(RequestError):
    """No connection that the asker may reach has that id or name."""

    code = -32600
    kind = "unknown-session"


class AlreadyAttachedError(RequestError):
    """The connection to be resumed is held by another channel that is alive."""

    code = -32010
    kind = "already-attached"


class NotAllowedError(RequestError):
    """The server's configuration does not allow this; `setting` names the setting that would."""

    code = -32600
    kind = "not-allowed"


class UnauthorizedError(RequestError):
    """The server cannot tell who speaks over this channel: that takes a token, or another token than this one."""

    code = -32600
    kind = "unauthorized"


class ForbiddenError(RequestError):
    """Whoever speaks over this channel may not do this; `role` is the role they have, `needed` the one it takes."""

    code = -32600
    kind = "forbidden"


class UnknownProcessError(RequestError):
    """The id names no session of this connection."""

    code = -32600
    kind = "unknown-process"


class ProcessExistsError(RequestError):
    """The id that a start asked for is in use."""

    code = -32600
    kind = "process-exists"


class NameTakenError(RequestError):
    """Another connection of the same principal has that name."""

    code = -32600
    kind = "name-taken"


class KeyConflictError(RequestError):
    """The key of a start was used before, for another request."""

    code = -32600
    kind = "key-conflict"


class StdinClosedError(RequestError):
    """The session takes no input: it never had any, it was closed, or its reader is gone."""

    code = -32600
    kind = "stdin-closed"


class LimitExceededError(RequestError):
    """A request above a bound of the server; `limit` and `value` say which."""

    code = -32600
    kind = "limit-exceeded"


class BusyError(RequestError):
    """Too many requests of this connection are under way; try again after one of them was answered."""

    code = -32001
    kind = "busy"


class SandboxUnavailableError(RequestError):
    """The command was to be confined, which this server cannot do; it was not started."""

    code = -32602
    kind = "sandboxUnavailable"


class LimitUnavailableError(RequestError):
    """A limit was asked for that this server cannot keep; the command was not started."""

    code = -32602
    kind = "limit-unavailable"


class HttpUnavailableError(RequestError):
    """This server makes no HTTP requests: they are switched off, or its HTTP client is not installed."""

    code = -32600
    kind = "http-unavailable"


class HttpFailedError(RequestError):
    """An HTTP request got no whole response: unreachable, cut off, too slow, a circle. An error status is a whole
    one."""

    code = -32603
    kind = "http-failed"


_SPAWN_KINDS = {errno.ENOENT: "spawnNotFound", errno.EACCES: "spawnPermissionDenied"}


class _OfSystem:
    facts: dict[str, Any]

    @property
    def errno(self) -> int:
        """Error number of the operating system, 0 where there was none."""
        number = self.facts.get("errno", 0)
        return number if isinstance(number, int) else 0


class SpawnError(_OfSystem, RequestError):
    """The command could not be started.

    `stage` is "cwd", "stdout", "stderr", "program", "permission", "format", "arguments", "resources" or "runner";
    `errno` the system's number. `kind` follows from that: "spawnNotFound" (ENOENT), "spawnPermissionDenied" (EACCES),
    else "spawnFailed".
    """

    code = -32603
    kind = "spawnFailed"

    def __init__(self, message: str, /, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.kind = _SPAWN_KINDS.get(self.errno, "spawnFailed")

    @property
    def stage(self) -> str:
        """Step that failed."""
        return str(self.facts.get("stage", "program"))


class FileError(_OfSystem, RequestError):
    """A file method failed: the operating system said `errno`, 0 where it was not asked."""

    kind = "file-failed"


class NotFoundError(FileError):
    """There is no such file, or no such file handle."""

    code = -32004
    kind = "not-found"


class FileRefusedError(FileError):
    """A file method is not allowed, or makes no sense for what is there."""

    code = -32600
    kind = "file-refused"


class OutsideRootsError(FileRefusedError):
    """The path leads out of the directories that the server lets file methods reach."""

    kind = "outside-roots"


class FilesDisabledError(FileRefusedError):
    """The server has its file methods switched off."""

    kind = "files-disabled"


_BY_KIND: dict[str, type[RequestError]] = dict.fromkeys(_SPAWN_KINDS.values(), SpawnError)
_BY_KIND |= {
    error.kind: error
    for error in (
        AlreadyAttachedError,
        BusyError,
        FileError,
        FileRefusedError,
        FilesDisabledError,
        ForbiddenError,
        HttpFailedError,
        HttpUnavailableError,
        InternalError,
        InvalidParamsError,
        KeyConflictError,
        LimitExceededError,
        LimitUnavailableError,
        NameTakenError,
        NotAllowedError,
        NotFoundError,
        NotReadyError,
        OutsideRootsError,
        ProcessExistsError,
        SandboxUnavailableError,
        SpawnError,
        StdinClosedError,
        UnauthorizedError,
        UnknownConnectionError,
        UnknownMethodError,
        UnknownProcessError,
    )
}
"""Classes of this module alone: a subclass elsewhere does not change what a server's error becomes."""
