"""The messages that wait to be sent to one peer, in the order in which they leave.

First the answers, in order; then in turn one entry of each log that has news, and one of the notifications that have no
log (`tell`). Output is not copied in here: it waits in the logs, which are bounded, until the writer takes it; and who
tells waits for room. So no session can hold up another, none can hold up an answer, and nothing grows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from execsrv._log.entries import Entry
from execsrv._log.log import OutputLog
from execsrv._memory import freed
from execsrv._wire.channel import MessageChannel
from execsrv.protocol import Message, Notification

_UNREAD_ANSWERS = 256
"""Answers of one connection that may wait for its peer. Beyond it no further request is read."""

_QUEUED_NOTIFICATIONS = 16
"""Notifications without a log (pieces of HTTP bodies, news of files) that may wait. Beyond it their makers wait."""

Dialect = Callable[[str, Entry], Notification | None]
"""Say an entry of the log of the session with this id; None for an entry that the dialect has no word for."""


class Feed:
    """The log of one session as its peer hears it: entry after entry, in the words of a dialect.

    It outlives the session where the peer has not heard all of it. Without an outbox nobody hears anything. A peer that
    has come back hears nothing before it says where to go on, unless its dialect has no way to.
    """

    def __init__(
        self, id: str, log: OutputLog, dialect: Dialect, outbox: Outbox | None, is_read_again: bool = True
    ) -> None:
        self._id = id
        self._log = log
        self.reader = log.reader
        self._dialect = dialect
        self._outbox = outbox
        self._is_read_again = is_read_again
        self._appended: trio.lowlevel.ParkingLot | None = None  # made for the first who wait
        self._taken: trio.lowlevel.ParkingLot | None = None
        if outbox is None:  # the channel went while the session was started
            self.detach()

    def __repr__(self) -> str:
        return f"<Feed {self._id} {self.reader}>"

    def take(self) -> Notification | None:
        """Return the next entry as a notification. Raises `LookupError` when there is none."""
        entry = self._log.take()
        self.wake()
        return self._dialect(self._id, entry)

    @property
    def is_at_its_end(self) -> bool:
        """True where everything was taken, and nothing comes any more."""
        return self._log.closed is not None and not self.reader.has_news

    def announce(self) -> None:
        """Tell of what is new in the log: those who wait for it, and the outbox as far as it may take it."""
        if self._appended is not None:
            self._appended.unpark_all()
        if self._outbox is not None and self.reader.has_news:
            self._outbox.feed(self)

    async def wait_appended(self) -> None:
        """Wait for the next entry of the log."""
        if self._appended is None:
            self._appended = trio.lowlevel.ParkingLot()
        await self._appended.park()

    async def wait_taken(self) -> None:
        """Wait until something was taken or acknowledged, or until `wake`: there may be room in the log."""
        if self._taken is None:
            self._taken = trio.lowlevel.ParkingLot()
        await self._taken.park()

    def wake(self) -> None:
        """End every `wait_taken`."""
        if self._taken is not None:
            self._taken.unpark_all()

    def acknowledge(self, seq: int) -> None:
        """Count all entries up to `seq` as had by the peer. What was withheld till then may be told."""
        self._log.acknowledge(seq)
        self.wake()
        self.announce()

    def attach(self, outbox: Outbox) -> None:
        """Tell there, from `go_on` on, what the peer has missed and what is appended."""
        self._outbox = outbox
        self._log.attach()
        if not self._is_read_again:
            self.go_on(self.reader.last_taken + 1)

    def go_on(self, seq: int) -> None:
        """Let a peer that has come back hear the log from this entry on. For any other, nothing changes."""
        if not self.reader.is_here and self._outbox is not None:
            self._log.go_on(seq)
            self.wake()
            self.announce()

    def detach(self) -> None:
        """Tell nothing until somebody is attached again."""
        self._outbox = None
        self._log.detach()
        self.wake()

    def leave(self) -> None:
        """Tell nothing any more: nobody comes back. What is printed from here on waits for nobody."""
        self._outbox = None
        self._log.go_without_reader()
        self.wake()


class Outbox:
    """Answers, feeds that have news, and single notifications, for one writer.

    Whoever makes answers asks `wait_room` first: no more than `max_answers` should wait here.
    """

    def __init__(
        self,
        max_answers: int = _UNREAD_ANSWERS,
        max_told: int = _QUEUED_NOTIFICATIONS,
        channel: MessageChannel | None = None,
    ) -> None:
        """Where nothing waits and `channel`, the writer's, has room, what comes is sent at once."""
        self._channel = channel
        self._max_answers = max_answers
        self._max_told = max_told
        self._answers: deque[Message] = deque()
        self._leaving = False  # what was taken last is still being sent
        self._answering = False  # and it is an answer
        self._answered = 0
        self._feeds: dict[Feed, None] = {}  # an ordered set: those that have news, longest first
        self._told: deque[Notification] = deque()
        self._tellers = trio.lowlevel.ParkingLot()
        self._turn_of_told = False
        self._wanted = trio.lowlevel.ParkingLot()
        self._taken = trio.lowlevel.ParkingLot()
        self._doubts = trio.lowlevel.ParkingLot()
        self.closed = False

    def __repr__(self) -> str:
        waiting = f"answers={len(self._answers)} feeds={len(self._feeds)} told={len(self._told)}"
        return f"<Outbox {'closed' if self.closed else waiting}>"

    def put(self, answer: Message) -> None:
        """Add an answer."""
        if self._may_send_now:
            self._answered += 1
            self._send_now(answer)
            return
        self._answers.append(answer)
        self._wanted.unpark()

    def feed(self, feed: Feed) -> None:
        """Take from this feed, which has news, when its turn has come."""
        while feed.reader.has_news:
            if not self._may_send_now:
                self._feeds[feed] = None
                self._wanted.unpark()
                return
            if (notification := self._take_from(feed)) is not None:
                self._send_now(notification)

    @property
    def _may_send_now(self) -> bool:
        """True where the writer waits, so that nothing can be overtaken, and the channel has room."""
        return self._channel is not None and bool(self._wanted) and self._channel.has_room

    def _send_now(self, message: Message) -> None:
        assert self._channel is not None
        self._channel.send_now(message)

    @staticmethod
    def _take_from(feed: Feed) -> Notification | None:
        notification = feed.take()
        if feed.is_at_its_end:
            freed()  # where the session was forgotten already, nothing else holds its log
        return notification

    async def tell(self, notification: Notification) -> None:
        """Add a notification that no log holds, behind every answer and all that was told before.

        Waits while `max_told` are in here. Cancelling leaves it untold; so does a closed outbox.
        """
        while len(self._told) >= self._max_told and not self.closed:
            await self._tellers.park()
        if self.closed:
            return
        self._told.append(notification)
        self._wanted.unpark()

    async def take(self) -> Message:
        """Return the next message to send; the one taken before has left. For one task. Cancelling loses nothing.

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
            if self._told and (self._turn_of_told or not self._feeds):
                self._tellers.unpark()
                self._leaving = True
                return self._told.popleft()
            for feed in self._feeds:
                del self._feeds[feed]
                # A feed that was left meanwhile has nothing to tell any more.
                notification = self._take_from(feed) if feed.reader.has_news else None
                if feed.reader.has_news:
                    self._feeds[feed] = None
                if notification is not None:
                    self._leaving = True
                    return notification
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
        while (self._answers or self._told or self._feeds or self._leaving) and not self.closed:
            await self._taken.park()

    def doubt(self) -> None:
        """Ask whether there is anybody at all who reads this: somebody else would."""
        self._doubts.unpark_all()

    async def wait_doubted(self) -> None:
        """Wait for the next `doubt`."""
        await self._doubts.park()

    def close(self) -> None:
        """Forget all that waits, and end every wait: nobody takes anything any more."""
        self.closed = True
        self._answers.clear()
        self._feeds.clear()
        self._told.clear()
        for waiting in (self._wanted, self._taken, self._tellers):
            waiting.unpark_all()
