"""Ways to a server. Each is an `async with` block that gives a `Client`; leaving it hangs up, which ends commands."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import trio

from execsrv._wire.channel import MessageChannel
from execsrv._wire.unix import open_unix
from execsrv._wire.urls import is_unix_url, is_websocket_url, parse_unix
from execsrv.client.client import Client, open_client
from execsrv.client.far_commands import FORMS, FarShell, is_reached, parse_exec, parse_shell
from execsrv.client.greeting_wishes import Kept, Wishes, wishes
from execsrv.client.launching import launched
from execsrv.client.parameters import seconds, words
from execsrv.client.stdio import explain_exit, open_stdio
from execsrv.client.tokens import ReadToken, token_reader
from execsrv.errors import InvalidListenURLError, InvalidParamsError
from execsrv.limits import CLIENT_DEFAULTS, ClientConfig
from execsrv.protocol import SizePolicy

_LONGEST_GRACE_SECONDS = 365 * 86400
"""So long a server can be told to wait."""

_SERVE = ("serve", "--quiet", "--no-web", "--metrics-listen=", "--listen", "stdio://")
"""The words of a server for one client, whatever the environment there says of other servers."""

OWN_SERVER = (sys.executable, "-m", "execsrv", *_SERVE)
"""Such a server on this machine."""


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    reconnect: float = 0,
    name: str | None = None,
    keep: Kept = None,
    resume: str | None = None,
    size_policy: SizePolicy = "owner",
    bring: bool = True,
    config: ClientConfig = CLIENT_DEFAULTS,
) -> AsyncIterator[Client]:
    """Connect to a server by its URL.

    `ws://HOST:PORT`, `wss://HOST:PORT` and `unix://PATH` are those of `connect_websocket` and `connect_unix`.
    `exec:COMMAND` is a command that speaks the protocol on its stdin and stdout, as for `launch`.

    `ssh://[USER@]HOST[:PORT][/DIRECTORY]`, `docker://CONTAINER`, `podman://CONTAINER` and
    `kubectl://[NAMESPACE/]POD[/CONTAINER]` start a server there, by the program of that name, and end it with the
    block. If there is no execsrv there, it is brought along for that time, provided that there is a Python of the same
    version and kind as ours; `bring=False` prevents that.

    With `reconnect` a lost connection is taken up again within that many seconds, and nothing is lost. A server that is
    started for the connection waits that long for it, and still ends with the block. Without `reconnect`, that server
    ends with the program. The command of `exec:` is run again, and has to lead to the same server, as `execsrv bridge`
    does.

    `Client.connections` lists the `name`, and `Client.join` takes it. With `keep` the connection and its commands go on
    when this block is left, or the network fails: for that many seconds, or with "untilIdle" as long as anything runs
    or can still be read. `resume` takes up such a connection, by its name, as its owner. `size_policy` says whose size
    a terminal has if several look at it: that of the "owner", the "smallest", or the "latest" that was set.

    Raises `ConnectionFailedError`, and `InvalidListenURLError` for any other kind of URL.
    """
    wanted = wishes(name, keep, resume, size_policy)
    if is_unix_url(url):
        connection = _connect_unix(parse_unix(url, "--url"), token_reader(token, token_file), reconnect, wanted, config)
    elif is_websocket_url(url):
        connection = _connect_websocket(url, token_reader(token, token_file), reconnect, wanted, config)
    elif (argv := parse_exec(url)) is not None:
        leaves = reconnect > 0
        connection = open_client(lambda: _open_launched(argv, None, config, leaves=leaves), config, reconnect, wanted)
    elif is_reached(url):
        connection = _connect_reached(parse_shell(url), reconnect, bring, wanted, config)
    else:
        forms = ", ".join(f"`{form}`" for form in FORMS[:-1])
        expected = f"`ws://HOST:PORT`, `wss://HOST:PORT`, `unix://PATH`, {forms} or `{FORMS[-1]}`"
        raise InvalidListenURLError(f"unsupported URL `{url}`; expected {expected}")
    async with connection as client:
        yield client


@asynccontextmanager
async def _connect_reached(
    place: FarShell, reconnect: float, bring: bool, wanted: Wishes, config: ClientConfig
) -> AsyncIterator[Client]:
    from execsrv.client.far_channel import open_reached

    seconds("reconnect", reconnect, zero=True)
    name = secrets.token_hex(8) if reconnect else ""
    serve = ["bridge", name, f"{min(reconnect, _LONGEST_GRACE_SECONDS):.12g}"] if reconnect else _SERVE
    connection = open_client(
        lambda: open_reached(place, serve, config, bring=bring, name=name), config, reconnect, wanted
    )
    async with connection as client:
        place = replace(place, directory=None)  # the way back is open whatever becomes of the directory
        yield client


@asynccontextmanager
async def connect_websocket(
    url: str,
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    reconnect: float = 0,
    name: str | None = None,
    keep: Kept = None,
    resume: str | None = None,
    size_policy: SizePolicy = "owner",
    config: ClientConfig = CLIENT_DEFAULTS,
) -> AsyncIterator[Client]:
    """Connect to a server's websocket. `token`, or that in `token_file`, goes into the `Authorization` header.

    If neither is given, the token comes from `EXECSRV_TOKEN`, or from the file that `EXECSRV_TOKEN_FILE` names.
    `EXECSRV_TOKEN` is taken out of the environment. A file is read again whenever the connection is taken up again.

    When the connection is lost, try for `reconnect` seconds to take it up again. The server must keep it for that long
    (`--resume-grace`); then nothing is lost, and calls and readers do not notice.

    A server on this machine, without TLS, has to be this user's, root's or one of `config.server_uids`, as far as that
    can be known. With TLS, `config` has the authorities that are trusted. Without TLS, a token goes to another machine
    only with `config.allow_plain_network`.

    Raises `ConnectionFailedError`, also if connecting takes longer than `config.handshake_timeout`.
    """
    read_token = token_reader(token, token_file)
    wanted = wishes(name, keep, resume, size_policy)
    async with _connect_websocket(url, read_token, reconnect, wanted, config) as client:
        yield client


@asynccontextmanager
async def _connect_websocket(
    url: str, read_token: ReadToken, reconnect: float, wanted: Wishes, config: ClientConfig
) -> AsyncIterator[Client]:
    from execsrv._wire.tls import client_context
    from execsrv._wire.websocket import open_websocket
    from execsrv.client.server_user import check_server

    make_context = partial(client_context, config)
    check = partial(check_server, server_uids=config.server_uids)

    @asynccontextmanager
    async def open_channel() -> AsyncIterator[MessageChannel]:
        allow = config.allow_plain_network
        token = await read_token()
        async with open_websocket(url, config, token, make_context, check, allow_plain_network=allow) as channel:
            yield channel

    async with open_client(open_channel, config, reconnect, wanted) as client:
        yield client


@asynccontextmanager
async def connect_unix(
    path: str | os.PathLike[str],
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    reconnect: float = 0,
    name: str | None = None,
    keep: Kept = None,
    resume: str | None = None,
    size_policy: SizePolicy = "owner",
    config: ClientConfig = CLIENT_DEFAULTS,
) -> AsyncIterator[Client]:
    """Connect to a server's unix socket. A lost connection is taken up again within `reconnect` seconds.

    Users other than the server's own need a token; it is found as by `connect_websocket`.

    The server has to be this user's, root's or one of `config.server_uids`, and so has the directory of the socket.

    Raises `ConnectionFailedError`.
    """
    read_token = token_reader(token, token_file)
    wanted = wishes(name, keep, resume, size_policy)
    async with _connect_unix(os.fspath(path), read_token, reconnect, wanted, config) as client:
        yield client


@asynccontextmanager
async def _connect_unix(
    path: str, read_token: ReadToken, reconnect: float, wanted: Wishes, config: ClientConfig
) -> AsyncIterator[Client]:
    open_channel = partial(open_unix, path, config, config.server_uids)
    async with open_client(open_channel, config, reconnect, wanted, read_token) as client:
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

    Without a command it is `execsrv serve`, of this Python and on this machine. An example for another one is `["ssh",
    "host", "execsrv", "serve"]`. The server's stderr is this program's. It runs in a session of its own, so that a
    Ctrl-C in this program's terminal does not reach it. Lines that it prints before it speaks, such as a greeting, are
    skipped.

    Leaving the block closes the server's stdin, which ends it; if it has not ended within 5 s, it is killed. Raises
    `ConnectionFailedError`, which says what the server printed or how it ended.
    """
    argv = list(OWN_SERVER) if command is None else words(command)
    if not argv:
        raise InvalidParamsError("command must not be empty", field="command")
    async with open_client(lambda: _open_launched(argv, env, config), config) as client:
        yield client


@asynccontextmanager
async def _open_launched(
    argv: list[str], env: Mapping[str, str] | None, config: ClientConfig, *, leaves: bool = False
) -> AsyncIterator[MessageChannel]:
    async with launched(argv, env=env) as server:
        stdin, stdout = server.stdin, server.stdout
        assert stdin is not None
        assert stdout is not None
        explain = partial(explain_exit, server, argv)
        async with open_stdio(stdin, stdout, config, explain, leaves=leaves) as channel:
            yield channel
