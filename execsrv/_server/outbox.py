"""What waits to be sent to one peer, in the order in which it leaves.

First the answers, in order; then in turn one entry of each log that has news, and one of the notifications that have no
log (`tell`). Output is not copied in here: it waits in the logs, which are bounded, until the writer takes it; and who
tells waits for room. So no session can hold up another, none can hold up an answer, and nothing grows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from execsrv._server.session import Session
from execsrv.protocol import Message, Notification


class Outbox:
    """See the module. At most `max_answers` should wait in it: whoever makes more asks `wait_room` first."""

    def __init__(self, max_answers: int, max_told: int) -> None:
        self._max_answers = max_answers
        self._max_told = max_told
        self._answers: deque[Message] = deque()
        self._leaving = False  # what was taken last is still being sent
        self._answering = False  # and it is an answer
        self._answered = 0
        self._sessions: dict[Session, None] = {}  # an ordered set: who has news, longest first
        self._told: deque[Notification] = deque()
        self._tellers = trio.lowlevel.ParkingLot()
        self._turn_of_told = False
        self._wanted = trio.lowlevel.ParkingLot()
        self._taken = trio.lowlevel.ParkingLot()
        self.closed = False

    def put(self, answer: Message) -> None:
        """Add an answer."""
        self._answers.append(answer)
        self._wanted.unpark()

    def has_news(self, session: Session) -> None:
        """The log of this session has something for the peer."""
        self._sessions[session] = None
        self._wanted.unpark()

    async def tell(self, notification: Notification) -> None:
        """Add a notification that no log holds, behind every answer and all that was told before.

        Waits while `max_told` are in here. Cancelling leaves it untold; when nobody takes anything any more, so it is.
        """
        while len(self._told) >= self._max_told and not self.closed:
            await self._tellers.park()
        if self.closed:
            return
        self._told.append(notification)
        self._wanted.unpark()

    async def take(self, next_notification: Callable[[Session], Message | None]) -> Message:
        """The next message to send; the one taken before has left. For one task. Cancelling loses nothing.

        `next_notification` takes the next entry of a session's log and says it, if there is a word for it.
        Raises `trio.ClosedResourceError` when this is closed.
        """
        self._answered += self._answering
        self._leaving = self._answering = False
        self._taken.unpark_all()
        while not self.closed:
            if self._answers:
                self._leaving = self._answering = True
                return self._answers.popleft()
            self._turn_of_told = not self._turn_of_told
            if self._told and (self._turn_of_told or not self._sessions):
                self._tellers.unpark()
                self._leaving = True
                return self._told.popleft()
            for session in self._sessions:
                del self._sessions[session]
                message = next_notification(session)
                if session.log.has_news:
                    self._sessions[session] = None
                session.taken()
                if message is not None:
                    self._leaving = True
                    return message
                break
            else:
                await self._wanted.park()
        raise trio.ClosedResourceError

    async def wait_room(self) -> None:
        """Wait until the peer has read enough of its answers to ask for more."""
        while len(self._answers) >= self._max_answers and not self.closed:
            await self._taken.park()

    async def wait_answered(self) -> None:
        """Wait until every answer that is in here now has left, whatever comes behind them."""
        last = self._answered + self._answering + len(self._answers)
        while self._answered < last and not self.closed:
            await self._taken.park()

    async def wait_empty(self) -> None:
        """Wait until everything has left."""
        while (self._answers or self._told or self._sessions or self._leaving) and not self.closed:
            await self._taken.park()

    def close(self) -> None:
        """Nobody takes anything any more: there is nothing to wait for."""
        self.closed = True
        self._wanted.unpark_all()
        self._taken.unpark_all()
        self._tellers.unpark_all()
