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


class SharedThreads:
    """The threads that one connection may have of those of its server, each until it has really ended."""

    def __init__(self, of_server: trio.CapacityLimiter, most: int = CONNECTION_THREADS) -> None:
        self._of_server = of_server
        self._own = trio.CapacityLimiter(most)

    @property
    def are_few(self) -> bool:
        """True while but a few of them are in use."""
        return self._own.borrowed_tokens < FEW_THREADS

    def acquire_on_behalf_of_nowait(self, borrower: object) -> None:
        """Take a thread. Raises `trio.WouldBlock` where all are in use."""
        self._own.acquire_on_behalf_of_nowait(borrower)
        try:
            self._of_server.acquire_on_behalf_of_nowait(borrower)
        except BaseException:
            self._own.release_on_behalf_of(borrower)
            raise

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Wait for a thread. Where there is one, nobody else gets a turn first."""
        try:
            self.acquire_on_behalf_of_nowait(borrower)
            return
        except trio.WouldBlock:
            pass
        await self._own.acquire_on_behalf_of(borrower)
        try:
            await self._of_server.acquire_on_behalf_of(borrower)
        except BaseException:
            self._own.release_on_behalf_of(borrower)
            raise

    def release_on_behalf_of(self, borrower: object) -> None:
        """Give a thread back."""
        self._of_server.release_on_behalf_of(borrower)
        self._own.release_on_behalf_of(borrower)
