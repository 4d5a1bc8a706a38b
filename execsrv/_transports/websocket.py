"""Messages over websockets, one in a frame. trio-websocket speaks the protocol; see RFC 6455.

One thing is done beside it. A server's data frame is its payload with a few bytes in front, and trio-websocket copies
the payload six times on the way there: more time than all the rest of sending a chunk of output. So a server writes
its messages into one buffer behind the room for that header, and sends them under the lock that all of the
connection's bytes pass. Everything else, the client's masked frames among it, is left to the library.
"""

from __future__ import annotations

import ipaddress
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio
import trio_websocket
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection

from execsrv._background import open_background
from execsrv._codec import Codec
from execsrv._transports import MessageChannel
from execsrv._transports.http import answer_to, receive_head
from execsrv.errors import ConnectionFailed, InvalidListenURL, ProtocolError
from execsrv.limits import Limits
from execsrv.protocol import Message

_RECEIVE_BYTES = 256 * 1024
_MAX_HEADER = 10
_FINAL_TEXT = 0x81
_MAX_REASON_BYTES = 123
_QUEUED_MESSAGES = 4


class _Wire(trio.abc.Stream):
    """A stream whose writes take turns, and which gives back first what was read ahead."""

    def __init__(self, stream: trio.abc.Stream, read_ahead: bytes = b"") -> None:
        self._stream = stream
        self._read_ahead = read_ahead
        self._turn = trio.Lock()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        async with self._turn:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._read_ahead:
            data, self._read_ahead = self._read_ahead, b""
            return data
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class WebSocketChannel:
    """One end of a websocket. See `MessageChannel`."""

    def __init__(self, connection: WebSocketConnection, wire: _Wire | None) -> None:
        """`wire` is what a server's frames are written to; None for a client."""
        self._connection = connection
        self._wire = wire
        self._codec = Codec()
        self._buffer = bytearray(_MAX_HEADER)

    async def send(self, message: Message) -> None:
        """See `MessageChannel`."""
        self._codec.encode_into(message, self._buffer, _MAX_HEADER)
        if self._wire is None:
            text = str(memoryview(self._buffer)[_MAX_HEADER:], "utf-8")
            try:
                await self._connection.send_message(text)
            except ConnectionClosed:
                raise trio.BrokenResourceError from None
        elif self._connection.closed is not None:
            raise trio.BrokenResourceError
        else:
            with memoryview(self._buffer) as view:
                start = _put_header(view, len(view) - _MAX_HEADER)
                await self._wire.send_all(view[start:])

    async def receive(self) -> Message | None:
        """See `MessageChannel`."""
        try:
            data = await self._connection.get_message()
        except ConnectionClosed:
            return None
        if isinstance(data, bytes):
            try:
                data = data.decode()
            except UnicodeDecodeError as error:
                raise ProtocolError(f"malformed message: invalid UTF-8: {error.reason}", close_code=1007) from None
        return self._codec.decode(data)

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """See `MessageChannel`. The reason is cut where a close frame has no room for it."""
        fitting = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        await self._connection.aclose(code, fitting)


def _put_header(buffer: memoryview, size: int) -> int:
    """Write the header of a final text frame so that it ends where the payload begins; where it starts."""
    if size < 126:
        struct.pack_into("!BB", buffer, 8, _FINAL_TEXT, size)
        return 8
    if size < 65536:
        struct.pack_into("!BBH", buffer, 6, _FINAL_TEXT, 126, size)
        return 6
    struct.pack_into("!BBQ", buffer, 0, _FINAL_TEXT, 127, size)
    return 0


async def serve_websocket(
    stream: trio.abc.Stream, limits: Limits, serve: Callable[[MessageChannel], Awaitable[None]]
) -> None:
    """Answer the one HTTP request on `stream`; where it becomes a websocket, serve the channel. Closes the stream."""
    async with stream:
        head = None
        with trio.move_on_after(limits.handshake_timeout_seconds):
            head = await receive_head(stream, limits.max_handshake_head_bytes)
            answer = head and answer_to(head, limits.max_handshake_head_bytes)
            if answer:
                await stream.send_all(answer)
                return
        if head is None:
            return
        async with _open_shielded() as reader:
            wire, connection = _Wire(stream, head), None
            with trio.move_on_after(limits.handshake_timeout_seconds):
                request = await trio_websocket.wrap_server_stream(
                    reader,
                    wire,
                    message_queue_size=_QUEUED_MESSAGES,
                    max_message_size=limits.max_message_bytes,
                    receive_buffer_size=_RECEIVE_BYTES,
                )
                connection = await request.accept()
            if connection is not None:
                await serve(WebSocketChannel(connection, wire))


@asynccontextmanager
async def _open_shielded() -> AsyncIterator[trio.Nursery]:
    """A nursery for the library's reader, which has to outlive a cancelled block: it hears the answer to our close
    frame. The reader, not the block, is shielded, and ends with the block."""

    async def host(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.shield = True
            task_status.started(nursery)
            await trio.sleep_forever()

    async with open_background() as nursery:
        hosted = await nursery.start(host)
        try:
            yield hosted
        finally:
            hosted.cancel_scope.cancel()


def is_websocket_url(url: str) -> bool:
    """Whether this URL asks for a websocket."""
    return url.startswith(("ws://", "wss://"))


def parse_listen(url: str) -> tuple[str, int]:
    """Address and port of `ws://IP:PORT`. Raises `InvalidListenURL`."""
    invalid = InvalidListenURL(f"invalid websocket --listen URL `{url}`; expected `ws://IP:PORT`")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        ipaddress.ip_address(host)
    except ValueError:
        raise invalid from None
    if parts.scheme != "ws" or port is None or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise invalid
    return host, port


@asynccontextmanager
async def open_websocket(url: str, limits: Limits, token: str | None = None) -> AsyncIterator[WebSocketChannel]:
    """A channel to the server at `url`; leaving closes it. Raises `ConnectionFailed`."""
    headers = [(b"Authorization", b"Bearer " + token.encode())] if token is not None else []
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ConnectionFailed(f"cannot connect to `{url}`: expected `ws://HOST:PORT`")
    secure = parts.scheme == "wss"
    port = parts.port or (443 if secure else 80)
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        stream = await trio.open_tcp_stream(parts.hostname, port)
    except OSError as error:
        raise ConnectionFailed(f"cannot connect to `{url}`: {error}") from error
    stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
    wire: trio.abc.Stream = stream
    if secure:
        wire = trio.SSLStream(stream, ssl.create_default_context(), server_hostname=parts.hostname)
    try:
        async with _open_shielded() as reader:
            connection = await trio_websocket.wrap_client_stream(
                reader,
                wire,  # type: ignore[arg-type]
                parts.netloc.rpartition("@")[2],
                resource,
                extra_headers=headers,
                message_queue_size=_QUEUED_MESSAGES,
                max_message_size=limits.max_message_bytes,
                receive_buffer_size=_RECEIVE_BYTES,
            )
            yield WebSocketChannel(connection, None)
    except HandshakeError as error:
        raise ConnectionFailed(f"cannot connect to `{url}`: {error!r}") from error
    finally:
        await trio.aclose_forcefully(wire)
