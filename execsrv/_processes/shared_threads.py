"""The threads in which the commands of one server are started, shared out among its connections."""

from __future__ import annotations

import trio

MOST_THREADS = 40
"""So many starts of one server may be under way at once. More wait."""

CONNECTION_THREADS = 8
"""So many of them may be one connection's, so that those which hang hold up nobody else's."""

FEW_THREADS = 3
"""While fewer of a connection's are in use, the loop waits for its next start: one that is slow slows no other down,
and those that hang hold up the loop no more than so often."""


class Places:
    """So many places. Who waits for one gets it in order.

    It is what a `trio.CapacityLimiter` is, but for the names of borrowers: those cost each start a dozen calls.
    """

    def __init__(self, most: int) -> None:
        self.taken = 0
        self._most = most
        self._waiting = trio.lowlevel.ParkingLot()

    def take(self) -> bool:
        """Take a place. Return whether there was one."""
        if self.taken >= self._most:
            return False
        self.taken += 1
        return True

    @trio.lowlevel.enable_ki_protection
    async def wait(self) -> None:
        """Take a place, as soon as there is one."""
        if not self.take():
            await self._waiting.park()  # whoever gives one back hands it over

    def give(self) -> None:
        """Give a place back."""
        if self._waiting:
            self._waiting.unpark()
        else:
            self.taken -= 1


class SharedThreads:
    """The threads that one connection may have of those of its server, each until it has really ended."""

    def __init__(self, of_server: Places, most: int = CONNECTION_THREADS) -> None:
        self._of_server = of_server
        self._own = Places(most)

    @property
    def are_few(self) -> bool:
        """True while but a few of them are in use."""
        return self._own.taken < FEW_THREADS

    def acquire_on_behalf_of_nowait(self, _: object) -> None:
        """Take a thread. Raises `trio.WouldBlock` where all are in use."""
        if not self._own.take():
            raise trio.WouldBlock
        if not self._of_server.take():
            self._own.give()
            raise trio.WouldBlock

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Wait for a thread. Where there is one, nobody else gets a turn first."""
        try:
            self.acquire_on_behalf_of_nowait(borrower)
            return
        except trio.WouldBlock:
            pass
        await self._own.wait()
        try:
            await self._of_server.wait()
        except BaseException:
            self._own.give()
            raise

    def release_on_behalf_of(self, _: object) -> None:
        """Give a thread back."""
        self._of_server.give()
        self._own.give()
