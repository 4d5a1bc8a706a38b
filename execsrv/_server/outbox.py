"""The messages that wait to be sent to one peer, in the order in which they leave.

First the answers, in order; then in turn one entry of each log that has news, and one of the notifications that have no
log (`tell`). Output is not copied in here: it waits in the logs, which are bounded, until the writer takes it; and who
tells waits for room. So no session can hold up another, none can hold up an answer, and nothing grows. Answers count as
their bytes, and as the text that these become.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from execsrv._budget.budget import Budget
from execsrv._budget.pace import TURN_SECONDS
from execsrv._budget.weight import THING_BYTES, weight_of
from execsrv._memory import freed, let_go
from execsrv._server.failures import UNENCODABLE, instead_of
from execsrv._server.feed import Feed
from execsrv._wire.channel import MessageChannel
from execsrv._wire.pieces import is_large
from execsrv.limits import DEFAULTS, KIB
from execsrv.protocol import Message, Notification, Response

if TYPE_CHECKING:
    from execsrv._server.view import View

_QUEUED_NOTIFICATIONS = 16
"""Notifications without a log (pieces of HTTP bodies, news of files) that may wait. Beyond it their makers wait."""

_SENT_A_TURN = 4
"""Messages that are sent before others have their turn."""

_FAILURE_BYTES = 8 * KIB
"""An error's text, and its facts, are cut to less."""


class Outbox:
    """Answers, feeds that have news, and single notifications, for one writer.

    Whoever makes answers asks `wait_room` first: no more than `max_bytes` of them should wait here.
    """

    def __init__(
        self,
        max_bytes: int = DEFAULTS.unread_answer_bytes,
        max_told: int = _QUEUED_NOTIFICATIONS,
        channel: MessageChannel | None = None,
    ) -> None:
        """What comes is sent at once where nothing waits and `channel`, the writer's, has room. `close` must follow."""
        self._channel = channel
        self._max_bytes = max_bytes
        self._max_told = max_told
        self._budget = Budget()
        self._answers: deque[tuple[Message, int]] = deque()  # each with its weight
        self._waiting_bytes = 0  # with what is being sent
        self._sent: list[tuple[Message, int]] = []  # the answer that is being sent, with its weight
        self._leaving = False  # what was taken last is still being sent
        self._answering = False  # and it is an answer
        self._has_rest = False  # it was sent at once, but for a part of it
        self._answered = 0
        self._feeds: dict[Feed | View, None] = {}  # an ordered set: those that have news, longest first
        self._held: dict[View, float] = {}  # those that let others go first, and until when: the earliest first
        self._told: deque[Notification] = deque()
        self._tellers = trio.lowlevel.ParkingLot()
        self._turn_of_told = False
        self._wanted = trio.lowlevel.ParkingLot()
        self._taken = trio.lowlevel.ParkingLot()
        self._doubts = trio.lowlevel.ParkingLot()
        self.closed = False
        self.until_closed = trio.CancelScope()  # the writer's: it may wait for a peer that reads nothing

    def __repr__(self) -> str:
        waiting = f"answers={self._waiting_bytes} feeds={len(self._feeds)} told={len(self._told)}"
        return f"<Outbox {'closed' if self.closed else waiting}>"

    def put(self, answer: Message) -> None:
        """Add an answer."""
        if self._may_send_now and not is_large(answer):
            self._answering = True
            self._send_now(answer)
            return
        if self.closed:
            return
        weight = _weight_of_answer(answer)
        self._answers.append((answer, weight))
        self._waiting_bytes += weight
        self._budget.add(weight)
        self._wanted.unpark()

    def draw_on(self, budget: Budget) -> None:
        """Take what waits in here from this budget from now on: it is known whose it is."""
        self._budget.give(self._waiting_bytes)
        self._budget = budget
        budget.add(self._waiting_bytes)

    def feed(self, feed: Feed | View) -> None:
        """Take from this feed, which has news, when its turn has come."""
        while feed.reader.has_news:
            if not self._may_send_now:
                self.feed_later(feed)
                return
            if (notification := self._take_from(feed)) is not None:
                self._send_now(notification)

    def feed_later(self, feed: Feed | View) -> None:
        """Take from this feed, which has news, behind all answers, also one that is put right after this call."""
        self._feeds[feed] = None
        if self._wanted:
            self._wanted.unpark()

    def hold(self, view: View, until: float) -> None:
        """Ask this view at that time whether it may go on. Meanwhile it has no news."""
        self._held[view] = until
        self._wanted.unpark()

    async def _wait_wanted(self) -> None:
        """Wait for something to send, or until a view is to be asked whether it goes on."""
        if not self._held:
            await self._wanted.park()
            return
        with trio.move_on_at(next(iter(self._held.values()))):
            await self._wanted.park()

    def _ask_held(self) -> None:
        """Have those views go on whose time has come."""
        now = trio.current_time()
        while self._held and (first := next(iter(self._held.items())))[1] <= now:
            del self._held[view := first[0]]
            if not view.may_go_on():
                self._held[view] = now + TURN_SECONDS
            elif view.reader.has_news:
                self._feeds[view] = None

    @property
    def waiting_bytes(self) -> int:
        """Bytes of answers that wait to be sent, with what is being sent."""
        return self._waiting_bytes

    @property
    def has_answers(self) -> bool:
        """True while answers wait to be sent."""
        return bool(self._answers)

    @property
    def _may_send_now(self) -> bool:
        """True where the writer waits, so that nothing can be overtaken, and the channel has room."""
        return self._channel is not None and bool(self._wanted) and self._channel.has_room

    def _send_now(self, message: Message) -> None:
        assert self._channel is not None
        try:
            is_sent = self._channel.send_now(message)
        except UNENCODABLE as error:
            is_sent = self._channel.send_now(instead_of(message, error))
        if is_sent:
            self._answered += self._answering
            self._answering = False
        else:
            self._leaving = self._has_rest = True
            self._wanted.unpark()

    @staticmethod
    def _take_from(feed: Feed | View) -> Notification | None:
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

    async def take(self) -> Message | None:
        """Return the next message to send, None for the rest of one that was sent at once; the one before has left.

        For one task. Cancelling loses nothing. Raises `trio.ClosedResourceError` when this is closed.
        """
        self._answered += self._answering
        self._leaving = self._answering = False
        if self._sent:
            self._give_back(self._sent.pop()[1])
        if self._taken:
            self._taken.unpark_all()
        while not self.closed:
            if self._held:
                self._ask_held()
            if self._has_rest:
                self._has_rest = False
                return None
            if self._answers:
                self._leaving = self._answering = True
                self._sent.append(self._answers.popleft())
                return self._sent[0][0]
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
                await self._wait_wanted()
        raise trio.ClosedResourceError

    async def wait_room(self) -> None:
        """Wait until the peer has read enough of its answers to ask for more.

        Where the budget is used up, that is all of them.
        """
        while self._answers and (self._waiting_bytes >= self._max_bytes or self._budget.is_over) and not self.closed:
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
        self.until_closed.cancel()
        self._give_back(self._waiting_bytes)
        for answers in (self._sent, self._answers):
            let_go(answers)
            answers.clear()
        feeds, self._feeds = self._feeds, {}
        for feed in feeds:
            feed.lost()
        self._told.clear()
        self._held.clear()
        for waiting in (self._wanted, self._taken, self._tellers):
            waiting.unpark_all()

    def _give_back(self, size: int) -> None:
        self._waiting_bytes -= size
        self._budget.give(size)


async def send_all_of(outbox: Outbox, channel: MessageChannel) -> None:
    """Send what the outbox gives, one message after the other.

    Raises `trio.BrokenResourceError` when the peer is gone, and `trio.ClosedResourceError` when the outbox is closed.
    """
    with outbox.until_closed:
        while True:
            for _ in range(_SENT_A_TURN):
                await _send(await outbox.take(), channel)
            await trio.lowlevel.checkpoint()
    raise trio.ClosedResourceError


async def _send(message: Message | None, channel: MessageChannel) -> None:
    """Send a message, or the rest of one, without a turn of the loop where all of it is taken at once."""
    try:
        if message is None:
            await channel.send_rest()
        elif not channel.has_room or is_large(message):
            await channel.send(message)
        elif not channel.send_now(message):
            await channel.send_rest()
    except UNENCODABLE as error:
        await channel.send(instead_of(message, error))


def _weight_of_answer(answer: Message) -> int:
    """Return the bytes of an answer and of its text, which is a third longer where it is made of bytes."""
    return THING_BYTES + (weight_of(answer.result) * 7 // 3 if isinstance(answer, Response) else _FAILURE_BYTES)
