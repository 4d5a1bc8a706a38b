"""Many servers as one: a command goes to one that has room, and its result says to which.

A pool places commands, and nothing else: who starts servers, and where, is somebody else's. It decides by what is known
of a command. One that was not started goes elsewhere at once. One whose connection was lost goes on where the server
kept it. What is left is unknown, and is not run again unless its caller says that this does no harm.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

import trio

from execsrv._nursery import check_trio, open_helpers
from execsrv.client.client import Client
from execsrv.client.connect import connect
from execsrv.client.many import Results
from execsrv.client.parameters import Data, Path, RunKeywords, count, flag, seconds
from execsrv.client.result import Result
from execsrv.client.start_words import MAP_WORDS, RUN_WORDS, refused
from execsrv.directories import Directory, Endpoint
from execsrv.errors import CommandError
from execsrv.limits import CLIENT_DEFAULTS, ClientConfig
from execsrv.pool.asking import asks
from execsrv.pool.lease import Held, Lease, end_all, open_lease
from execsrv.pool.member import ClientLine, Line
from execsrv.pool.members import Members, ServerState
from execsrv.pool.retrying import Sending

_MOST_RUNS = 3
_MAP_WORDS = MAP_WORDS | {"labels", "idempotent"}


class PoolKeywords(RunKeywords, total=False):
    """Keywords of `Pool.run` beside `input` and those of text, where they are explained."""

    labels: Mapping[str, str] | None
    share: str | None
    idempotent: bool


class Pool:
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
        self._nursery: trio.Nursery | None = None

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

    def _open_nursery(self) -> trio.Nursery:
        if self._nursery is None:
            raise RuntimeError("the pool is not open: use `async with`")
        return self._nursery

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

    @overload
    async def run(
        self,
        argv: Sequence[Path],
        *,
        input: Data | str | None = None,
        text: Literal[True],
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[PoolKeywords],
    ) -> Result[str]: ...

    @overload
    async def run(
        self,
        argv: Sequence[Path],
        *,
        input: Data | None = None,
        text: Literal[False] | None = None,
        **options: Unpack[PoolKeywords],
    ) -> Result[bytes]: ...

    @overload
    async def run(
        self,
        argv: Sequence[Path],
        *,
        input: Data | str | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[PoolKeywords],
    ) -> Result[Any]: ...

    async def run(
        self,
        argv: Sequence[Path],
        *,
        labels: Mapping[str, str] | None = None,
        share: Hashable = None,
        idempotent: bool = False,
        **options: Any,
    ) -> Result[Any]:
        """Run a command to its end on one of the servers, as `Client.run` does, whose keywords it has.

        It runs on a server with these `labels`, and waits while all of them are full. Commands of one `share` and of
        another take turns then.

        A command that no server has started goes to the next one. Where its server is lost, nobody knows how far it
        came: that is an `Unknown`, unless it is `idempotent`, and may be run again elsewhere, three times at most.

        Raises `NoServerError`, `Unknown`, and what `Client.run` raises but `ConnectionLostError`.
        """
        flag("idempotent", idempotent)
        self._open_nursery()
        if not options.keys() <= RUN_WORDS:
            raise refused("run", options.keys() - RUN_WORDS)
        sending = Sending(self._members, labels, share, runs=_MOST_RUNS if idempotent else 1)
        return await sending.run(argv, options)

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 64,
        return_errors: Literal[False] = False,
        text: Literal[True],
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[PoolKeywords],
    ) -> Results[Result[str]]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 64,
        return_errors: Literal[False] = False,
        text: Literal[False] | None = None,
        **options: Unpack[PoolKeywords],
    ) -> Results[Result[bytes]]: ...

    @overload
    def map(
        self, commands: Iterable[Sequence[Path]], *, limit: int = 64, return_errors: bool, **options: Any
    ) -> Results[Result[Any] | CommandError]: ...

    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 64,
        return_errors: bool = False,
        share: str | None = None,
        **options: Any,
    ) -> Results[Any]:
        """Run many commands, at most `limit` at a time, and iterate over their results in the order in which they end.

        `Result.argv` tells whose it is, and `Result.server` where it ran. Each command has one result, or one error:
        `Unknown` where its server was lost. An error ends all others, unless `return_errors` has it among the results.

        Other keywords are those of `run`, without `input` and `record`. The commands are a share of their own, unless
        they have the name of another one. As for the rest it is `Client.map`.
        """
        flag("return_errors", return_errors)
        if not options.keys() <= _MAP_WORDS:
            raise refused("map", options.keys() - _MAP_WORDS)
        nursery = self._open_nursery()
        run = partial(self.run, share=object() if share is None else share, **options)
        return Results(self._members.check, nursery, run, commands, limit, return_errors)

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
