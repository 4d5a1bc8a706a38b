"""Messages over websockets, one in a frame. trio-websocket speaks the protocol, RFC 6455.

The messages are kept from it, since it copies each six times on its way: more time than all the rest of a chunk takes.
A server's data frame is its payload with a few bytes in front: so a server writes its messages into one buffer behind
the room for that header, and sends them under the lock that all of the connection's bytes pass. What comes in is put
together, and handed over, without the library (`FrameReader`). Everything else, the masked frames that a client sends
among it, is left to the library.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import cast

import trio

from execsrv._budget.budget import Budget
from execsrv._threads import run_with_tls
from execsrv._wire.bounds import MessageBound
from execsrv._wire.channel import CLOSED_IN_ORDER, MessageChannel
from execsrv._wire.encoded_channel import EncodedChannel
from execsrv._wire.forks import keep_from_forks
from execsrv._wire.http_head import NO_PAGES, Names, PageRequest, Pages, Upgrade, answer_to, receive_head, unauthorized
from execsrv._wire.load_library import trio_websocket
from execsrv._wire.quoting import quoted
from execsrv._wire.tcp import is_local
from execsrv._wire.unreachable import CONNECT_ERRORS, NO_TLS, is_final, why_unreachable
from execsrv._wire.urls import parse_websocket
from execsrv._wire.websocket_frames import MASKED_PING, MAX_HEADER, PING, close_frame, fitting, put_header
from execsrv._wire.websocket_library import HEAD_END, MAX_HEAD_BYTES, RECEIVE_BYTES, ReaderNursery, Wire, open_shielded
from execsrv.errors import ConnectionFailedError, ProtocolError, UnauthorizedError
from execsrv.limits import Limits, ServerConfig
from execsrv.protocol import Message

Serve = Callable[[MessageChannel], Awaitable[None]]
"""Serves one peer over its channel, from first to last."""

_FRAME_ERRORS = (1002, 1007)
_QUEUED_MESSAGES = 1

_MOST_UNREAD_BYTES = 1024 * 1024
"""So much is read of who has the answer to its HTTP request, and still sends. Then it is hung up on."""

_TURN_SECONDS = 0.0005
"""For so long messages that came together are handled in one turn of the loop."""


class WebSocketChannel(EncodedChannel):
    """One end of a websocket (`MessageChannel`)."""

    def __init__(self, connection: trio_websocket.WebSocketConnection, wire: Wire) -> None:
        super().__init__(MAX_HEADER)
        self._connection = connection
        self._wire = wire
        self._broken = False  # the library has stopped at a frame that is none, and leaves the goodbye to us
        self._received_bytes = 0  # of the message that is being handled
        self._turn_ends = 0.0

    async def _send_written(self) -> None:
        if not self._wire.is_server:
            with memoryview(self._buffer)[MAX_HEADER:] as view:
                message = bytes(view) if self.is_packed else str(view, "utf-8")
            try:
                await self._connection.send_message(message)
            except trio_websocket.ConnectionClosed:
                raise trio.BrokenResourceError from None
        elif self._connection.closed is not None and not self._broken:
            raise trio.BrokenResourceError
        else:
            with memoryview(self._buffer) as view, view[self._start :] as frame:
                await self._wire.send_all(frame)

    def _frame(self) -> int:
        with memoryview(self._buffer) as view:
            return put_header(view, len(view) - MAX_HEADER, is_binary=self.is_packed)

    @property
    def has_room(self) -> bool:
        """True for a server on a plain socket, as long as nobody is sending."""
        return self._wire.has_room and self._connection.closed is None

    def _send_written_now(self) -> bool:
        with memoryview(self._buffer) as view, view[self._start :] as frame:
            return self._wire.send_now(frame)

    async def send_rest(self) -> None:
        """Send what `send_now` has left."""
        await self._wire.send_all(b"")

    async def receive(self) -> Message | None:
        """Return the next message, text or binary."""
        self._wire.bound.handled(self._received_bytes)
        self._received_bytes = 0
        is_over_time = trio.current_time() >= self._turn_ends
        if is_over_time and self._wire.has_message:
            await trio.lowlevel.checkpoint()  # what came in one piece must not keep everybody else waiting
        while (data := self._wire.next_message()) is None:
            if self._wire.is_over or self._connection.closed is not None:
                self._check_end()
                return None
            await self._wire.wait_news()
            is_over_time = True
        if is_over_time:
            self._turn_ends = trio.current_time() + _TURN_SECONDS
        self._received_bytes = len(data)
        return await self._read(data)

    def _check_end(self) -> None:
        """Raise `ProtocolError` where a mistake of the peer is why no more comes."""
        closed = self._connection.closed
        self.goodbye = quoted(closed.reason, 123) if closed is not None and closed.reason else ""
        if self._wire.refusal is not None:
            self._broken = True
            raise self._wire.refusal
        if self._wire.is_server and closed is not None and closed.code in _FRAME_ERRORS:
            self._broken = True
            raise ProtocolError(f"malformed message: {closed.reason or closed.name}", closed.code)

    def trust(self, budget: Budget) -> None:
        """Take in large messages too."""
        self._wire.bound.lift(budget)

    async def is_alive(self, patience: float) -> bool:
        """Ping the peer, and return False when it has been silent for `patience` seconds.

        A peer that does not read cannot answer a ping behind what it has not read. Then its machine counts: that of a
        slow reader acknowledges what it gets, or that it has no room, or has taken all of it meanwhile.
        """
        wire = self._wire
        asked, was_sending = trio.current_time(), wire.is_sending
        with trio.move_on_after(patience):
            if not wire.is_sending:
                try:
                    # So short that it is sent whole or not at all, whenever this is cancelled.
                    await wire.send_all(PING if wire.is_server else MASKED_PING)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return False
            await trio.sleep_forever()
        return wire.heard_at >= asked or (wire.lost_for < patience if wire.is_sending else was_sending)

    async def wait_gone(self, interval: float, patience: float) -> None:
        """Ping the peer every `interval` seconds; return when it has been silent for `patience` seconds.

        On this machine the kernel tells of every end, and nobody is asked.
        """
        if self._wire.is_local:
            await trio.sleep_forever()
        while True:
            await trio.sleep(interval)
            if not await self.is_alive(patience):
                return

    async def aclose(self, code: int = CLOSED_IN_ORDER, reason: str = "") -> None:
        """Say code and reason in a close frame, as far as it has room, and wait for the peer's.

        After a frame that was cut, nothing can be said.
        """
        self._wire.bound.close()
        if self._wire.is_cut:
            return
        self._wire.discard()  # the peer's close frame is behind all that it has said
        reason = fitting(reason)
        if self._broken:
            try:
                await self._wire.send_all(close_frame(code, reason, masked=not self._wire.is_server))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            await self._wire.drain()
        await self._connection.aclose(code, reason)


async def serve_websocket(
    stream: trio.abc.Stream,
    limits: ServerConfig,
    admit: Callable[[Upgrade], Awaitable[Serve]],
    *,
    is_secure: bool = False,
    is_ready: Callable[[], bool] = lambda: True,
    pages: Pages = NO_PAGES,
) -> None:
    """Answer the one HTTP request on `stream`; where it becomes a websocket, serve the channel. Closes the stream.

    `admit` returns what serves whoever asks, and raises `UnauthorizedError` where it may not come in.
    """
    names = Names(limits.allowed_hosts, limits.allowed_origins, is_secure, pages.paths)
    async with stream:
        head = None
        upgrade: bytes | PageRequest | Upgrade | None = None
        serve: Serve | None = None
        # The second where its place at the door was given to another.
        gone = suppress(trio.BrokenResourceError, trio.ClosedResourceError)
        with trio.move_on_after(limits.handshake_timeout), gone:
            head = await receive_head(stream, MAX_HEAD_BYTES)
            if head is not None:
                upgrade = answer_to(head, MAX_HEAD_BYTES, names, is_ready=is_ready())
            if isinstance(upgrade, Upgrade):
                try:
                    serve = await admit(upgrade)
                except UnauthorizedError as error:
                    upgrade = unauthorized(str(error))
            if isinstance(upgrade, PageRequest):
                for piece in await pages.response(upgrade.path):
                    await stream.send_all(piece)
            if isinstance(upgrade, bytes):
                await stream.send_all(upgrade)
            if upgrade is not None and serve is None:
                await _leave(stream)
        if head is None or serve is None or not isinstance(upgrade, Upgrade):
            return
        rest = head[head.find(HEAD_END) + len(HEAD_END) :]
        bound = MessageBound(limits.max_message_bytes, is_known=False)
        wire, connection = Wire(stream, bound, upgrade.head, rest), None
        async with open_shielded() as reader:
            with trio.move_on_after(limits.handshake_timeout), suppress(trio_websocket.ConnectionClosed):
                request = await trio_websocket.wrap_server_stream(
                    cast(trio.Nursery, ReaderNursery(reader, wire)),
                    wire,
                    message_queue_size=_QUEUED_MESSAGES,
                    max_message_size=limits.max_message_bytes,
                    receive_buffer_size=RECEIVE_BYTES,
                )
                connection = await request.accept(subprotocol=upgrade.subprotocol)
                wire.opened.set()
            if connection is not None:
                await serve(WebSocketChannel(connection, wire))


async def _leave(stream: trio.abc.Stream) -> None:
    """Say that no more comes, and read on until the peer has hung up: to close before would take back the answer."""
    if isinstance(stream, trio.abc.HalfCloseableStream):
        await stream.send_eof()
        left = _MOST_UNREAD_BYTES
        while left > 0 and (data := await stream.receive_some(RECEIVE_BYTES)):
            left -= len(data)


@asynccontextmanager
async def open_websocket(
    url: str,
    limits: Limits,
    token: str | None = None,
    make_context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    check_server: Callable[[trio.SocketStream], Awaitable[None]] | None = None,
    *,
    allow_plain_network: bool = False,
) -> AsyncIterator[WebSocketChannel]:
    """Open a channel to the server at `url`; leaving closes it. Raises `ConnectionFailedError`.

    Without TLS, a token goes to nobody but this machine, unless `allow_plain_network`, and `check_server` may look
    whose server is there.
    """
    headers = [(b"Authorization", b"Bearer " + token.encode())] if token is not None else []
    address = parse_websocket(url)
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] | None = None
    opened = False
    try:
        async with open_shielded() as reader:
            with trio.fail_after(limits.handshake_timeout):
                stream = plain = await trio.open_tcp_stream(address.host, address.port)
                keep_from_forks(plain)
                # Without this, a small message after another would wait for a delayed acknowledgement: 40 ms.
                plain.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
                if not address.secure and not is_local(plain):
                    if token is not None and not allow_plain_network:
                        raise ConnectionFailedError(NO_TLS, is_final=True)
                elif not address.secure and check_server is not None:
                    await check_server(plain)
                if address.secure:
                    context = await run_with_tls(make_context)  # it reads files
                    stream = trio.SSLStream(plain, context, server_hostname=address.host)
                    await stream.do_handshake()  # of whose errors the library would not tell
                wire = Wire(stream, MessageBound(limits.max_message_bytes))
                connection = await trio_websocket.wrap_client_stream(
                    cast(trio.Nursery, ReaderNursery(reader, wire)),
                    wire,  # type: ignore[arg-type]
                    str(address),
                    address.resource,
                    extra_headers=headers,
                    message_queue_size=_QUEUED_MESSAGES,
                    max_message_size=limits.max_message_bytes,
                    receive_buffer_size=RECEIVE_BYTES,
                )
            wire.opened.set()
            opened = True
            yield WebSocketChannel(connection, wire)
    except CONNECT_ERRORS as error:
        if opened:
            raise
        what = f"no answer within {limits.handshake_timeout} s"
        if not isinstance(error, trio.TooSlowError):
            what = why_unreachable(error)
        raise ConnectionFailedError(f"cannot connect to `{url}`: {what}", is_final=is_final(error)) from error
    finally:
        if stream is not None:
            await trio.aclose_forcefully(stream)
