"""Ways to hosts by their names, for httpcore: each name is looked up in one of a few threads that one channel has.

A name server may not answer for half a minute. So look-ups share their threads with nothing else, and one that was
given up holds its thread until it really ends. httpcore is an extra: this is imported when it was found.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import httpcore
import trio
from httpcore import SOCKET_OPTION, AsyncNetworkStream

from execsrv._threads import run_in_thread

MOST_THREADS = 8
"""So many names of one channel are looked up at once. More wait."""

_HEAD_START_SECONDS = 0.25
"""So long an address has before the next one is tried beside it (RFC 8305)."""


class Network(httpcore.TrioBackend):
    """The network as httpcore knows it, for one channel."""

    def __init__(self) -> None:
        self._threads = trio.CapacityLimiter(MOST_THREADS)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as httpcore has it
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """Connect to the first address of a host that answers. Raises `ConnectError` and `BusyError`."""
        connect = super().connect_tcp
        try:
            addresses = await self._look_up(host, port)
        except (OSError, UnicodeError) as error:  # the name of a proxy may be none
            raise httpcore.ConnectError(str(error)) from error
        ways = [partial(connect, address, port, timeout, local_address, socket_options) for address in addresses]
        stream = await _first(ways)
        if stream is None:
            raise httpcore.ConnectError(f"all attempts to connect to {host}:{port} failed")
        return stream

    async def _look_up(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host, as text. Raises `OSError`."""
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            found = look_up(flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = await run_in_thread(look_up, self._threads)
        return _mixed([(family, str(address[0])) for family, _, _, _, address in found])


def _mixed(found: list[tuple[socket.AddressFamily, str]]) -> list[str]:
    """Return addresses in their order, but for the first of the other family, which comes second."""
    other = next((pair for pair in found if pair[0] != found[0][0]), None)
    if other is not None:
        found = [found[0], other, *[pair for pair in found[1:] if pair is not other]]
    return list(dict.fromkeys(address for _, address in found))


async def _first(ways: Sequence[Callable[[], Awaitable[AsyncNetworkStream]]]) -> AsyncNetworkStream | None:
    """Return what the first way that is open leads to, None where none is."""
    streams: list[AsyncNetworkStream] = []

    async def attempt(connect: Callable[[], Awaitable[AsyncNetworkStream]], failed: trio.Event) -> None:
        try:
            streams.append(await connect())
        except httpcore.ConnectError:
            failed.set()
        else:
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for connect in ways:
                nursery.start_soon(attempt, connect, failed := trio.Event())
                with trio.move_on_after(_HEAD_START_SECONDS):
                    await failed.wait()
        chosen = streams.pop(0) if streams else None
    finally:
        with trio.CancelScope(shield=True):  # or the first would be closed alone; closing waits for nobody
            for stream in streams:  # a second one in the same instant, or all when cancelled
                await stream.aclose()
    return chosen
