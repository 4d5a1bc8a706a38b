"""The servers that a command is spread over: where they are found, and how they are reached."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from execsrv._cli.reach import Reach
from execsrv._cli.usage import UsageError
from execsrv.client import Client
from execsrv.directories import Directory, Endpoint, directory_of
from execsrv.pool import Lease, Pool
from execsrv.pool.asking import asks


class PoolReach(NamedTuple):
    """The options of reaching the servers of a pool. Where none is named, it is the one server of `reach`."""

    pool: str | None
    reach: Reach

    @property
    def directory(self) -> Directory | list[Endpoint]:
        """Where its servers are found. Raises `InvalidConfigError`."""
        return directory_of(self.pool) if self.pool is not None else [Endpoint(self.reach.where)]

    @asynccontextmanager
    async def open(self, **more: Any) -> AsyncIterator[Pool]:
        """Open the pool. More keywords are those of `Pool`. Raises `ExecsrvError`."""
        reach = self.reach
        opening = Pool(
            self.directory, token_file=reach.token_file, reconnect=reach.reconnect, config=reach.config, **more
        )
        async with opening as pool:
            yield pool

    async def endpoints(self) -> list[Endpoint]:
        """Ask which servers there are. Raises `ExecsrvError`."""
        return await asks(self.directory)()

    @asynccontextmanager
    async def connect(self, endpoint: Endpoint) -> AsyncIterator[Client]:
        """Connect to one of them. Raises `ConnectionFailedError`."""
        own: dict[str, Any] = {} if endpoint.token is None else {"token": endpoint.token}
        token_file = None if own else endpoint.token_file or self.reach.token_file
        async with self.reach._replace(url=endpoint.url, token_file=token_file).connect(**own) as client:
            yield client


@asynccontextmanager
async def leased(pool: str, labels: Sequence[str], reach: Reach) -> AsyncIterator[Lease]:
    """Have one server of a pool for a block. Raises `ExecsrvError` and `UsageError`."""
    async with (
        PoolReach(pool, reach).open() as opened,
        opened.lease(labels=labels_of(labels), scratch=False) as lease,
    ):
        yield lease


def labels_of(words: Sequence[str]) -> dict[str, str]:
    """Return the labels of some `NAME=VALUE`. Raises `UsageError`."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise UsageError(f"invalid --label `{word}`; expected `NAME=VALUE`")
        found[name] = value
    return found
