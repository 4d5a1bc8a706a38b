"""The sessions of one connection: their ids, their start, and how long they stay readable after their end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

import trio

from execsrv._log.log import Entry
from execsrv._processes.spawn import Spawned
from execsrv._processes.supervisor import Supervisor
from execsrv._server.session import Session, StartOptions
from execsrv.errors import LimitExceededError, NotReadyError, ProcessExistsError
from execsrv.limits import ServerConfig
from execsrv.protocol import Notification, Reason

Voice = Callable[[Session, Entry], Notification | None]
"""How a session's dialect tells an entry of its log; None for what it has no word for."""


class Sessions:
    """See the module. Each session runs as a task in `nursery`, and ends with it at the latest."""

    def __init__(
        self, nursery: trio.Nursery, supervisor: Supervisor, config: ServerConfig, has_news: Callable[[Session], None]
    ) -> None:
        self.supervisor = supervisor
        self._nursery = nursery
        self._config = config
        self._has_news = has_news
        self._by_id: dict[str, Session] = {}
        # As long as the session itself: its log may still have to be told when its id is forgotten.
        self._voices: WeakKeyDictionary[Session, Voice] = WeakKeyDictionary()
        self._ended: dict[str, Session] = {}  # those that have closed, oldest first
        self._closed = False
        self._over = trio.lowlevel.ParkingLot()
        self._last_number = 0

    def __iter__(self) -> Iterator[Session]:
        """Those that can still be asked for, oldest first."""
        self._forget_old()
        return iter(list(self._by_id.values()))

    def claim(self, id: str | None) -> str:
        """An id for a new session: the one asked for, or the next `session-N`.

        Raises `ProcessExistsError`, `LimitExceededError` when as many run as may, and `NotReadyError` at the end of the
        connection.
        """
        self._forget_old()
        if self._closed:
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

    def adopt(self, id: str, spawned: Spawned, voice: Voice, terms: StartOptions) -> Session:
        """Make a session of what was spawned; from here on it is ended with the connection."""
        if id == f"session-{self._last_number + 1}":
            self._last_number += 1
        session = Session(id, spawned, terms, self._config, self._has_news)
        self._by_id[id] = session
        self._voices[session] = voice
        self._nursery.start_soon(self._run, session)
        return session

    async def _run(self, session: Session) -> None:
        await session.run()
        self._ended[session.id] = session
        self._over.unpark_all()

    def close(self) -> None:
        """From now on nothing is started any more."""
        self._closed = True

    def terminate_all(self, reason: Reason, grace: float) -> None:
        """Have every session end."""
        for session in self._by_id.values():
            session.terminate(reason, grace)

    async def wait_over(self) -> None:
        """Wait until nothing runs any more."""
        while len(self._ended) < len(self._by_id):
            await self._over.park()

    def find(self, id: str) -> Session | None:
        """The session of that id, running or ended and still retained."""
        self._forget_old()
        return self._by_id.get(id)

    def next_notification(self, session: Session) -> Notification | None:
        """What its dialect says of the next entry of a session's log."""
        return self._voices[session](session, session.log.take())

    def _forget_old(self) -> None:
        """Let go of ended sessions whose time is over, and of the oldest beyond the bound."""
        horizon = trio.current_time() - self._config.exited_retention
        while self._ended:
            id, session = next(iter(self._ended.items()))
            assert session.closed_at is not None
            if len(self._ended) <= self._config.retained_sessions and session.closed_at > horizon:
                return
            del self._ended[id], self._by_id[id]
