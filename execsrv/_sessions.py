"""The sessions of one connection: their ids, their start, and how long they stay readable after their end."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from weakref import WeakKeyDictionary

import trio

from execsrv._files.files import Files, file_capabilities
from execsrv._output import Entry, OutputLog
from execsrv._processes.spawn import Spawned
from execsrv._session import Session
from execsrv.errors import LimitExceeded, ProcessExists
from execsrv.limits import Limits
from execsrv.protocol import Notification

Voice = Callable[[Session, Entry], Notification | None]
"""How a session's dialect tells an entry of its log; None for what it has no word for."""


class Sessions:
    """See the module. Each session runs as a task in `nursery`, and ends with it at the latest."""

    def __init__(self, nursery: trio.Nursery, limits: Limits, has_news: Callable[[Session], None]) -> None:
        self.connection_id = str(uuid.uuid4())
        self.capabilities = file_capabilities(limits)
        self.files: Files | None = None  # those of the channel that is there
        self._nursery = nursery
        self._limits = limits
        self._has_news = has_news
        self._by_id: dict[str, Session] = {}
        # As long as the session itself: its log may still have to be told when its id is forgotten.
        self._voices: WeakKeyDictionary[Session, Voice] = WeakKeyDictionary()
        self._ended: dict[str, Session] = {}  # those that have closed, oldest first
        self._last_number = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def check_window(self, window_bytes: int | None) -> None:
        """Raise `LimitExceeded` for a window that is too large."""
        bound = self._limits.max_window_bytes
        if window_bytes is not None and window_bytes > bound:
            message = f"windowBytes is {window_bytes}: max_window_bytes ({bound}) would be exceeded"
            raise LimitExceeded(message, limit="max_window_bytes", value=bound)

    def claim(self, id: str | None) -> str:
        """An id for a new session: the one asked for, or the next `session-N`. Raises `ProcessExists`."""
        self._forget_old()
        if id is not None:
            if id in self._by_id:
                raise ProcessExists(f"process ID already exists: `{id}`", processId=id)
            return id
        while (assigned := f"session-{self._last_number + 1}") in self._by_id:
            self._last_number += 1
        return assigned

    def adopt(self, id: str, spawned: Spawned, voice: Voice, window_bytes: int | None = None) -> Session:
        """Make a session of what was spawned; from here on it is ended with the connection.

        With a window, its reader lags by at most that, by its own acknowledgements.
        """
        if id == f"session-{self._last_number + 1}":
            self._last_number += 1
        limits = self._limits
        window = limits.unsent_output_bytes if window_bytes is None else window_bytes
        output = OutputLog(limits.retained_output_bytes, window, acknowledged=window_bytes is not None)
        session = Session(id, spawned, output, limits, self._has_news)
        self._by_id[id] = session
        self._voices[session] = voice
        self._nursery.start_soon(self._run, session)
        return session

    async def _run(self, session: Session) -> None:
        await session.run()
        self._ended[session.id] = session

    def find(self, id: str) -> Session | None:
        """The session of that id, running or ended and still retained."""
        self._forget_old()
        return self._by_id.get(id)

    def next_notification(self, session: Session) -> Notification | None:
        """What its dialect says of the next entry of a session's log."""
        return self._voices[session](session, session.log.take())

    def _forget_old(self) -> None:
        """Let go of ended sessions whose time is over, and of the oldest beyond the bound."""
        horizon = trio.current_time() - self._limits.exited_retention_seconds
        while self._ended:
            id, session = next(iter(self._ended.items()))
            assert session.closed_at is not None
            if len(self._ended) <= self._limits.retained_sessions and session.closed_at > horizon:
                return
            del self._ended[id], self._by_id[id]
