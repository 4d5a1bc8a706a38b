"""The servers that a command is spread over: where they are found, and how they are reached."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio

from execsrv._cli.reach import Reach
from execsrv._cli.usage import UsageError
from execsrv._nursery import open_helpers
from execsrv.client import Client
from execsrv.directories import Directory, Endpoint, directory_of
from execsrv.pool import Lease, Pool
from execsrv.pool.asking import asks
from execsrv.pool.pool import members_of

_WAIT_SECONDS = 1.0
"""A shorter wait is not worth a word."""


class PoolReach(NamedTuple):
    """The options of reaching the servers of a pool. Where none is named, it is the one server of `reach`."""

    pool: str | None
    reach: Reach

    @property
    def directory(self) -> Directory | list[Endpoint]:
        """Where its servers are found. Raises `InvalidConfigError`."""
        return directory_of(self.pool) if self.pool is not None else [Endpoint(self.reach.where)]

    @asynccontextmanager
    async def open(self, note: Callable[[str], None], **more: Any) -> AsyncIterator[Pool]:
        """Open the pool. More keywords are those of `Pool`. Raises `ExecsrvError`.

        A person at a terminal is told by `note` of a server that is waited for.
        """
        reach = self.reach
        opening = Pool(
            self.directory, token_file=reach.token_file, reconnect=reach.reconnect, config=reach.config, **more
        )
        async with opening as pool, open_helpers() as nursery:
            if os.isatty(2):
                nursery.start_soon(_tell_waits, pool, note)
            yield pool

    async def endpoints(self) -> list[Endpoint]:
        """Ask which servers there are. Raises `ExecsrvError`."""
        return await asks(self.directory)()

    @asynccontextmanager
    async def connect(self, endpoint: Endpoint) -> AsyncIterator[Client]:
        """Connect to one of them. Raises `ConnectionFailedError`."""
        own: dict[str, Any] = {} if endpoint.token is None else {"token": endpoint.token}
        reach = self.reach._replace(
            url=endpoint.url,
            token_file=None if own else endpoint.token_file or self.reach.token_file,
            allow_plain_network=endpoint.allow_plain_network or self.reach.allow_plain_network,
        )
        async with reach.connect(**own) as client:
            yield client


@asynccontextmanager
async def leased(pool: str, labels: Sequence[str], reach: Reach, note: Callable[[str], None]) -> AsyncIterator[Lease]:
    """Have one server of a pool for a block. `note` is as for `open`. Raises `ExecsrvError` and `UsageError`."""
    async with (
        PoolReach(pool, reach).open(note) as opened,
        opened.lease(labels=labels_of(labels), scratch=False) as lease,
    ):
        yield lease


async def _tell_waits(pool: Pool, note: Callable[[str], None]) -> None:
    """Tell what is waited for, once for each time that it goes on for a moment."""
    told: list[str] = []
    while True:
        await trio.sleep(_WAIT_SECONDS)
        wants = members_of(pool).wants
        for want in wants:
            if want not in told:
                note(f"waiting for {want}")
        told = wants


def labels_of(words: Sequence[str]) -> dict[str, str]:
    """Return the labels of some `NAME=VALUE`. Raises `UsageError`."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise UsageError(f"invalid --label `{word}`; expected `NAME=VALUE`")
        found[name] = value
    return found
