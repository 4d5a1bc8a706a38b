"""Serving the tools by the Model Context Protocol: to one client on stdio, or to several over HTTP with a token."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from hmac import compare_digest
from typing import Any

import mcp_types as types
import trio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from pydantic import ValidationError

from execsrv._doors.accepting import accept
from execsrv._doors.newcomers import Door, origin_of, shut
from execsrv._wire.bounds import MessageBound
from execsrv._wire.codecs import Codec
from execsrv._wire.framing import LineBuffer
from execsrv._wire.stdio import receive_stream, send_stream, taken_stdio
from execsrv._wire.unreadable import UnreadableError
from execsrv.errors import InvalidListenURLError, ProtocolError
from execsrv.protocol import Notification, Request

_URL = re.compile(
    r"http://(?P<host>127\.0\.0\.1|\[::1\]):(?P<port>[0-9]{1,5})(?P<path>(?:/[^\s{}?#%]*)?)", re.ASCII | re.IGNORECASE
)
"""What can be listened on. The path has nothing that a route would take for a parameter, or a client would encode."""

_LAST_PORT = 65535

_LAST_WORD_SECONDS = 1.0
"""Time that a client has to read the rest of an answer when it has hung up, and perhaps reads nothing any more."""

_PLACES = 64
"""Peers that have not shown the token. One more takes the place of who has waited longest."""

Application = Callable[[Any, Any, Any], Any]


async def serve_stdio(server: Server[Any]) -> None:
    """Serve one client on stdin and stdout until it hangs up. Meanwhile nothing else is written to stdout.

    The SDK's own streams wait in threads, which no cancel reaches.
    """
    with taken_stdio() as (protocol_in, protocol_out), trio.CancelScope() as scope:
        async with (
            receive_stream(protocol_in) as incoming,
            send_stream(protocol_out) as outgoing,
            aclosing(_lines(incoming, output := _Output(outgoing, scope))) as lines,
        ):
            stdin: Any = lines  # it is only iterated
            stdout: Any = output
            async with stdio_server(stdin, stdout) as (reading, writing):
                await server.run(reading, writing, server.create_initialization_options())
                scope.deadline = trio.current_time() + _LAST_WORD_SECONDS


async def _lines(incoming: trio.abc.ReceiveStream, output: _Output) -> AsyncGenerator[str]:
    """Give what comes in line by line, each as long as the host makes it, which has started this.

    The SDK drops a line that it cannot read, and its call would never be answered: it is refused here.
    """
    lines = LineBuffer(MessageBound(sys.maxsize))
    at_end = False
    while not at_end:
        try:
            data = await incoming.receive_some()
        except trio.BrokenResourceError:  # a terminal that is hung up
            data = b""
        at_end = not data
        lines.feed(data)
        while (line := lines.next_message(at_end)) is not None:
            text = line.decode(errors="replace")
            if (refusal := _refusal_of(text)) is None:
                yield text
            elif refusal:
                await output.write(refusal)


def _refusal_of(text: str) -> str | None:
    """Return the answer to a line that the SDK cannot read, empty for a notification. None: it can."""
    try:
        types.jsonrpc_message_adapter.validate_json(text, by_name=False)
        return None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
    id, why = None, first["msg"]
    try:
        message = Codec().decode(text.encode())
    except UnreadableError as unreadable:
        id, why = unreadable.id, str(unreadable.error)
    except ProtocolError as broken:
        why = str(broken)
    else:
        if isinstance(message, Notification):
            return ""
        id = message.id if isinstance(message, Request) else None
    code = types.PARSE_ERROR if first["type"] == "json_invalid" else types.INVALID_REQUEST
    return json.dumps({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": why}}) + "\n"


class _Output:
    """A stream as the SDK writes to it. A host that does not read any more ends `scope`."""

    def __init__(self, stream: trio.abc.SendStream, scope: trio.CancelScope) -> None:
        self._stream = stream
        self._scope = scope
        self._one_by_one = trio.Lock()

    async def write(self, text: str) -> None:
        try:
            async with self._one_by_one:
                await self._stream.send_all(text.encode())
        except trio.BrokenResourceError:
            self._scope.cancel()
            await trio.lowlevel.checkpoint()

    async def flush(self) -> None:
        """Do nothing: all was sent."""


async def serve_http(server: Server[Any], url: str, token: str, listening: Callable[[str], object]) -> None:
    """Serve clients that have the token, at `http://HOST:PORT/PATH`, until cancelled.

    Calls `listening` with the URL once it accepts. All clients share the sessions. Raises `InvalidListenURLError` and
    `OSError`.
    """
    from hypercorn.config import Config, Sockets
    from hypercorn.trio.tcp_server import TCPServer
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import ConnectionState
    from hypercorn.utils import wrap_app

    found = _URL.fullmatch(url)
    if found is None or int(found["port"]) > _LAST_PORT:
        raise InvalidListenURLError(f"unsupported --listen URL `{url}`; expected `http://127.0.0.1:PORT/PATH`")
    host, path = found["host"], found["path"] if len(found["path"]) > 1 else "/mcp"
    application = server.streamable_http_app(streamable_http_path=path, host=host.strip("[]"))
    config = Config()
    config.bind = [f"{host}:{found['port']}"]
    config.errorlog = logging.getLogger("execsrv.mcp")
    sockets: Sockets = config.create_sockets()
    port = sockets.insecure_sockets[0].getsockname()[1]
    for socket in sockets.insecure_sockets:
        socket.listen(100)
    listening(f"http://{host}:{port}{path}")
    door = Door(lambda: _PLACES, "places for peers without the token")
    wanted = token.encode()
    context = WorkerContext(None)

    async def serve_one(stream: trio.SocketStream) -> None:
        def hang_up() -> None:
            shut(stream)  # what is being sent is not cancelled
            scope.cancel()

        with trio.CancelScope() as scope:
            place = door.enter(origin_of(stream), hang_up)
            guarded = heard_out(with_token(application, wanted, partial(door.leave, place)))
            wrapped = wrap_app(guarded, config.wsgi_max_body_size, "asgi")
            try:
                plain: Any = stream  # its type asks for TLS
                await TCPServer(wrapped, config, context, ConnectionState({}), plain)
            except OSError:
                pass  # it has gone
            finally:
                door.leave(place)
                await trio.aclose_forcefully(stream)
                place.is_closed.set()

    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sockets.insecure_sockets[0]))
    async with application.router.lifespan_context(application), listener, trio.open_nursery() as nursery:
        await accept(listener, nursery, "a peer of MCP", serve_one, door)


def with_token(application: Application, token: bytes, let_in: Callable[[], object]) -> Application:
    """Return an ASGI application that only those reach who have the token. Each time one does, `let_in` is called."""
    wanted = b"Bearer " + token

    async def checked(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) == 1 and compare_digest(given[0], wanted):
            let_in()
            await application(scope, receive, send)
            return
        headers = [(b"www-authenticate", b"Bearer"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    return checked


def heard_out(application: Application) -> Application:
    """Return an ASGI application that says so where it answers before it has the whole request.

    A server of HTTP/1 hangs up then: a client that had not been told would send its next request into that.
    """

    async def hearing(scope: Any, receive: Any, send: Any) -> None:
        is_whole = scope["type"] != "http" or not scope["http_version"].startswith("1")

        async def hear() -> Any:
            nonlocal is_whole
            message = await receive()
            is_whole |= not message.get("more_body", False)
            return message

        async def say(message: Any) -> None:
            if message["type"] == "http.response.start" and not is_whole:
                message = message | {"headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await application(scope, hear, say)

    return hearing
