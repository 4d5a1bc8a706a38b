"""`execsrv mcp`: the tools of agents as a server of the Model Context Protocol, on stdio or HTTP."""

from __future__ import annotations

import importlib.util
import os
import posixpath
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from typing import Any

import trio

from execsrv._cli.confining import WORKSPACE, policy_of
from execsrv._cli.descriptors import raise_descriptor_limit
from execsrv._cli.job import RunOptions
from execsrv._cli.limiting import limits_of
from execsrv._cli.manners import Manners
from execsrv._cli.reach import Reach, path_there
from execsrv._cli.usage import UsageError
from execsrv._doors.tokens import read_own
from execsrv._nursery import happened, open_helpers
from execsrv._wire.paths import path_from_wire
from execsrv.agents.approval import Approval
from execsrv.client import Client
from execsrv.client.inside import connection_of
from execsrv.client.keywords import StartKeywords
from execsrv.client.policy import without
from execsrv.client.tokens import is_token
from execsrv.errors import ExecsrvError
from execsrv.protocol.connection import MAX_TOKEN_CHARACTERS

_LAST_WORD_SECONDS = 1.0
"""Time in which calls that wait are answered when the connection is lost."""


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
    **rights: Any,
) -> int:
    """Serve until the client hangs up, or a signal ends it. `rights` are options of what commands may do and take."""
    if (listen is None) != (http_token_file is None):
        raise UsageError("--listen and --http-token-file need each other: over HTTP nobody comes in without a token")
    if importlib.util.find_spec("mcp") is None:
        raise ExecsrvError("cannot speak MCP: its SDK is not installed; install `execsrv[mcp]`")
    token = None if http_token_file is None else _token(http_token_file)
    if listen is not None:
        raise_descriptor_limit()
    approval, wanted = Approval(ask=ask, only=only), RunOptions((), cwd=cwd, **rights)
    with nullcontext() if recordings is None else _folder(recordings) as folder:
        trio.run(_serve, reach, approval, wanted, folder, listen, token, manners)
    return 0


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
    folder = tempfile.mkdtemp(prefix=time.strftime("%Y-%m-%dT%H%M%S-"), dir=os.path.abspath(recordings))
    try:
        yield folder
    finally:
        with suppress(OSError):
            os.rmdir(folder)


async def _serve(
    reach: Reach,
    approval: Approval,
    wanted: RunOptions,
    recordings: str | None,
    listen: str | None,
    token: str | None,
    manners: Manners,
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_heed_signals, nursery.cancel_scope)
        async with _client(reach) as client:
            options = rights_of(client, wanted)
            if recordings is not None and (policy := options["sandbox"]) is not None:
                options["sandbox"] = without(policy, os.path.dirname(recordings))  # with those of earlier runs
            # What cannot be kept is told to the operator, and not by each call to a model.
            await client.run([client.info.shell.path, "-c", ":"], **options)
            async with open_helpers() as helpers:
                helpers.start_soon(_heed_loss, client)
                await _offer(client, approval, options, recordings, listen, token, manners)
        nursery.cancel_scope.cancel()


async def _offer(
    client: Client,
    approval: Approval,
    options: StartKeywords,
    recordings: str | None,
    listen: str | None,
    token: str | None,
    manners: Manners,
) -> None:
    """Serve by the SDK, which takes longest to load, and so is loaded when nothing is wrong with the options."""
    from execsrv.agents.mcp import make_server
    from execsrv.agents.mcp_serving import serve_http, serve_stdio
    from execsrv.agents.tools import open_tools

    async with open_tools(client, recordings=recordings, **options) as tools:
        server = make_server(tools, approval)
        if listen is None or token is None:
            await serve_stdio(server)
        else:
            await serve_http(server, listen, token, lambda url: manners.note(f"mcp listening on {url}"))


def rights_of(client: Client, wanted: RunOptions) -> StartKeywords:
    """Return where all commands are started, and what they may do and take. Raises `ExecsrvError`.

    Paths may begin with `~`: those of an agent's configuration have been through no shell.
    """

    def path(name: str) -> str:
        if name.startswith("~") and name.partition("/")[0] != "~":
            raise ExecsrvError(f"cannot tell whose home `{name}` is in: only `~` is known")
        if name.startswith("~"):
            return posixpath.normpath(posixpath.join(path_from_wire(client.info.user_home_dir, "home"), name[2:]))
        return path_there(client, name)

    if wanted.sandbox == WORKSPACE and path(wanted.cwd or ".") == "/":
        raise ExecsrvError(f"--sandbox {WORKSPACE} is about the directory, which is `/`: name another by --cwd")
    cwd = None if wanted.cwd is None else path(wanted.cwd)
    return {"cwd": cwd, "sandbox": policy_of(wanted, path), "limits": limits_of(wanted)}


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


async def _heed_loss(client: Client) -> None:
    """Raise `ConnectionLostError` when the connection is lost for good, so that the host may start this anew."""
    calls = connection_of(client).calls
    await happened(calls.ended)
    await trio.sleep(_LAST_WORD_SECONDS)
    calls.check()


async def _heed_signals(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for _ in signals:
            scope.cancel()
