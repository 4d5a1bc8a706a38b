"""The sessions of one connection: their ids, their start, and how long they stay readable after their end.

nursery of the connection
├─ forget_ended          lets go of ended sessions when their time is over
└─ _run, one for each    `Session.run`, then the session counts as ended
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import trio

from execsrv._nursery import contain, owned
from execsrv._processes.supervisor import Spawned, Supervisor
from execsrv._server.outbox import Dialect, Outbox
from execsrv._server.session import Session, StartOptions
from execsrv._wire.quoting import quoted
from execsrv.errors import LimitExceededError, NotReadyError, ProcessExistsError
from execsrv.limits import ServerConfig
from execsrv.protocol import Reason

logger = logging.getLogger(__name__)


class Sessions:
    """All that run and those that have ended and can still be asked for, oldest first. Their tasks are the owner's."""

    def __init__(self, supervisor: Supervisor, config: ServerConfig) -> None:
        self.supervisor = supervisor
        self._config = config
        self._nursery: trio.Nursery | None = None
        self._outbox: Outbox | None = None
        self._by_id: dict[str, Session] = {}
        self._ended: dict[str, Session] = {}  # those that are over, in that order
        self._over = trio.lowlevel.ParkingLot()
        self._last_number = 0

    def __repr__(self) -> str:
        return f"<Sessions running={len(self._by_id) - len(self._ended)} ended={len(self._ended)}>"

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    # -- their start --

    def open(self, nursery: trio.Nursery) -> None:
        """Run sessions in this nursery from now on; with it they end at the latest."""
        self._nursery = nursery
        nursery.start_soon(owned, self.forget_ended)

    def close(self) -> None:
        """Start nothing from now on."""
        self._nursery = None

    def claim(self, id: str | None) -> str:
        """Return an id for a new session: the one asked for, or the next `session-N`.

        Raises `ProcessExistsError`, `LimitExceededError` when as many run as may, and `NotReadyError` at the end of the
        connection.
        """
        if self._nursery is None:
            raise NotReadyError("the connection is ending")
        if id is not None and id in self._by_id:
            raise ProcessExistsError(f"process ID already exists: `{id}`", processId=id)
        bound = self._config.max_sessions_per_connection
        if len(self._by_id) - len(self._ended) >= bound:
            message = f"max_sessions_per_connection ({bound}) are running"
            raise LimitExceededError(message, limit="max_sessions_per_connection", value=bound)
        if id is not None:
            return id
        while (assigned := f"session-{self._last_number + 1}") in self._by_id:
            self._last_number += 1
        return assigned

    def adopt(self, id: str, spawned: Spawned, dialect: Dialect, options: StartOptions) -> Session:
        """Make a session, under a claimed id, of a command that was spawned. It ends with the connection.

        `dialect` says to the peer what happens to it.
        """
        assert self._nursery is not None, "an id is claimed first"
        if id == f"session-{self._last_number + 1}":
            self._last_number += 1
        session = Session(id, spawned, options, self._config, dialect, self._outbox)
        self._by_id[id] = session
        self._nursery.start_soon(self._run, session)
        return session

    async def _run(self, session: Session) -> None:
        if not await contain("session", session.run) or session.log.closed is None:
            logger.error("session %s has failed, and was killed; the others go on", quoted(session.id))
            session.abandon()
        self._ended[session.id] = session
        if len(self._ended) > self._config.retained_sessions:
            self._forget_oldest()
        self._over.unpark_all()

    def find(self, id: str) -> Session | None:
        """Return the session of that id, running or ended and still retained."""
        return self._by_id.get(id)

    # -- who hears of them --

    def attach(self, outbox: Outbox) -> None:
        """Tell there what happens to each session from now on."""
        self._outbox = outbox
        for session in self._by_id.values():
            session.feed.attach(outbox)

    def detach(self) -> None:
        """Tell nobody until there is an outbox again."""
        self._outbox = None
        for session in self._by_id.values():
            session.feed.detach()

    # -- their end --

    def terminate_all(self, reason: Reason, grace: float) -> None:
        """Have every session end."""
        for session in self._by_id.values():
            session.terminate(reason, grace)

    async def wait_over(self) -> None:
        """Wait until nothing runs any more."""
        while len(self._ended) < len(self._by_id):
            await self._over.park()

    async def forget_ended(self) -> None:
        """Let go of every session when it has been closed for `exited_retention`."""
        while True:
            while not self._ended:
                await self._over.park()
            closed_at = next(iter(self._ended.values())).closed_at
            assert closed_at is not None
            await trio.sleep_until(closed_at + self._config.exited_retention)
            if self._ended and next(iter(self._ended.values())).closed_at == closed_at:
                self._forget_oldest()

    def _forget_oldest(self) -> None:
        id = next(iter(self._ended))
        del self._ended[id], self._by_id[id]
