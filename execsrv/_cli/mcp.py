"""`execsrv mcp`: the tools of agents as a server of the Model Context Protocol, on stdio or HTTP."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from execsrv._cli.manners import Manners
from execsrv._cli.reach import Reach
from execsrv._cli.usage import UsageError
from execsrv.agents.policy import Policy
from execsrv.client import Client
from execsrv.errors import ExecsrvError


def mcp(
    *,
    cwd: str | None,
    ask: bool,
    only: tuple[str, ...],
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
    if recordings is not None:
        os.makedirs(recordings, mode=0o700, exist_ok=True)
    options: dict[str, Any] = {} if cwd is None else {"cwd": os.path.abspath(cwd) if reach.url is None else cwd}
    trio.run(_serve, reach, Policy(ask=ask, only=only), recordings, options, listen, http_token_file, manners)
    return 0


async def _serve(
    reach: Reach,
    policy: Policy,
    recordings: str | None,
    options: dict[str, Any],
    listen: str | None,
    token_file: str | None,
    manners: Manners,
) -> None:
    from execsrv.agents.mcp import make_server
    from execsrv.agents.mcp_serving import serve_http, serve_stdio
    from execsrv.agents.tools import open_tools

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_heed_signals, nursery.cancel_scope)
        async with _client(reach) as client, open_tools(client, recordings=recordings, **options) as tools:
            server = make_server(tools, policy)
            if listen is None or token_file is None:
                await serve_stdio(server)
            else:
                await serve_http(server, listen, token_file, lambda url: manners.note(f"mcp listening on {url}"))
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
