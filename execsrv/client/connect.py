"""Ways to a server. Each is an `async with` block that gives a `Client`; leaving it hangs up, which ends commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from execsrv._nursery import check_trio
from execsrv._wire.unix import open_unix
from execsrv._wire.urls import is_unix_url, is_websocket_url, parse_unix
from execsrv.client.client import Client, open_client
from execsrv.client.parameters import words
from execsrv.client.stdio import explain_exit, open_stdio, shortened
from execsrv.errors import ConnectionFailedError, InvalidListenURLError, InvalidParamsError
from execsrv.limits import CLIENT_DEFAULTS, ClientConfig

OWN_SERVER = (sys.executable, "-m", "execsrv", "serve", "--quiet", "--listen", "stdio://")
"""A server for one client, on this machine, whatever the environment says of other servers."""

_LAUNCHED_GRACE_SECONDS = 5.0


@asynccontextmanager
async def connect(
    url: str, *, token: str | None = None, reconnect: float = 0, config: ClientConfig = CLIENT_DEFAULTS
) -> AsyncIterator[Client]:
    """Connect to `ws://HOST:PORT`, `wss://HOST:PORT` or `unix://PATH`, as `connect_websocket` and `connect_unix` do.

    Raises `ConnectionFailedError`, and `InvalidListenURLError` for another URL.
    """
    if is_unix_url(url):
        connection = connect_unix(parse_unix(url, "--url"), reconnect=reconnect, config=config)
    elif is_websocket_url(url):
        connection = connect_websocket(url, token=token, reconnect=reconnect, config=config)
    else:
        raise InvalidListenURLError(f"unsupported --url `{url}`; expected `ws://HOST:PORT` or `unix://PATH`")
    async with connection as client:
        yield client


@asynccontextmanager
async def connect_websocket(
    url: str, *, token: str | None = None, reconnect: float = 0, config: ClientConfig = CLIENT_DEFAULTS
) -> AsyncIterator[Client]:
    """Connect to a server's websocket. `token` goes into the `Authorization` header.

    When the connection is lost, try for `reconnect` seconds to take it up again. The server must keep it as long
    (`--resume-grace`); then nothing is lost, and calls and readers do not notice.

    Raises `ConnectionFailedError`, also when it takes longer than `config.handshake_timeout`.
    """
    from execsrv._wire.websocket import open_websocket

    async with open_client(lambda: open_websocket(url, config, token), config, reconnect) as client:
        yield client


@asynccontextmanager
async def connect_unix(
    path: str | os.PathLike[str], *, reconnect: float = 0, config: ClientConfig = CLIENT_DEFAULTS
) -> AsyncIterator[Client]:
    """Connect to a server's unix socket. A lost connection is taken up again within `reconnect` seconds.

    Raises `ConnectionFailedError`.
    """
    async with open_client(lambda: open_unix(os.fspath(path), config), config, reconnect) as client:
        yield client


@asynccontextmanager
async def connect_stdio(
    stdin: trio.abc.SendStream, stdout: trio.abc.ReceiveStream, *, config: ClientConfig = CLIENT_DEFAULTS
) -> AsyncIterator[Client]:
    """Speak with a server over its stdin and stdout, which somebody else has opened. Takes ownership of both.

    Raises `ConnectionFailedError`.
    """
    async with open_client(lambda: open_stdio(stdin, stdout, config), config) as client:
        yield client


@asynccontextmanager
async def launch(
    command: Sequence[str] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    config: ClientConfig = CLIENT_DEFAULTS,
) -> AsyncIterator[Client]:
    """Start a server and speak with it: any command that speaks the protocol on its stdin and stdout.

    Without a command it is `execsrv serve`, of this Python and on this machine. An example for another one is
    `["ssh", "host", "execsrv", "serve"]`. The server's stderr is this program's. It has a session of its
    own, so that a Ctrl-C in this program's terminal does not reach it. Lines that it prints before it speaks, such as
    a greeting, are passed over.

    Leaving the block closes the server's stdin, which ends it; should it not end within 5 s, it is killed. Raises
    `ConnectionFailedError`, which tells what the server said or how it ended.
    """
    check_trio()
    argv = list(OWN_SERVER) if command is None else words(command)
    if not argv:
        raise InvalidParamsError("command must not be empty", field="command")
    try:
        server = await trio.lowlevel.open_process(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, start_new_session=True
        )
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConnectionFailedError(f"cannot start {shortened(argv)}: {why}") from error
    stdin, stdout = server.stdin, server.stdout
    assert stdin is not None
    assert stdout is not None
    try:
        explain = partial(explain_exit, server, argv)
        async with open_client(lambda: open_stdio(stdin, stdout, config, explain), config) as client:
            yield client
    finally:
        await _end(server)


@trio.lowlevel.enable_ki_protection
async def _end(server: trio.Process) -> None:
    """Wait for a server whose stdin is closed, and kill it when that takes too long. An interrupt comes after that."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(_LAUNCHED_GRACE_SECONDS):
            await server.wait()
        if server.returncode is None:
            server.kill()
            await server.wait()
