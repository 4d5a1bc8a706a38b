"""The root of all errors, and those of connections and servers: what never crosses the wire as a class."""

from __future__ import annotations

from typing import Any


class ExecsrvError(Exception):
    """Base of every error that execsrv raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Make copies and pickles work for every constructor."""
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[ExecsrvError], args: tuple[Any, ...]) -> ExecsrvError:
    error = kind.__new__(kind)
    error.args = args
    return error


class ProtocolError(ExecsrvError):
    """A peer broke the protocol. It gets the reason, and its connection ends.

    `close_code` is what a websocket says in its close frame (RFC 6455 section 7.4.1), `facts` what the peer gets beside
    the text.
    """

    code = -32600
    kind = "protocol-error"

    def __init__(self, message: str, close_code: int = 1002, **facts: Any) -> None:
        super().__init__(message)
        self.close_code = close_code
        self.facts = facts


class CutOffError(ProtocolError):
    """The connection ended within a message, or after something that is not a message: the two look alike."""


class ConnectionFailedError(ExecsrvError):
    """No connection could be made: unreachable, refused, no server of ours, or a handshake that took too long.

    `is_final` is True if waiting would change nothing: an invalid URL, a name that no host has, or a server that does
    not let this client in.
    """

    def __init__(self, message: str, /, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class ConnectionLostError(ExecsrvError):
    """A connection ended while a call was waiting on it.

    `stdout` and `stderr` hold what had arrived of a command's output, where the call was collecting it. `process` is
    the id of a command that had been asked for, and may have run; None if nothing was started.
    """

    stdout: Any = b""
    stderr: Any = b""
    process: str | None = None


class NoServerError(ExecsrvError):
    """A pool has no server with the labels that were asked for."""


class BadAnswerError(ExecsrvError):
    """A server answered a call with something that this call does not return. `method` names the call.

    `stdout`, `stderr` and `process` are those of `ConnectionLostError`.
    """

    stdout: Any = b""
    stderr: Any = b""
    process: str | None = None

    def __init__(self, method: str, complaint: str) -> None:
        super().__init__(f"the server's answer to `{method}` is malformed: {complaint}")
        self.method = method


class InvalidListenURLError(ExecsrvError):
    """A `--listen` or `--url` that names no transport of ours."""


class InvalidConfigError(ExecsrvError):
    """A setting that does not exist or has a value it cannot have, or a configuration file that cannot be read."""


class CannotListenError(ExecsrvError):
    """The address to listen on is taken, not ours, or not there."""
