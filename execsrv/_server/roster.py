"""The sessions of one connection as a list: by their ids, those that are being started and those that have ended."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack

import trio

from execsrv._memory import freed, let_go
from execsrv._processes.proc import Steps
from execsrv._processes.supervisor import Supervisor
from execsrv._processes.turns import in_one_turn
from execsrv._server.outbox import Outbox
from execsrv._server.session import Session
from execsrv._server.starting import Starting
from execsrv.errors import LimitExceededError, ProcessExistsError
from execsrv.protocol import Reason


class Roster:
    """All that run and those that have ended and can still be asked for, oldest first. It starts none."""

    def __init__(self, supervisor: Supervisor, visited: Container[str]) -> None:
        """No session gets an id that is among the `visited`: its connection calls one of another so."""
        self.supervisor = supervisor
        self._visited = visited
        self._outbox: Outbox | None = None
        self._is_alone = False  # nobody hears of them, and none waits for anybody
        self._starting: dict[str, Starting] = {}
        self._by_id: dict[str, Session] = {}
        self._ended: dict[str, Session] = {}  # those that are over, in that order
        self._over = trio.lowlevel.ParkingLot()
        self._last_number = 0

    def __repr__(self) -> str:
        return f"<Sessions running={self.running} ended={self.ended}>"

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def running(self) -> int:
        """Sessions that run, or are being started."""
        return len(self._starting) + len(self._by_id) - len(self._ended)

    @property
    def ended(self) -> int:
        """Sessions that have ended, and can still be asked for."""
        return len(self._ended)

    def being_started(self) -> list[Starting]:
        """Return the starts that are under way, oldest first."""
        return list(self._starting.values())

    def starting(self, id: str) -> Starting | None:
        """Return the start of that id that is under way."""
        return self._starting.get(id)

    def knows(self, id: str) -> bool:
        """Return whether an id is in use."""
        return id in self._by_id or id in self._starting

    def find(self, id: str) -> Session | None:
        """Return the session of that id, running or ended and still retained."""
        return self._by_id.get(id)

    def _claim(self, id: str | None, most: int) -> str:
        """Return that id, or the next `session-N`. Raises `ProcessExistsError` and `LimitExceededError`."""
        if id is not None and self._is_taken(id):
            raise ProcessExistsError(f"process ID already exists: `{id}`", processId=id)
        if self.running >= most:
            message = f"max_sessions_per_connection ({most}) are running"
            raise LimitExceededError(message, limit="max_sessions_per_connection", value=most)
        if id is not None:
            return id
        while self._is_taken(assigned := f"session-{self._last_number + 1}"):
            self._last_number += 1
        return assigned

    def _is_taken(self, id: str) -> bool:
        return id in self._by_id or id in self._starting or id in self._visited

    def _take_over(self, session: Session) -> None:
        """Have a session that has been started in the place of its start."""
        if session.id == f"session-{self._last_number + 1}":
            self._last_number += 1
        del self._starting[session.id]
        self._by_id[session.id] = session

    # -- who hears of them --

    def attach(self, outbox: Outbox) -> None:
        """Tell there what happens to each session from now on."""
        self._outbox = outbox
        self._is_alone = False
        for session in self._by_id.values():
            session.feed.attach(outbox)

    def detach(self) -> None:
        """Tell nobody until there is an outbox again."""
        self._outbox = None
        for session in self._by_id.values():
            session.feed.detach()

    def let_run(self) -> None:
        """Have no session wait for anybody, until there is an outbox again: who comes back reads what is retained."""
        self._is_alone = True
        for session in self._by_id.values():
            session.feed.let_run()

    # -- their end --

    async def hang_up(self, grace: float) -> float:
        """Have every session end because the connection does. Return the seconds that this may take.

        `grace` is for those that did not ask for one at their start.
        """
        for starting in self._starting.values():
            starting.terminate("disconnected", grace)
        graces = [session.grace(grace) for session in self._by_id.values()] + [grace] * len(self._starting)
        await self._end_all("disconnected", lambda session: session.grace(grace))
        return max(graces, default=0)

    async def shut_down(self, grace: float) -> None:
        """Have every session end with the server, each in that time or less."""
        for starting in self._starting.values():
            starting.terminate("shutdown", grace)
        await self._end_all("shutdown", lambda session: min(grace, session.grace(grace)))

    async def _end_all(self, reason: Reason, grace: Callable[[Session], float]) -> None:
        """Have all end. Where they are many, others have their turns meanwhile: but first all of them are asked to."""

        def asking() -> Steps[bool]:
            for session in self:
                session.terminate(reason, grace(session))
                yield
            return True

        steps, turn = asking(), self.supervisor.register.turn
        with ExitStack() as held:
            while True:
                with self.supervisor.one_look():
                    if in_one_turn(steps):
                        return
                if not turn.locked():  # what has ended meanwhile waits for it before it is looked after
                    turn.acquire_nowait()
                    held.callback(turn.release)
                await trio.lowlevel.checkpoint()

    async def wait_over(self) -> None:
        """Wait until nothing runs any more."""
        while self._starting or len(self._ended) < len(self._by_id):
            await self._over.park()

    async def wait_forgotten(self) -> None:
        """Wait until there is none: none that runs, is being started, or can still be asked for."""
        while self._starting or self._by_id:
            await self._over.park()

    # -- forgetting --

    def _forget_oldest(self) -> None:
        id = next(iter(self._ended))
        freed(self._ended[id].log.kept_bytes)
        self._ended[id].forget()
        del self._ended[id], self._by_id[id]
        self._over.unpark_all()

    def forget_all(self) -> None:
        """Let go of every session: all of them are over."""
        for session in self:
            session.forget()
        let_go((session.log, session.log.kept_bytes) for session in self)
