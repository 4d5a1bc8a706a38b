"""Messages over websockets, one in a frame. trio-websocket speaks the protocol, RFC 6455.

One thing is done beside it. A server's data frame is its payload with a few bytes in front, and trio-websocket copies
the payload six times on the way there: more time than all the rest of sending a chunk of output. So a server writes
its messages into one buffer behind the room for that header, and sends them under the lock that all of the
connection's bytes pass. Everything else, the client's masked frames among it, is left to the library.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import h11
import trio
import trio_websocket
import wsproto.utilities
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection

from execsrv._nursery import open_helpers
from execsrv._wire.channel import MessageChannel
from execsrv._wire.codecs import Codec
from execsrv._wire.frames import MASKED_PING, MAX_HEADER, PING, close_frame, fitting, put_header
from execsrv._wire.http_head import answer_to, receive_head
from execsrv._wire.tcp import unacknowledged_seconds
from execsrv._wire.urls import parse_websocket
from execsrv.errors import ConnectionFailedError, ProtocolError
from execsrv.limits import Limits, ServerConfig
from execsrv.protocol import Message

_RECEIVE_BYTES = 256 * 1024
_FRAME_ERRORS = (1002, 1007)
_QUEUED_MESSAGES = 4
_MAX_HEAD_BYTES = 16 * 1024
_CONNECT_ERRORS = (
    OSError,
    ValueError,
    trio.TooSlowError,
    trio.BrokenResourceError,
    ConnectionFailedError,
    HandshakeError,
    wsproto.utilities.ProtocolError,
    h11.ProtocolError,
)


class _Wire(trio.abc.Stream):
    """The stream that the library reads and writes, with writes that take turns.

    Until it is `opened` it gives the library the head of the HTTP exchange and no byte more, since the library would
    not look again at what came with it; and an end is an error, since the library would wait for ever.

    A cancelled write leaves the frame `is_cut`. Nothing may follow it: the peer would read that as the rest of it.
    """

    def __init__(self, stream: trio.abc.Stream, head: bytes = b"", rest: bytes = b"") -> None:
        self.opened = trio.Event()
        self._stream = stream
        self._head = head
        self._rest = rest
        self.is_server = bool(head)
        self._turn = trio.Lock()
        self.is_cut = False
        self.heard_at = trio.current_time()

    @property
    def is_sending(self) -> bool:
        """Return True while a write waits for the peer to read, or for an acknowledgement."""
        return self._turn.locked()

    @property
    def lost_for(self) -> float:
        """Seconds for which the peer's machine has left unanswered what was sent, by the kernel's word."""
        plain = getattr(self._stream, "transport_stream", self._stream)
        return unacknowledged_seconds(plain.socket) if isinstance(plain, trio.SocketStream) else 0.0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()  # which cuts nothing yet
        try:
            self._turn.acquire_nowait()  # which saves a turn of the scheduler where nobody else is sending
        except trio.WouldBlock:
            await self._turn.acquire()
        try:
            if not self.is_cut:
                await self._stream.send_all(data)
        except trio.Cancelled:
            self.is_cut = True
            raise
        finally:
            self._turn.release()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._head:
            head, self._head = self._head, b""
            return head
        if self.is_server:
            await self.opened.wait()
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
        data = await self._stream.receive_some(max_bytes)
        self.heard_at = trio.current_time()
        if not data and not self.opened.is_set():
            raise ConnectionFailedError("the peer hung up in the handshake")
        return data

    async def aclose(self) -> None:
        """Do nothing: whoever opened the stream closes it. The library would do it before we have said why."""


class WebSocketChannel:
    """One end of a websocket (`MessageChannel`)."""

    def __init__(self, connection: WebSocketConnection, wire: _Wire) -> None:
        self._connection = connection
        self._wire = wire
        self._broken = False  # the library has stopped at a frame that is none, and leaves the goodbye to us
        self._codec = Codec()
        self._buffer = bytearray(MAX_HEADER)

    async def send(self, message: Message) -> None:
        """Send a message in a frame."""
        self._codec.encode_into(message, self._buffer, MAX_HEADER)
        if not self._wire.is_server:
            text = str(memoryview(self._buffer)[MAX_HEADER:], "utf-8")
            try:
                await self._connection.send_message(text)
            except ConnectionClosed:
                raise trio.BrokenResourceError from None
        elif self._connection.closed is not None and not self._broken:
            raise trio.BrokenResourceError
        else:
            with memoryview(self._buffer) as view:
                start = put_header(view, len(view) - MAX_HEADER)
                await self._wire.send_all(view[start:])

    async def receive(self) -> Message | None:
        """Return the message in the next frame, text or binary."""
        try:
            data = await self._connection.get_message()
        except ConnectionClosed as closed:
            if self._wire.is_server and closed.reason is not None and closed.reason.code in _FRAME_ERRORS:
                self._broken = True
                text = f"malformed message: {closed.reason.reason or closed.reason.name}"
                raise ProtocolError(text, closed.reason.code) from None
            # After a message above the bound too: the library has closed with 1009 and the reason, and nothing may be
            # sent behind a close frame, so no error message tells of it.
            return None
        if isinstance(data, bytes):
            try:
                data = data.decode()
            except UnicodeDecodeError as error:
                raise ProtocolError(f"malformed message: invalid UTF-8: {error.reason}", close_code=1007) from None
        return self._codec.decode(data)

    async def wait_gone(self, interval: float, patience: float) -> None:
        """Ping the peer every `interval` seconds; return when it has been silent for `patience` seconds.

        A peer that does not read cannot answer a ping behind what it has not read. Then its machine counts: that of a
        slow reader acknowledges what it gets, or that it has no room.
        """
        wire = self._wire
        while True:
            await trio.sleep(interval)
            asked = trio.current_time()
            with trio.move_on_after(patience):
                if not wire.is_sending:
                    try:
                        # So short that it is sent whole or not at all, whenever this is cancelled.
                        await wire.send_all(PING if wire.is_server else MASKED_PING)
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        return
                await trio.sleep_forever()
            if wire.heard_at >= asked:
                continue
            if not wire.is_sending or wire.lost_for >= patience:
                return

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Say code and reason in a close frame, as far as it has room, and wait for the peer's.

        After a frame that was cut, nothing can be said.
        """
        if self._wire.is_cut:
            return
        reason = fitting(reason)
        if self._broken:
            try:
                await self._wire.send_all(close_frame(code, reason))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
        await self._connection.aclose(code, reason)


async def serve_websocket(
    stream: trio.abc.Stream, limits: ServerConfig, serve: Callable[[MessageChannel], Awaitable[None]]
) -> None:
    """Answer the one HTTP request on `stream`; where it becomes a websocket, serve the channel. Closes the stream."""
    async with stream:
        head = None
        with trio.move_on_after(limits.handshake_timeout):
            head = await receive_head(stream, _MAX_HEAD_BYTES)
            answer = head and answer_to(head, _MAX_HEAD_BYTES)
            if answer:
                await stream.send_all(answer)
                return
        if head is None:
            return
        async with _open_shielded() as reader:
            end = head.find(b"\r\n\r\n") + 4
            wire, connection = _Wire(stream, head[:end], head[end:]), None
            with trio.move_on_after(limits.handshake_timeout):
                request = await trio_websocket.wrap_server_stream(
                    reader,
                    wire,
                    message_queue_size=_QUEUED_MESSAGES,
                    max_message_size=limits.max_message_bytes,
                    receive_buffer_size=_RECEIVE_BYTES,
                )
                connection = await request.accept()
                wire.opened.set()
            if connection is not None:
                await serve(WebSocketChannel(connection, wire))


@asynccontextmanager
async def _open_shielded() -> AsyncIterator[trio.Nursery]:
    """Open a nursery for the library's reader. The reader, not the block, is shielded, and ends with the block.

    It has to outlive a cancelled block, since it hears the answer to our close frame.
    """

    async def host(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.shield = True
            task_status.started(nursery)
            await trio.sleep_forever()

    async with open_helpers() as nursery:
        # Shielded, or a cancel at this very moment would leave the host behind, waiting for ever.
        with trio.CancelScope(shield=True):
            hosted = await nursery.start(host)
        try:
            yield hosted
        finally:
            hosted.cancel_scope.cancel()


@asynccontextmanager
async def open_websocket(url: str, limits: Limits, token: str | None = None) -> AsyncIterator[WebSocketChannel]:
    """Open a channel to the server at `url`; leaving closes it. Raises `ConnectionFailedError`."""
    headers = [(b"Authorization", b"Bearer " + token.encode())] if token is not None else []
    address = parse_websocket(url)
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] | None = None
    opened = False
    try:
        async with _open_shielded() as reader:
            with trio.fail_after(limits.handshake_timeout):
                stream = plain = await trio.open_tcp_stream(address.host, address.port)
                # Without this, a small message after another would wait for a delayed acknowledgement: 40 ms.
                plain.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
                if address.secure:
                    stream = trio.SSLStream(plain, ssl.create_default_context(), server_hostname=address.host)
                wire = _Wire(stream)
                connection = await trio_websocket.wrap_client_stream(
                    reader,
                    wire,  # type: ignore[arg-type]
                    str(address),
                    address.resource,
                    extra_headers=headers,
                    message_queue_size=_QUEUED_MESSAGES,
                    max_message_size=limits.max_message_bytes,
                    receive_buffer_size=_RECEIVE_BYTES,
                )
            wire.opened.set()
            opened = True
            yield WebSocketChannel(connection, wire)
    except _CONNECT_ERRORS as error:
        if opened:
            raise
        raise ConnectionFailedError(f"cannot connect to `{url}`: {_why(error, limits)}") from error
    finally:
        if stream is not None:
            await trio.aclose_forcefully(stream)


def _why(error: BaseException, limits: Limits) -> str:
    """Return in a few words why there is no websocket."""
    if isinstance(error, trio.TooSlowError):
        return f"no answer within {limits.handshake_timeout} s"
    if isinstance(error, trio_websocket.ConnectionRejected):
        if error.status_code in (401, 403):  # it may well be one, and says why
            words = (error.body or b"").decode(errors="replace").split()
            return " ".join([f"it answered {error.status_code}:", *words])[:200].rstrip(": ")
        return f"this is no exec server, it answered {error.status_code}"
    if isinstance(error, OSError) and isinstance(error.__cause__, BaseExceptionGroup):  # one for each address
        first = error.__cause__.exceptions[0]
        return os.strerror(first.errno) if isinstance(first, OSError) and first.errno else str(first)
    return str(getattr(error, "strerror", None) or error) or repr(error)
