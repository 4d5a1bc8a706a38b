"""`execsrv mcp`: the tools of agents as a server of the Model Context Protocol, on stdio or HTTP."""

from __future__ import annotations

import importlib.util
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, NamedTuple

import trio

from execsrv._cli.confining import policy_of
from execsrv._cli.manners import Manners
from execsrv._cli.reach import Reach, path_there
from execsrv._cli.usage import UsageError
from execsrv._doors.tokens import read_own
from execsrv.agents.approval import Approval
from execsrv.client import Client
from execsrv.client.tokens import is_token
from execsrv.errors import ExecsrvError
from execsrv.protocol.connection import MAX_TOKEN_CHARACTERS


def mcp(
    *,
    cwd: str | None,
    ask: bool,
    only: tuple[str, ...],
    sandbox: str | None,
    no_network: bool,
    read_only: bool,
    hide: tuple[str, ...],
    recordings: str | None,
    listen: str | None,
    http_token_file: str | None,
    reach: Reach,
    manners: Manners,
) -> int:
    """Serve until the client hangs up, or a signal ends it."""
    if (listen is None) != (http_token_file is None):
        raise UsageError("--listen and --http-token-file need each other: over HTTP nobody comes in without a token")
    if importlib.util.find_spec("mcp") is None:
        raise ExecsrvError("cannot speak MCP: its SDK is not installed; install `execsrv[mcp]`")
    token = None if http_token_file is None else _token(http_token_file)
    options: dict[str, Any] = {} if cwd is None else {"cwd": os.path.abspath(cwd) if reach.url is None else cwd}
    with nullcontext() if recordings is None else _folder(recordings) as folder:
        wanted = Wanted(sandbox, no_network, read_only, hide)
        trio.run(_serve, reach, Approval(ask=ask, only=only), wanted, folder, options, listen, token, manners)
    return 0


class Wanted(NamedTuple):
    """The options of what commands may do."""

    sandbox: str | None
    no_network: bool
    read_only: bool
    hide: tuple[str, ...]


def _token(path: str) -> str:
    """Return the token in a file. Raises `ExecsrvError`."""
    token = read_own(path, "token file", MAX_TOKEN_CHARACTERS + 64).strip()
    if not is_token(token):
        raise ExecsrvError(f"there is no token in `{path}`: expected one, in printable ASCII")
    return token


@contextmanager
def _folder(recordings: str) -> Iterator[str]:
    """Give a new folder for the recordings of this run: sessions count from 1 in each. An empty one goes."""
    os.makedirs(recordings, mode=0o700, exist_ok=True)
    folder = tempfile.mkdtemp(prefix=time.strftime("%Y-%m-%dT%H%M%S-"), dir=recordings)
    try:
        yield folder
    finally:
        with suppress(OSError):
            os.rmdir(folder)


async def _serve(
    reach: Reach,
    approval: Approval,
    wanted: Wanted,
    recordings: str | None,
    options: dict[str, Any],
    listen: str | None,
    token: str | None,
    manners: Manners,
) -> None:
    from execsrv.agents.mcp import make_server
    from execsrv.agents.mcp_serving import serve_http, serve_stdio
    from execsrv.agents.tools import open_tools

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_heed_signals, nursery.cancel_scope)
        async with _client(reach) as client:
            if (policy := policy_of(wanted, partial(path_there, client))) is not None:
                options["sandbox"] = policy
                # One that cannot be kept is told to the operator, and not by each call to a model.
                await client.run([client.info.shell.path, "-c", ":"], **options)
            async with open_tools(client, recordings=recordings, **options) as tools:
                server = make_server(tools, approval)
                if listen is None or token is None:
                    await serve_stdio(server)
                else:
                    await serve_http(server, listen, token, lambda url: manners.note(f"mcp listening on {url}"))
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _client(reach: Reach) -> AsyncIterator[Client]:
    """Open a client of the server that is meant, or of one in this process, which is all its own."""
    if reach.url is not None:
        async with reach.connect() as client:
            yield client
        return
    from execsrv._in_process import connect_in_process

    async with connect_in_process(own_process=True) as client:
        yield client


async def _heed_signals(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for _ in signals:
            scope.cancel()
