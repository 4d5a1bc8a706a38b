"""Many servers as one: a command goes to one that has room, and its result says to which.

A pool places commands, and nothing else: who starts servers, and where, is somebody else's. It decides by what is known
of a command. One that was not started goes elsewhere at once. One whose connection was lost goes on where the server
kept it. What is left is unknown, and is not run again unless its caller says that this does no harm.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

import trio

from execsrv._nursery import check_trio, open_helpers
from execsrv.client.client import Client
from execsrv.client.connect import connect
from execsrv.client.parameters import count, flag, seconds
from execsrv.directories import Directory, Endpoint
from execsrv.limits import CLIENT_DEFAULTS, ClientConfig
from execsrv.pool.asking import asks
from execsrv.pool.lease import Held, Lease, end_all, open_lease
from execsrv.pool.member import ClientLine, Line
from execsrv.pool.members import Members, ServerState
from execsrv.pool.running import Running


class Pool(Running):
    """The servers of a directory, or of a list. `async with` opens it; leaving the block ends all its commands.

    `servers` is a list of URLs or `Endpoint`s, or a directory, which is asked again every `refresh` seconds. While it
    fails, what it had said last goes on. A server that it does not name any more gets nothing new.

    Each server gets `per_server` commands at a time, unless its endpoint says otherwise. `token` or `token_file` is for
    endpoints that have none. With `reconnect` a lost connection is taken up again within so many seconds, where the
    server keeps it as long (`--resume-grace`): its commands go on, and none is run twice. A command that finds no
    server to run on for `patience` seconds is a `NoServerError`; that all are busy is no reason to give up.

    Raises what the directory raises when it is asked for the first time.
    """

    def __init__(
        self,
        servers: Directory | Iterable[str | Endpoint],
        *,
        per_server: int = 32,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        reconnect: float = 10,
        patience: float = 60,
        refresh: float = 2,
        config: ClientConfig = CLIENT_DEFAULTS,
    ) -> None:
        self._token = token
        self._token_file = token_file
        self._reconnect = seconds("reconnect", reconnect, zero=True)
        self._config = config
        self._members = Members(
            asks(servers),
            self._dial,
            count("per_server", per_server),
            seconds("patience", patience),
            seconds("refresh", refresh),
            config,
            is_fixed=not callable(servers),
        )
        self._leases: set[Held] = set()
        self._opened: AbstractAsyncContextManager[trio.Nursery] | None = None

    def __repr__(self) -> str:
        return f"<Pool servers={len(self._members)} running={self._members.running} waiting={self._members.waiting}>"

    async def __aenter__(self) -> Self:
        check_trio()
        if self._opened is not None:
            raise RuntimeError("a pool is opened once: make another one")
        self._opened = self._open()
        self._nursery = await self._opened.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._opened is not None
        return await self._opened.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[trio.Nursery]:
        async with open_helpers() as nursery:
            await nursery.start(self._members.stay)
            try:
                yield nursery
            finally:
                self._members.close()
                try:
                    await end_all(self._leases)
                finally:
                    self._members.end()

    @property
    def servers(self) -> list[ServerState]:
        """Servers of the pool, as they are now."""
        return self._members.states

    @asynccontextmanager
    async def _connect(self, endpoint: Endpoint) -> AsyncIterator[Client]:
        token, token_file = endpoint.token, endpoint.token_file
        if token is None and token_file is None:
            token, token_file = self._token, None if self._token_file is None else os.fspath(self._token_file)
        config = replace(self._config, allow_plain_network=True) if endpoint.allow_plain_network else self._config
        opening = connect(endpoint.url, token=token, token_file=token_file, reconnect=self._reconnect, config=config)
        async with opening as client:
            yield client

    @asynccontextmanager
    async def _dial(self, endpoint: Endpoint) -> AsyncIterator[Line]:
        async with self._connect(endpoint) as client:
            yield ClientLine(client)

    @asynccontextmanager
    async def lease(
        self, *, labels: Mapping[str, str] | None = None, share: str | None = None, scratch: bool = True
    ) -> AsyncIterator[Lease]:
        """Have one server for what is more than a command: a client of one's own there, and a `scratch` directory.

        It takes one place on a server with these `labels`, and is waited for as by `run`. Leaving the block ends all
        its commands, removes the directory, and gives the place back. A lease stays where it is: once its server is
        lost, or the pool is left, calls raise `ConnectionLostError`.

        Raises `NoServerError`, and with `scratch` `CommandFailedError` where there can be no directory.
        """
        flag("scratch", scratch)
        self._open_nursery()
        async with AsyncExitStack() as stack:
            yield await open_lease(stack, self._members, self._leases, self._connect, labels, share, scratch)


def members_of(pool: Pool) -> Members:
    """Return the servers of a pool, for what builds on it in this package."""
    return pool._members  # noqa: SLF001  # the one way in
