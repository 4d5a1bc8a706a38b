"""The servers of a pool, as its directory tells of them."""

from __future__ import annotations

import logging
from collections.abc import Hashable

import trio
from msgspec import Struct

from execsrv._nursery import open_helpers
from execsrv.directories import Endpoint
from execsrv.errors import ConnectionLostError
from execsrv.limits import ClientConfig
from execsrv.pool.asking import Ask
from execsrv.pool.labels import Labels, labels_of
from execsrv.pool.member import Dial, Member, State
from execsrv.pool.scheduler import Scheduler

logger = logging.getLogger(__name__)

_MOST_DIALING = 64
"""So many servers are being connected to at a time, beside those that take long."""

_TURN_SECONDS = 2.0
"""Then the next one has its turn: servers that say nothing would keep all others from being tried."""


class ServerState(Struct, frozen=True):
    """A server of a pool. `running` of its `slots` are taken; `why` is the last that went wrong, if anything did."""

    url: str
    labels: dict[str, str]
    state: State
    running: int
    slots: int
    why: str


class Members:
    """All servers, each with a task of its own, and the places on them."""

    def __init__(
        self,
        ask: Ask,
        dial: Dial,
        per_server: int,
        patience: float,
        refresh: float,
        config: ClientConfig,
        *,
        is_fixed: bool = False,
    ) -> None:
        """Where they are `is_fixed`, who is asked always says the same."""
        self.patience = patience
        self._ask = ask
        self._dial = dial
        self._per_server = per_server
        self._refresh = refresh
        self._config = config
        self._scheduler = Scheduler(patience, ask, is_fixed=is_fixed)
        self._by_url: dict[str, Member] = {}
        self._leaving: set[Member] = set()
        self._nursery: trio.Nursery | None = None
        self._dialing = trio.CapacityLimiter(_MOST_DIALING)
        self._life = trio.CancelScope()

    def __len__(self) -> int:
        return len(self._by_url)

    @property
    def running(self) -> int:
        """The places that are taken."""
        return sum(member.running for member in (*self._by_url.values(), *self._leaving))

    @property
    def waiting(self) -> int:
        """The commands that wait for a place."""
        return self._scheduler.waiting

    @property
    def wants(self) -> list[str]:
        """Servers that somebody waits for, since none is there, for people."""
        return self._scheduler.wants

    @property
    def states(self) -> list[ServerState]:
        """All servers, for people."""
        return [
            ServerState(str(each), dict(each.endpoint.labels), each.state, each.running, each.slots, each.why)
            for each in (*self._by_url.values(), *self._leaving)
        ]

    def check(self) -> None:
        """Raise `ConnectionLostError` where the pool is not open."""
        if self._nursery is None:
            raise closed()

    async def take(self, labels: Labels, share: Hashable, *, first: bool) -> Member:
        """Return a server on which a place is taken. Raises `NoServerError`, and as `check` does."""
        self.check()
        member = await self._scheduler.take(labels, share, first=first)
        assert isinstance(member, Member)
        return member

    async def stay(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Be connected with all servers that the directory names, until `end`. Raises what it raises at first.

        Once it has begun, no cancel from outside reaches it: over its connections the leases are cleared up.
        """
        try:
            with self._life:
                async with open_helpers() as nursery:
                    self._nursery = nursery
                    self._update(await self._ask())
                    nursery.start_soon(self._scheduler.watch)
                    self._life.shield = True
                    task_status.started()
                    await self._keep_asking()
        finally:
            self.close()

    async def _keep_asking(self) -> None:
        while True:
            await trio.sleep(self._refresh)
            try:
                self._update(await self._ask())
                self._scheduler.trouble = ""
            except Exception as error:  # whatever somebody's directory may raise
                if not self._scheduler.trouble:
                    logger.warning("cannot ask the directory, its last answer goes on: %s", error)
                self._scheduler.trouble = str(error) or type(error).__name__

    def close(self) -> None:
        """Start nothing any more. What has a place goes on, and what waits for one raises `ConnectionLostError`."""
        self._nursery = None
        self._scheduler.close(closed)

    def end(self) -> None:
        """Give all connections up."""
        self._life.cancel()

    def _update(self, endpoints: list[Endpoint]) -> None:
        if self._nursery is None:
            return  # new ones would be of no use
        named = {endpoint.url: endpoint for endpoint in endpoints}
        for url in [url for url in self._by_url if url not in named]:
            member = self._by_url.pop(url)
            self._scheduler.remove(member)
            self._leaving.add(member)
            member.leave()
        busy = {member.endpoint.url: member for member in self._leaving if member.running}
        for url, endpoint in named.items():
            is_back = url in busy and url not in self._by_url
            if is_back:  # what runs there has its places still, and the connection
                self._leaving.discard(busy[url])
                self._by_url[url] = busy[url]
                self._scheduler.add(busy[url])
                busy[url].come_back()
            known = self._by_url.get(url)
            slots = self._per_server if endpoint.free is None else endpoint.free
            if known is None:
                known = self._by_url[url] = Member(endpoint, slots, self._scheduler, self._config)
                self._scheduler.add(known)
                self._nursery.start_soon(self._keep, known)
            elif is_back or known.endpoint != endpoint:
                known.endpoint, known.slots = endpoint, slots
                known.is_hopeless = False  # it may have another token now
                self._scheduler.relabel(known, labels_of(endpoint.labels))

    async def _keep(self, member: Member) -> None:
        try:
            await member.stay(self._dial, self._take_turn)
        finally:
            self._leaving.discard(member)

    async def _take_turn(self, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        """Be among those that are being connected to, until that is cancelled, or has taken long."""
        with trio.CancelScope() as turn:
            async with self._dialing:
                task_status.started(turn)
                await trio.sleep(_TURN_SECONDS)


def closed() -> ConnectionLostError:
    """Return the error for who needs the pool behind its end."""
    return ConnectionLostError("the pool is closed")
