"""The threads in which the commands of one server are started, shared out among its connections."""

from __future__ import annotations

import trio

MOST_THREADS = 40
"""So many starts of one server may be under way at once. More wait."""

CONNECTION_THREADS = 8
"""So many of them may be one connection's, so that those which hang hold up nobody else's."""


class SharedThreads:
    """The threads that one connection may have of those of its server, each until it has really ended."""

    def __init__(self, of_server: trio.CapacityLimiter, most: int = CONNECTION_THREADS) -> None:
        self._of_server = of_server
        self._own = trio.CapacityLimiter(most)

    @property
    def is_free(self) -> bool:
        """True while none of them is in use."""
        return not self._own.borrowed_tokens

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
