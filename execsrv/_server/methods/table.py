"""The register of handlers, and what every one of them may touch.

A handler does at once what must happen in the order of the requests, and returns the result; or, where something has
to be waited for, the rest of itself to be run as a task. So nothing that one request waits for delays another, and two
writes can never overtake each other. `@handles` enters a handler of the first kind, `@handles_later` one that may have
to wait: only those are refused when too many requests wait.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from msgspec import Struct

from execsrv._budget.allowance import Allowance
from execsrv._doors.principal import Principal
from execsrv._server.sessions import Sessions
from execsrv._server.sharing import Shared
from execsrv._server.starting import Deferred
from execsrv.errors import LimitExceededError, NotAllowedError, SandboxUnavailableError
from execsrv.limits import ServerConfig
from execsrv.protocol.sandbox import NetworkWish

if TYPE_CHECKING:
    from execsrv._files.files import Files
    from execsrv._http.relay import Relay
    from execsrv._wire.passing import Passing


class Caller(Protocol):
    """The reach of a handler: who asks, that one's sessions, what belongs to the channel, what the server allows."""

    principal: Principal
    allowance: Allowance
    sessions: Sessions
    shared: Shared
    config: ServerConfig
    files: Callable[[], Files]
    """Returns the file methods of the channel."""
    relay: Callable[[], Relay]
    """Returns the HTTP relay of the channel."""
    passing: Passing | None
    """The descriptors that go along over the channel, None where none can."""


P = TypeVar("P", bound=Struct)
R = TypeVar("R", bound=Struct)
Later = Coroutine[Any, Any, R]
"""The rest of a handler that has to wait for something; it gives the result."""

Answer = Struct | Later[Struct] | Deferred[Struct]
A = TypeVar("A", bound=Answer)


Of = Literal["process_id", "session_id", ""]
"""A process, of which the caller may be a visitor; or a command of `command/exec`, which is the caller's own."""


class Handler(NamedTuple):
    """The function of one method.

    `waits`: its answer may have to wait for something. `holds`: meanwhile the parameters are needed.
    """

    run: Callable[[Caller, Any], Answer]
    waits: bool
    holds: bool
    of: Of = ""
    """The parameter that names a session: what is asked of one that is being started waits for that."""
    brings: str = ""
    """The parameter that is input for it."""
    ends: bool = False
    """True where that session is to end: its start is given up soon."""


HANDLERS: dict[str, Handler] = {}


def handles(
    method: str, *, holds: bool = False, of: Of = "", ends: bool = False
) -> Callable[[Callable[[Caller, P], A]], Callable[[Caller, P], A]]:
    """Enter a function that answers a method at once, or as soon as a start that is under way has its outcome.

    What waits for a start is bounded for each of them (`Starting.check_room`).
    """

    def enter(run: Callable[[Caller, P], A]) -> Callable[[Caller, P], A]:
        HANDLERS[method] = Handler(run, waits=False, holds=holds, of=of, ends=ends)
        return run

    return enter


def handles_later(
    method: str, *, holds: bool = True, of: Of = "", brings: str = ""
) -> Callable[[Callable[[Caller, P], A]], Callable[[Caller, P], A]]:
    """Enter a function that may have to wait before it can answer a method."""

    def enter(run: Callable[[Caller, P], A]) -> Callable[[Caller, P], A]:
        HANDLERS[method] = Handler(run, waits=True, holds=holds, of=of, brings=brings)
        return run

    return enter


def check_kind(config: ServerConfig, kind: str) -> None:
    """Raise `NotAllowedError` where commands of this kind are switched off."""
    if not (config.allow_prepared_exec if kind == "prepared" else config.allow_direct_exec):
        setting = f"allow_{kind}_exec"
        raise NotAllowedError(f"this server takes no {kind} commands: {setting} is off", setting=setting)


def check_window(config: ServerConfig, window_bytes: int | None) -> None:
    """Raise `LimitExceededError` for a window that is too large."""
    bound = config.max_window_bytes
    if window_bytes is not None and window_bytes > bound:
        message = f"windowBytes is {window_bytes}: max_window_bytes ({bound}) would be exceeded"
        raise LimitExceededError(message, limit="max_window_bytes", value=bound)


def check_own_network(wish: NetworkWish | None, field: str) -> None:
    """Raise `SandboxUnavailableError` where a command is to have another network than the server's."""
    if wish is not None:
        message = f"no command has a network of its own here: {field} must be null"
        raise SandboxUnavailableError(message, field=field)
