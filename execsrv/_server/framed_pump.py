"""The way of output that arrives as messages into the log of its session: what `Pump` does for descriptors.

While the log's reader lags, nothing is taken, so no more is credited, and the command waits as with any pipe.
"""

from __future__ import annotations

from execsrv._log.log import OutputLog
from execsrv._processes.arrivals import Arrivals
from execsrv._server.ending import Ending
from execsrv._server.feed import Feed
from execsrv._server.pump import LogWriter


class FramedPump(LogWriter):
    """The arrivals of one session that are not at their end."""

    def __init__(self, arrivals: Arrivals, log: OutputLog, feed: Feed, ending: Ending) -> None:
        super().__init__(log, feed, ending)
        self._arrivals = arrivals
        arrivals.wake = feed.wake

    def __repr__(self) -> str:
        return f"<FramedPump {self._arrivals}>"

    @property
    def is_over(self) -> bool:
        """True when all streams are at their end."""
        return self._arrivals.is_over

    @property
    def is_held(self) -> bool:
        """True when somebody may still write."""
        return not self._arrivals.is_over

    def close(self) -> None:
        """Take nothing any more."""
        self._arrivals.discard()

    async def run_until_exit(self) -> None:
        """Move what arrives into the log until the leader has ended, or all streams have."""
        while not self.is_over and self._arrivals.of_leader is None:
            if not self._arrivals.has_some:
                await self._arrivals.wait()  # at once: what came while we waited for something else would wake nobody
            elif await self._has_room():
                self._move()
            else:
                return

    async def run(self) -> None:
        """Move what arrives into the log to its end."""
        while not self.is_over:
            if not self._arrivals.has_some:
                await self._arrivals.wait()
            elif self._log.has_room or self._is_last:
                self._move()
            else:
                await self._wait_taken()

    async def catch_up(self) -> None:
        """Move what the leader, which has ended, may have written."""
        left = sum((self._arrivals.of_leader or {}).values())
        while left > 0:
            while not self._log.has_room and not self._ending.killed:
                await self._wait_taken()
            moved = self._move()
            left = left - moved if moved else 0

    @property
    def _is_last(self) -> bool:
        """True when the end must not hang on being read, and what is left is bounded."""
        return self._ending.killed and self._arrivals.is_last

    async def _has_room(self) -> bool:
        """Wait while the reader lags. Return False where the leader has ended meanwhile."""
        while not self._log.has_room and not self._is_last:
            if self._arrivals.of_leader is not None:
                return False
            await self._wait_taken()
        return True

    def _move(self) -> int:
        """Move a piece that has arrived into the log. Return how large it is, 0 where there is none."""
        if (arrived := self._arrivals.take()) is None:
            return 0
        self._append_or_leave_out(*arrived)
        return len(arrived[1])
