"""Serving the tools by the Model Context Protocol: to one client on stdio, or to several over HTTP with a token."""

from __future__ import annotations

import logging
from collections.abc import Callable
from hmac import compare_digest
from typing import Any
from urllib.parse import urlsplit

from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from execsrv.errors import InvalidListenURLError

Application = Callable[[Any, Any, Any], Any]


async def serve_stdio(server: Server[Any]) -> None:
    """Serve one client on stdin and stdout until it hangs up. Meanwhile nothing else is written to stdout."""
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())


async def serve_http(server: Server[Any], url: str, token: str, listening: Callable[[str], object]) -> None:
    """Serve clients that have the token, at `http://HOST:PORT/PATH`, until cancelled.

    Calls `listening` with the URL once it accepts. All clients share the sessions. Raises `InvalidListenURLError` and
    `OSError`.
    """
    from hypercorn.config import Config, Sockets
    from hypercorn.trio import serve

    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "::1") or parts.port is None or parts.query:
        raise InvalidListenURLError(f"unsupported --listen URL `{url}`; expected `http://127.0.0.1:PORT/PATH`")
    path = parts.path if len(parts.path) > 1 else "/mcp"
    application = server.streamable_http_app(streamable_http_path=path, host=parts.hostname)
    config = Config()
    config.bind = [parts.netloc]
    config.errorlog = logging.getLogger("execsrv.mcp")
    sockets: Sockets = config.create_sockets()
    port = sockets.insecure_sockets[0].getsockname()[1]
    for socket in sockets.insecure_sockets:
        socket.listen(100)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    listening(f"http://{host}:{port}{path}")
    # Taken up by the server: so the port is known, and accepts, before anybody is told.
    config.bind = [f"fd://{sockets.insecure_sockets[0].detach()}"]
    await serve(with_token(application, token.encode()), config)


def with_token(application: Application, token: bytes) -> Application:
    """Return an ASGI application that only those reach who have the token."""
    wanted = b"Bearer " + token

    async def checked(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) == 1 and compare_digest(given[0], wanted):
            await application(scope, receive, send)
            return
        headers = [(b"www-authenticate", b"Bearer"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    return checked
