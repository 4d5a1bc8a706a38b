"""The way of a command's output into the log of its session: one task for all of its streams.

While the log's reader lags, nothing is read: the command waits, as with any pipe. The descriptors stay the session's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

from execsrv._log.log import OutputLog
from execsrv._processes import streams
from execsrv._processes.own_streams import PIPE_BYTES
from execsrv._processes.spawn import widen
from execsrv._processes.watch import Watch
from execsrv._server.ending import Ending
from execsrv._server.feed import Feed
from execsrv.protocol import Stream

if TYPE_CHECKING:
    from execsrv._processes.contract import AnyLeader


class LogWriter:
    """The hand that writes the output of one session into its log."""

    def __init__(self, log: OutputLog, feed: Feed, ending: Ending) -> None:
        self._log = log
        self._feed = feed
        self._ending = ending

    async def _wait_taken(self) -> None:
        """Wait until the reader took something. Its slowness is not the command's idleness."""
        if self._ending.idle is None:
            await self._feed.wait_taken()
            return
        self._ending.idle.hold()
        try:
            await self._feed.wait_taken()
        finally:
            self._ending.idle.release()

    def _append(self, stream: Stream, chunk: bytes) -> None:
        self._log.append(stream, chunk)
        if self._ending.idle is not None:
            self._ending.idle.restart()
        self._feed.announce()

    def _append_or_leave_out(self, stream: Stream, chunk: bytes) -> None:
        """Append a piece for which nobody waits any more, and where the budget has no room for it, tell of it only."""
        if self._log.reader.is_held_back and not self._log.has_room:
            self._log.leave_out(stream, len(chunk))
        else:
            self._append(stream, chunk)


class Pump(LogWriter):
    """The streams of one session that are not at their end."""

    def __init__(
        self, outputs: Mapping[Stream, int], leader: AnyLeader, log: OutputLog, feed: Feed, ending: Ending
    ) -> None:
        """`close` must follow, before the descriptors are closed. Raises `SpawnError` without one to wait with."""
        super().__init__(log, feed, ending)
        self._left = {descriptor: stream for stream, descriptor in outputs.items()}
        self._is_terminal = "pty" in outputs
        self._full = streams.TERMINAL_CHUNK_BYTES if self._is_terminal else streams.PIPE_CHUNK_BYTES
        self._narrow = set() if self._is_terminal else set(self._left)  # those that have not shown themselves busy
        self._leader = leader
        self._watch = Watch([*self._left, leader.pidfd])
        self._wakes_at_exit = False
        self._has_exited = False

    def __repr__(self) -> str:
        return f"<Pump {' '.join(self._left.values())}>"

    @property
    def is_over(self) -> bool:
        """True when all streams are at their end."""
        return not self._left

    def close(self) -> None:
        """Read nothing any more."""
        self._watch.close()

    async def run_until_exit(self) -> None:
        """Move the streams into the log until the leader ends, as far as a pidfd tells, or all of them do."""
        if self._leader.pidfd is not None:
            await self._run(self._leader)
            if self._left:
                self._watch.remove(self._leader.pidfd)

    async def run(self) -> None:
        """Move the streams into the log to their end."""
        await self._run(None)

    async def _run(self, leader: AnyLeader | None) -> None:
        more = False
        while self._left and await self._has_room(leader):
            ready = self._watch.ready() if more else await self._watch.wait()
            more = False
            for descriptor in ready:
                if descriptor in self._left and self._log.has_room:
                    more = self._read(descriptor) or more
            if leader is not None and leader.pidfd in ready:
                return
            if more and self._log.has_room:
                await trio.lowlevel.checkpoint()  # otherwise the wait for room is one

    async def _has_room(self, leader: AnyLeader | None) -> bool:
        """Wait while the reader lags. Return False where the leader has ended meanwhile."""
        while not self._log.has_room:
            if leader is not None and self._has_exited:
                return False
            if leader is not None and not self._wakes_at_exit:
                self._wakes_at_exit = True
                self._ending.start_soon(self._wake_at_exit)
            await self._wait_taken()
        return True

    async def _wake_at_exit(self) -> None:
        await self._leader.wait_ended()
        self._has_exited = True
        self._feed.wake()

    def _read(self, descriptor: int) -> bool:
        """Move what a stream has now into the log. Return whether that may not be all."""
        chunk = streams.read(descriptor, self._is_terminal)
        if chunk is None:
            return False  # `catch_up` was here before us
        if not chunk:
            self._watch.remove(descriptor)
            del self._left[descriptor]
            return False
        self._append(self._left[descriptor], chunk)
        if len(chunk) < self._full:
            return False
        if descriptor in self._narrow:
            self._narrow.remove(descriptor)
            widen(descriptor, PIPE_BYTES)
        return True

    @property
    def is_held(self) -> bool:
        """True when somebody may still write."""
        return not all(map(streams.is_at_its_end, self._left))

    async def catch_up(self) -> None:
        """Move what the leader, which has ended, has left in the streams; what others write may stay for `run`.

        Once terminated it waits for no reader: what is left is bounded, and the end must not hang on being read. Where
        the budget has no room for it, it is left out, and told.
        """
        held = {each: stream for each, stream in self._left.items() if not streams.is_at_its_end(each)}
        for descriptor, stream in held.items():
            left = streams.bytes_left(descriptor, self._is_terminal)
            while left > 0:
                while not self._log.has_room and not self._ending.killed:
                    await self._wait_taken()
                chunk = streams.read(descriptor, self._is_terminal)
                if not chunk:
                    break
                self._append_or_leave_out(stream, chunk)
                left -= len(chunk)
