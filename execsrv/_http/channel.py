"""Entrance to the HTTP relay of one channel. It is loaded at the first request: most servers only start commands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from execsrv._budget.allowance import Allowance
from execsrv._nursery import open_helpers
from execsrv.limits import ServerConfig
from execsrv.protocol import Notification

if TYPE_CHECKING:
    from execsrv._http.relay import Relay

Tell = Callable[[Notification], Awaitable[None]]


def http_capabilities(config: ServerConfig) -> dict[str, bool]:
    """Return the capabilities that a client is told of, by the names that the Codex exec-server has for them."""
    has_variables = config.allow_http and bool(config.http_variables) and find_spec("httpcore") is not None
    return {"httpHeaderEnvVars": has_variables}


@asynccontextmanager
async def open_http(
    config: ServerConfig,
    allowance: Callable[[], Allowance],
    tell: Tell,
    answers_left: Callable[[], Awaitable[None]],
) -> AsyncIterator[tuple[Callable[[], Relay], Callable[[], bool]]]:
    """Open the HTTP side of a channel, and give functions that return its relay, and whether a request is under way.

    `allowance` is the peer's. `tell` sends a notification, and waits for room. `answers_left` waits until the answers
    so far have been sent; until then a whole body counts as held here. Leaving ends the streams without another word,
    and closes every HTTP connection.
    """
    relay: Relay | None = None

    def get_relay() -> Relay:
        nonlocal relay
        if relay is None:
            from execsrv._http.relay import Relay

            relay = Relay(config, nursery, tell, answers_left, allowance())
        return relay

    try:
        async with open_helpers() as nursery:
            yield get_relay, lambda: relay is not None and relay.is_busy
    finally:
        if relay is not None:
            await relay.aclose()
