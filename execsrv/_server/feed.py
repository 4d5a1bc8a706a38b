"""The log of one session as its peer hears it. What there is to hear waits in the log until the outbox asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from execsrv._budget.pace import Pace
from execsrv._log.entries import Entry
from execsrv._log.log import OutputLog
from execsrv.protocol import Notification

if TYPE_CHECKING:
    from execsrv._server.outbox import Outbox
    from execsrv._server.view import View

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
        self._is_forgotten = False  # the session
        self._appended: trio.lowlevel.ParkingLot | None = None  # made for the first who wait
        self._taken: trio.lowlevel.ParkingLot | None = None
        self.views: Sequence[View] = ()
        """How visitors of the connection hear of the same log."""
        self.pace: Pace | None = None
        """That of all views, from the first one on."""
        if outbox is None:  # the channel went while the session was started
            self.detach()

    def __repr__(self) -> str:
        return f"<Feed {self._id} {self.reader}>"

    def take(self) -> Notification | None:
        """Return the next entry as a notification. Raises `LookupError` when there is none."""
        entry = self._log.take()
        if self._is_forgotten and not self.reader.has_news:
            self.let_go()
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
        if self.views:
            for view in self.views:
                view.announce()

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

    def forget(self) -> None:
        """Note that nobody asks for the session any more. The log goes too when the peer has heard all of it."""
        self._is_forgotten = True
        if self._outbox is None or self._outbox.closed or not self.reader.has_news:
            self.let_go()

    def let_go(self) -> None:
        """Let go of the log, for which the first of those who view it pays from here on."""
        if self.views:
            self.views[0].pay()
        else:
            self._log.let_go()

    def lost(self) -> None:
        """Note that what it has to tell will not be told."""
        if self._is_forgotten:
            self.let_go()

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
        if self.views:
            self._log.attach()
        self.wake()

    def let_run(self) -> None:
        """Let the command print on, with nobody attached. Who comes back reads what is retained."""
        self._log.go_without_reader()
        self.wake()

    def leave(self) -> None:
        """Tell nothing any more: nobody comes back. What is printed from here on waits for nobody."""
        self._outbox = None
        self._log.go_without_reader()
        self.wake()
