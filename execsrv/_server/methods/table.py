"""The register of handlers, and what every one of them may touch.

A handler does at once what must happen in the order of the requests, and returns the result; or, where something has
to be waited for, the rest of itself to be run as a task. So nothing that one request waits for delays another, and two
writes can never overtake each other. `@handles` enters a handler of the first kind, `@handles_later` one that may have
to wait: only those are refused when too many requests wait.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from msgspec import Struct

from execsrv._http.relay import Relay
from execsrv._server.sessions import Sessions
from execsrv.errors import NotAllowedError, SandboxUnsupportedError
from execsrv.limits import ServerConfig
from execsrv.protocol.messages import Sandbox

if TYPE_CHECKING:
    from execsrv._files.files import Files


class Caller(Protocol):
    """The reach of a handler: the sessions of the connection that asks, what belongs to its channel, and what the
    server allows."""

    sessions: Sessions
    relay: Relay
    config: ServerConfig

    def files(self) -> Files:
        """Return the file methods of the channel."""


P = TypeVar("P", bound=Struct)
R = TypeVar("R", bound=Struct)
Later = Coroutine[Any, Any, R]
"""The rest of a handler that has to wait for something; it gives the result."""

Answer = Struct | Later[Struct]
A = TypeVar("A", bound=Answer)


class Handler(NamedTuple):
    """The function of one method. `waits`: its answer may have to wait for something."""

    run: Callable[[Caller, Any], Answer]
    waits: bool


HANDLERS: dict[str, Handler] = {}


def handles(method: str) -> Callable[[Callable[[Caller, P], R]], Callable[[Caller, P], R]]:
    """Enter a function that answers a method at once."""

    def enter(run: Callable[[Caller, P], R]) -> Callable[[Caller, P], R]:
        HANDLERS[method] = Handler(run, waits=False)
        return run

    return enter


def handles_later(method: str) -> Callable[[Callable[[Caller, P], A]], Callable[[Caller, P], A]]:
    """Enter a function that may have to wait before it can answer a method."""

    def enter(run: Callable[[Caller, P], A]) -> Callable[[Caller, P], A]:
        HANDLERS[method] = Handler(run, waits=True)
        return run

    return enter


def check_kind(config: ServerConfig, kind: str) -> None:
    """Raise `NotAllowedError` where commands of this kind are switched off."""
    if not (config.allow_prepared_exec if kind == "prepared" else config.allow_direct_exec):
        setting = f"allow_{kind}_exec"
        raise NotAllowedError(f"this server takes no {kind} commands: {setting} is off", setting=setting)


def check_unconfined(sandbox: Sandbox | str | None) -> None:
    """Raise `SandboxUnsupportedError` for a sandbox policy that asks for confinement."""
    permissions = sandbox.permissions if isinstance(sandbox, Sandbox) else None
    if sandbox is not None and (permissions is None or permissions.type != "disabled"):
        raise SandboxUnsupportedError("this server cannot confine anything: sandbox must be null", field="sandbox")
