# Written by tests/facades.py from execsrv.pool.pool: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client under asyncio. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from execsrv._portal.awaiting import Made, Opening
from execsrv.client.parameters import Data, Path
from execsrv.client.result import Result
from execsrv.directories import Directory, Endpoint
from execsrv.errors import CommandError
from execsrv.limits import CLIENT_DEFAULTS, ClientConfig
from execsrv.pool.members import ServerState
from execsrv.pool.pool import Pool as TrioPool
from execsrv.pool.running import PoolKeywords, PoolMapKeywords

if TYPE_CHECKING:
    from execsrv.asyncio.lease import Lease
    from execsrv.asyncio.many import Results


class Pool(Made, of=TrioPool):
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
        self._make(
            partial(
                TrioPool,
                servers,
                per_server=per_server,
                token=token,
                token_file=token_file,
                reconnect=reconnect,
                patience=patience,
                refresh=refresh,
                config=config,
            )
        )

    @property
    def servers(self) -> list[ServerState]:
        """Servers of the pool, as they are now."""
        return self._get("servers")

    def lease(
        self, *, labels: Mapping[str, str] | None = None, share: str | None = None, scratch: bool = True
    ) -> Opening[Lease]:
        """Have one server for what is more than a command: a client of one's own there, and a `scratch` directory.

        It takes one place on a server with these `labels`, and is waited for as by `run`. Leaving the block ends all
        its commands, removes the directory, and gives the place back. A lease stays where it is: once its server is
        lost, or the pool is left, calls raise `ConnectionLostError`.

        Raises `NoServerError`, and with `scratch` `CommandFailedError` where there can be no directory.
        """
        return self._enter("lease", labels=labels, share=share, scratch=scratch)

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
        return await self._wait("run", argv, labels=labels, share=share, idempotent=idempotent, **options)

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
        return self._plain("map", commands, limit=limit, return_errors=return_errors, share=share, **options)
