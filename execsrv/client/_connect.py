"""Ways to a server. Each is an `async with` block that gives a `Client`; leaving it hangs up, which ends commands."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from execsrv._transports import unix
from execsrv._transports.lines import LineChannel
from execsrv.client._client import Client, open_client
from execsrv.errors import ConnectionFailed, InvalidListenURL
from execsrv.limits import DEFAULTS, Limits

_LAUNCHED_GRACE_SECONDS = 5.0


@asynccontextmanager
async def connect(url: str, *, token: str | None = None, limits: Limits = DEFAULTS) -> AsyncIterator[Client]:
    """Connect to `ws://HOST:PORT`, `wss://HOST:PORT` or `unix://PATH`.

    Raises `InvalidListenURL` for another URL, and what `connect_websocket` and `connect_unix` raise.
    """
    if unix.is_unix_url(url):
        connection = connect_unix(unix.parse_path(url, "--url"), limits=limits)
    elif url.startswith(("ws://", "wss://")):
        connection = connect_websocket(url, token=token, limits=limits)
    else:
        raise InvalidListenURL(f"unsupported --url `{url}`; expected `ws://HOST:PORT` or `unix://PATH`")
    async with connection as client:
        yield client


@asynccontextmanager
async def connect_websocket(url: str, *, token: str | None = None, limits: Limits = DEFAULTS) -> AsyncIterator[Client]:
    """Connect to a server's websocket. `token` goes into the `Authorization` header.

    Raises `ConnectionFailed`, also when it takes longer than `limits.handshake_timeout`.
    """
    from execsrv._transports.websocket import open_websocket

    async with open_websocket(url, limits, token) as channel, open_client(channel, limits) as client:
        yield client


@asynccontextmanager
async def connect_unix(path: str | os.PathLike[str], *, limits: Limits = DEFAULTS) -> AsyncIterator[Client]:
    """Connect to a server's unix socket. Raises `ConnectionFailed`."""
    try:
        stream = await trio.open_unix_socket(os.fspath(path))
    except OSError as error:
        text = f"cannot connect to `{os.fspath(path)}`: {error.strerror or error}"
        raise ConnectionFailed(text) from error
    async with open_client(LineChannel(stream, stream, limits), limits) as client:
        yield client


@asynccontextmanager
async def connect_stdio(
    stdin: trio.abc.SendStream, stdout: trio.abc.ReceiveStream, *, limits: Limits = DEFAULTS
) -> AsyncIterator[Client]:
    """Speak with a server over its stdin and stdout, which somebody else has opened. Takes ownership of both.

    Raises `ConnectionFailed`.
    """
    async with open_client(LineChannel(stdin, stdout, limits), limits) as client:
        yield client


@asynccontextmanager
async def launch(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, limits: Limits = DEFAULTS
) -> AsyncIterator[Client]:
    """Start a server of one's own and speak with it: any command that speaks the protocol on its stdin and stdout,
    such as `["ssh", "host", "execsrv", "serve"]`. Its stderr is this program's.

    Leaving the block closes its stdin, which ends it; should it not end within 5 s, it is killed. Raises
    `ConnectionFailed`.
    """
    try:
        server = await trio.lowlevel.open_process(list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    except OSError as error:
        raise ConnectionFailed(f"cannot start `{command[0]}`: {error.strerror or error}") from error
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        async with connect_stdio(server.stdin, server.stdout, limits=limits) as client:
            yield client
    finally:
        with trio.CancelScope(shield=True):
            with trio.move_on_after(_LAUNCHED_GRACE_SECONDS):
                await server.wait()
            if server.returncode is None:
                server.kill()
                await server.wait()
