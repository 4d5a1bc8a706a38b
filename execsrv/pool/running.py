"""Commands that are run to their end by a pool: one, or many of them, some at a time."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Unpack, overload

import trio

from execsrv.client.keywords import MapKeywords, RunKeywords
from execsrv.client.many import Results
from execsrv.client.parameters import Data, Path, flag
from execsrv.client.result import Result
from execsrv.client.start_words import MAP_WORDS, RUN_WORDS, refused
from execsrv.errors import CommandError
from execsrv.pool.members import Members
from execsrv.pool.retrying import Sending

_MOST_RUNS = 3
_MAP_WORDS = MAP_WORDS | {"labels", "idempotent"}


class PoolKeywords(RunKeywords, total=False):
    """Keywords of `Pool.run` beside `input` and those of text, where they are explained."""

    labels: Mapping[str, str] | None
    share: str | None
    idempotent: bool


class PoolMapKeywords(MapKeywords, total=False):
    """Keywords of `Pool.map` beside its own and those of text, where they are explained."""

    labels: Mapping[str, str] | None
    share: str | None
    idempotent: bool


class Running:
    """A pool as it runs commands."""

    _members: Members
    _nursery: trio.Nursery | None = None

    def _open_nursery(self) -> trio.Nursery:
        if self._nursery is None:
            raise RuntimeError("the pool is not open: use `async with`")
        return self._nursery

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
        text: Literal[True] | None = None,
        encoding: str,
        errors: str | None = None,
        **options: Unpack[PoolKeywords],
    ) -> Result[str]: ...

    @overload
    async def run(
        self,
        argv: Sequence[Path],
        *,
        input: Data | str | None = None,
        text: Literal[True] | None = None,
        encoding: None = None,
        errors: str,
        **options: Unpack[PoolKeywords],
    ) -> Result[str]: ...

    @overload
    async def run(
        self, argv: Sequence[Path], *, input: Data | str | None = None, text: bool, **options: Unpack[PoolKeywords]
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
        **options: Unpack[PoolMapKeywords],
    ) -> Results[Result[str]]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 64,
        return_errors: Literal[False] = False,
        text: Literal[True] | None = None,
        encoding: str,
        errors: str | None = None,
        **options: Unpack[PoolMapKeywords],
    ) -> Results[Result[str]]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 64,
        return_errors: Literal[False] = False,
        text: Literal[True] | None = None,
        encoding: None = None,
        errors: str,
        **options: Unpack[PoolMapKeywords],
    ) -> Results[Result[str]]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 64,
        return_errors: Literal[False] = False,
        text: Literal[False] | None = None,
        **options: Unpack[PoolMapKeywords],
    ) -> Results[Result[bytes]]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 64,
        return_errors: Literal[False] = False,
        text: bool,
        **options: Unpack[PoolMapKeywords],
    ) -> Results[Result[Any]]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 64,
        return_errors: Literal[True],
        text: Literal[True],
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[PoolMapKeywords],
    ) -> Results[Result[str] | CommandError]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 64,
        return_errors: Literal[True],
        text: Literal[False] | None = None,
        **options: Unpack[PoolMapKeywords],
    ) -> Results[Result[bytes] | CommandError]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 64,
        return_errors: bool,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[PoolMapKeywords],
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
