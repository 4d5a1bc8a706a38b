"""Ways to hosts by their names, for httpcore: each name is looked up in one of a few threads that one channel has.

A name server may not answer for half a minute. So look-ups share their threads with nothing else, and one that was
given up holds its thread until it really ends. httpcore is an extra: this is imported when it was found.

httpcore takes what one read gives without a turn for anybody else, however many interim responses (1xx) that is. So a
read gives it little of a head, and a head has a bound, also with all of those before it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import h11
import httpcore
import trio
from httpcore import SOCKET_OPTION, AsyncNetworkStream

from execsrv._nursery import open_helpers, owned
from execsrv._threads import run_in_thread
from execsrv._wire.turns import my_turn

MOST_THREADS = 8
"""So many names of one channel are looked up at once. More wait."""

_HEAD_START_SECONDS = 0.25
"""So long an address has before the next one is tried beside it (RFC 8305)."""

_HEAD_PIECE_BYTES = 2048
"""So much of a head is taken in one turn: interim responses without a header take a few milliseconds then."""

_AT_ONCE_BYTES = 16 * 1024
"""So much of a request leaves at once: the system holds it, whether or not somebody reads it."""

_HEAD_BYTES = 128 * 1024
"""A response's head and all interim responses before it have so much. httpcore allows 100 KiB for each alone."""


class _NothingMoreError(Exception):
    """Somebody reads on behind the end of a response."""


class Stream(AsyncNetworkStream):
    """A connection that gives little of a head at once. What follows a request is one, until `head_is_over`."""

    def __init__(self, stream: AsyncNetworkStream) -> None:
        self._stream = stream
        self._head_bytes: int | None = 0
        self._is_spent = False  # it is no good for another request
        self._has_ended = False  # the server has hung up
        self._early = bytearray()  # what was read of a response while its request was written

    def head_is_over(self) -> None:
        """Read what comes next in larger pieces, and without a bound."""
        self._head_bytes = None

    async def end(self, body: AsyncIterable[bytes]) -> None:
        """Leave the connection to the next request, once a body was read to its end, unless more has come than that.

        httpcore may have read it together with the body, and would take it for the next response. Asked for more of the
        body, it ends at once then; else it wants to read.
        """
        self._is_spent = True
        if self._has_ended:
            return  # httpcore would ask for more for ever, and uses it for nothing else
        with suppress(_NothingMoreError):
            async for _ in body:
                pass

    def _has_more_in_tls(self) -> bool:
        """Return whether something has come that only the TLS layer has seen."""
        tls = self.get_extra_info("ssl_object")
        try:
            return tls is not None and tls.read(1) is not None
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            return True

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - as httpcore has it
        """Return what is there, or wait for it. Raises `ReadError`, and `RemoteProtocolError` for too long a head."""
        if self._is_spent:
            self._is_spent = self._has_more_in_tls()
            raise _NothingMoreError
        if self._head_bytes is not None:
            if self._head_bytes:
                await my_turn()
            if self._head_bytes > _HEAD_BYTES:
                raise httpcore.RemoteProtocolError(f"the head of the response has more than {_HEAD_BYTES} bytes")
            max_bytes = min(max_bytes, _HEAD_PIECE_BYTES)
        data = bytes(self._early[:max_bytes]) or await self._stream.read(max_bytes, timeout)
        del self._early[:max_bytes]
        self._has_ended = not data
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as httpcore has it
        """Send a piece of a request, which a new head follows. Raises `WriteError`.

        That is raised too where the response is there before all of it has left: nobody may read the rest.
        """
        self._head_bytes = 0
        if len(buffer) <= _AT_ONCE_BYTES:
            await self._stream.write(buffer, timeout)
            return
        is_sent = False
        with trio.CancelScope() as sending:
            async with open_helpers() as helpers:
                helpers.start_soon(owned, self._hear_early, sending)
                await self._stream.write(buffer, timeout)
                is_sent = True
        if not is_sent:
            raise httpcore.WriteError("the response came before the request had left")

    async def _hear_early(self, sending: trio.CancelScope) -> None:
        """Read on until there is something that no interim response (1xx) is, and have it end the sending then."""
        head = h11.Connection(h11.CLIENT)
        head.send(h11.Request(method="GET", target="/", headers=[("host", "")]))
        try:
            while len(self._early) <= _HEAD_BYTES and (data := await self._stream.read(_HEAD_PIECE_BYTES)):
                self._early += data
                head.receive_data(data)
                while isinstance(event := head.next_event(), h11.InformationalResponse):
                    pass
                if event is not h11.NEED_DATA:
                    sending.cancel()
                    return
        except h11.RemoteProtocolError:
            sending.cancel()
        except httpcore.ReadError:
            return  # who writes hears of it

    async def aclose(self) -> None:
        """Hang up."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as httpcore has it
    ) -> AsyncNetworkStream:
        """Return the connection with TLS on it."""
        return Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore asks of the connection. It keeps none that has something to read before it is used."""
        return (self._is_spent and info == "is_readable") or self._stream.get_extra_info(info)


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
        return Stream(stream)

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
