"""All connections of one server, by id: the top of its task tree. Each has its place here from `initialize` on.

    open_connections
    ├─ Connection.run, one for each
    └─ what serves operators: see `for_operators.py`

Where there is no place left, a connection that waits to be resumed and has nothing to come back for gives its own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import ExitStack, asynccontextmanager
from functools import partial

import trio

from execsrv._budget.allowance import CONNECTION_BYTES, Allowances
from execsrv._doors.journal import Journal
from execsrv._doors.principal import Principal
from execsrv._doors.reloads import Reloads
from execsrv._nursery import contain, open_helpers, owned
from execsrv._processes.supervisor import Supervisor
from execsrv._server.connection import Connection
from execsrv._server.connection_names import Directory
from execsrv._server.for_operators import open_operations
from execsrv._server.sharing import NO_TERMS, Terms
from execsrv.errors import LimitExceededError, NotReadyError, UnknownConnectionError
from execsrv.limits import DEFAULTS, ServerConfig

_UNUSED_SECONDS = 30.0

logger = logging.getLogger(__name__)


class Connections:
    """The connections of one server, by id."""

    def __init__(self, nursery: trio.Nursery, supervisor: Supervisor, config: ServerConfig) -> None:
        self.config = config
        self.journal = Journal()
        self._supervisor = supervisor
        self.allowances = Allowances(config)
        self.accepts = False
        """True once somebody can come in."""
        self.draining = trio.Event()
        """Set when the server is to end in order: nothing new from now on."""
        self.stopping = trio.Event()
        """Set when it does end: goodbye to the connections that there are."""
        self.ends_at = math.inf
        """The time at which the server is gone at the latest, once it is draining."""
        self._nursery = nursery
        self.directory = Directory()
        self.account_thread = trio.CapacityLimiter(1)
        """For the name service: where it hangs, one thread does."""
        self._by_id: dict[str, Connection] = {}
        self._opened = trio.lowlevel.ParkingLot()
        self._ended = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def is_ready(self) -> bool:
        """True while new connections are taken."""
        return self.accepts and not self.draining.is_set()

    @property
    def kept_bytes(self) -> int:
        """Bytes of output that all sessions keep."""
        return sum(session.log.kept_bytes for connection in self._by_id.values() for session in connection.sessions)

    @property
    def reaped(self) -> int:
        """Processes that became ours when their parents had gone, and were reaped."""
        return self._supervisor.reaped

    def configure(self, config: ServerConfig) -> None:
        """Serve connections that come from now on by other settings. Those that are there keep theirs.

        The ceilings are everybody's, and change at once.
        """
        self.config = config
        self.allowances.configure(config)

    async def open(self, principal: Principal, origin: str = "", terms: Terms = NO_TERMS) -> Connection:
        """Return a new connection of somebody, without a channel so far. Raises `LimitExceededError`.

        `origin` is where it comes from, for the journal. Raises what `Directory.check` does for `terms`.
        """
        if self.draining.is_set():
            raise NotReadyError("the server is shutting down")
        self.directory.check(principal, terms, self.config)
        of_one = [each for each in self._by_id.values() if each.principal.name == principal.name]
        self._check_room(principal, of_one, "max_connections_per_principal", self.config.max_connections_per_principal)
        self._check_room(principal, self._by_id.values(), "max_connections", self.config.max_connections)
        allowance = self.allowances.of(principal.name)
        allowance.for_connections.take(CONNECTION_BYTES)
        connection = Connection(
            self._supervisor, self.config, self.stopping, principal, allowance, terms, self.directory
        )
        if self.journal.observers:
            connection.sessions.page = self.journal.new_page(principal, origin, with_argv=self.config.audit_argv)
        self._by_id[connection.id] = connection
        self._opened.unpark_all()
        await self._nursery.start(self._run, connection)
        return connection

    async def _run(self, connection: Connection, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            await contain("connection", partial(connection.run, task_status=task_status))
        finally:
            self._by_id.pop(connection.id, None)
            self._ended.unpark_all()
            connection.sessions.forget_all()
            connection.close()
            connection.allowance.for_connections.give(CONNECTION_BYTES)

    def _check_room(self, principal: Principal, connections: Collection[Connection], limit: str, bound: int) -> None:
        """Raise `LimitExceededError` where there are as many as there may be.

        Before, the one gives its place that has waited longest to be resumed, of those with nothing to come back for:
        one of the principal who asks, where there is any.
        """
        if len(connections) < bound:
            return
        waiting = [connection for connection in connections if connection.is_waiting_for_nothing]
        if not waiting:
            absent = sum(connection.deadline < math.inf for connection in connections)
            rest = f", {absent} of them without a client: they wait to be resumed" if absent else ""
            raise LimitExceededError(f"{limit} ({bound}) are open{rest}", limit=limit, value=bound)
        longest = min(waiting, key=lambda each: (each.principal.name != principal.name, each.deadline))
        del self._by_id[longest.id]
        longest.end()

    async def wait_unused(self) -> None:
        """Wait for the end of the last connection, or until none has come for a while."""
        with trio.move_on_after(_UNUSED_SECONDS):
            while not self._by_id:
                await self._opened.park()
        while self._by_id:
            await self._ended.park()

    def find(self, id: str, principal: Principal) -> Connection:
        """Return somebody's connection with this id or name, to be taken up.

        Raises `UnknownConnectionError`, for another's too, and for one that belongs to a higher role of his.
        """
        connection = self._by_id.get(id)
        if connection is None and (shared := self.directory.named(id, principal)) is not None:
            connection = next((each for each in self._by_id.values() if each.shared is shared), None)
        if (
            connection is None
            or connection.principal.name != principal.name
            or connection.principal.role > principal.role
        ):
            raise UnknownConnectionError(f"unknown session id {id}")
        return connection

    def end_others(self, lets_in: Callable[[Principal], bool]) -> None:
        """End the connections of those who are not let in any more, with all that runs there."""
        for connection in list(self._by_id.values()):
            if not lets_in(connection.principal):
                logger.warning("ending a connection of %s, who is not let in any more", connection.principal)
                connection.end()

    async def drain(self, hurry_trigger: Callable[[], Awaitable[object]] = trio.sleep_forever) -> None:
        """Take nothing new, tell every peer, and wait for what runs: for `drain_period`, or until that returns."""
        period = self.config.drain_period
        self.ends_at = trio.current_time() + period + self.config.shutdown_grace_period
        for connection in self._by_id.values():
            connection.sessions.drain()
        self.draining.set()
        async with open_helpers() as nursery:
            with trio.move_on_after(period) as draining:
                nursery.start_soon(owned, self._hurry, hurry_trigger, draining)
                for connection in list(self._by_id.values()):
                    await connection.sessions.wait_over()

    @staticmethod
    async def _hurry(trigger: Callable[[], Awaitable[object]], draining: trio.CancelScope) -> None:
        await trigger()
        draining.cancel()

    async def stop(self) -> None:
        """End every connection in order: its commands are asked to end, then killed, and its peer is told.

        Takes little more than `shutdown_grace_period`. Cancelling ends all at once.
        """
        self.stopping.set()
        with trio.move_on_after(self.config.shutdown_grace_period + 2 * self.config.flush_timeout):
            while self._by_id:
                await self._ended.park()
        for connection in list(self._by_id.values()):
            await connection.sessions.shut_down(0)


@asynccontextmanager
async def open_connections(
    supervisor: Supervisor, config: ServerConfig = DEFAULTS, reloads: Reloads | None = None
) -> AsyncIterator[Connections]:
    """Keep connections. Leaving the block, by cancellation too, ends them and kills all that they started.

    Raises `InvalidConfigError` and `CannotListenError` for what the settings name and what is not to be had.
    """
    with ExitStack() as stack:
        async with open_helpers() as nursery:
            connections = Connections(nursery, supervisor, config)
            if reloads is not None:
                reloads.configure = connections.configure
            await open_operations(connections, nursery, stack, reloads)
            yield connections
