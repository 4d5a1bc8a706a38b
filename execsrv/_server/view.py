"""The log of a session as somebody who visits its connection hears it, under a name of his own.

It takes from the log when its outbox has room, and what is gone by then is a gap: so nobody waits for it. All views of
one session go at one pace, so that the owner comes first, however many they are. A view draws on the allowance of who
looks. Once the log's own connection has let go of it, one of its views at a time pays for what it holds, until that is
closed; and it is forgotten then as any that was retained.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import trio

from execsrv._budget.budget import Budget
from execsrv._budget.pace import TURN_SECONDS, Pace
from execsrv._log.entries import entry_bytes
from execsrv._log.log import OutputLog
from execsrv._log.viewer import Viewer
from execsrv._memory import let_go
from execsrv.errors import UnknownProcessError
from execsrv.limits import KIB
from execsrv.protocol import Notification

if TYPE_CHECKING:
    from execsrv._server.feed import Dialect, Feed
    from execsrv._server.outbox import Outbox

R = TypeVar("R")

VIEW_BYTES = 128 * KIB
"""The cost of a view: most of it is what it remembers of output under way."""


class View:
    """A log as a visitor hears it. `close` must follow."""

    def __init__(
        self,
        id: str,
        log: OutputLog,
        feed: Feed,
        dialect: Dialect,
        reader: Viewer,
        outbox: Outbox | None,
        held: Budget,
        pace: Pace,
    ) -> None:
        """Take `VIEW_BYTES` of the visitor's budget. `pace` is that of all who view the log.

        Raises `LimitExceededError`.
        """
        held.take(VIEW_BYTES)
        self.id = id
        self.reader = reader
        self._log = log
        self._feed = feed
        self._dialect = dialect
        self._outbox = outbox
        self._held = held
        self._pace = pace
        self._pays = False  # for the log
        self._waits = True  # for `go_on`
        self._waited_for: set[trio.CancelScope] = set()  # by requests
        log.attach()
        feed.views = [*feed.views, self]

    def __repr__(self) -> str:
        return f"<View {self.id} {self.reader}>"

    def announce(self) -> None:
        """Tell the outbox where there is news that it may take."""
        if self._outbox is not None and not self._waits and self.reader.has_news:
            self._outbox.feed(self)

    def take(self) -> Notification | None:
        """Return the next entry as a notification. Raises `LookupError` when there is none."""
        entry = self.reader.take()
        notification = self._dialect(self.id, entry)
        if size := entry_bytes(entry):
            self._pace.take(size)
            if self._outbox is not None and self._pace.is_used_up(now := trio.current_time()):
                self.reader.is_held = True
                self._outbox.hold(self, now + TURN_SECONDS)
        return notification

    def may_go_on(self) -> bool:
        """Return whether it has waited long enough for others."""
        self.reader.is_held = self._pace.is_used_up(trio.current_time())
        return not self.reader.is_held

    @property
    def is_at_its_end(self) -> bool:
        """True where everything was taken, and nothing comes any more."""
        return self.reader.is_at_its_end

    def lost(self) -> None:
        """Note that what it has to tell will not be told on this channel."""

    def acknowledge(self, seq: int) -> None:
        """Count all entries up to `seq` as had. What was withheld till then may be told."""
        self.reader.acknowledge(seq)
        self.announce()

    async def wait(self, wait: Callable[[], Awaitable[R]]) -> R:
        """Wait for something of the log, as long as it is heard. Raises `UnknownProcessError` once it is not."""
        with trio.CancelScope() as scope:
            self._waited_for.add(scope)
            if self not in self._feed.views:
                scope.cancel()
            try:
                found = await wait()
            finally:
                self._waited_for.discard(scope)
        if scope.cancel_called:
            raise UnknownProcessError(f"unknown process id {self.id}: it is attached to no more")
        return found

    def pay(self) -> None:
        """Pay for what the log holds: its connection has let go of it, or the view that has paid is closed."""
        self._pays = True
        self._log.draw_on(self._held)

    # -- its channel goes and comes --

    def detach(self) -> None:
        """Tell nothing until somebody is attached again."""
        self._outbox = None

    def attach(self, outbox: Outbox) -> None:
        """Tell there, from `go_on` on."""
        self._outbox = outbox
        self._waits = True
        self.reader.is_held = False  # nobody is left who would have it go on

    def begin(self) -> None:
        """Let a visitor who is new hear the log, behind the answer that tells of it, which must be put next."""
        self._waits = False
        if self._outbox is not None and self.reader.has_news:
            self._outbox.feed_later(self)

    def go_on(self, seq: int) -> None:
        """Let a visitor who has come back hear the log from this entry on. For any other, nothing changes."""
        if self._waits:
            self._waits = False
            self.reader.go_to(seq - 1)
            self.announce()

    def close(self) -> None:
        """Tell nothing any more, those who wait neither."""
        self._outbox = None
        for scope in self._waited_for:
            scope.cancel()
        self.reader.stop()
        self._feed.views = [view for view in self._feed.views if view is not self]
        self._held.give(VIEW_BYTES)
        if self._pays:
            let_go([(self._log, self._log.kept_bytes)])
            self._feed.let_go()
