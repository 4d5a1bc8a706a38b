"""The way of a command's output past its session, to a client that reads it from pipes of its own.

What the command has written into its pipe is in the client's too (tee(2)), without a copy, and is read here for its
beginning and its end. Where the client's pipe is full the command's is left alone, so that the command waits.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from execsrv._log.log import OutputLog
from execsrv._processes import streams
from execsrv._processes.own_streams import PIPE_BYTES, OwnStreams
from execsrv._processes.spawn import widen
from execsrv._processes.watch import Watch

if TYPE_CHECKING:
    from execsrv._processes.contract import AnyLeader


class OnwardPump:
    """The outputs of one session that are not at their end."""

    def __init__(self, its: OwnStreams, leader: AnyLeader, log: OutputLog) -> None:
        """`close` must follow, before the descriptors are closed. Raises `SpawnError` without one to wait with."""
        self._its = its
        self._log = log
        self._leader = leader
        self._left = {descriptor: stream for stream, descriptor in its.outputs.items()}
        self._sources = {its.onward[stream].descriptor: descriptor for stream, descriptor in its.outputs.items()}
        self._narrow = set(self._left)  # those that have not shown themselves busy
        self._full: set[int] = set()  # those that wait for room
        self._watch = Watch([*self._left, leader.pidfd])
        for target in self._sources:
            self._watch.add(target, 0)

    def __repr__(self) -> str:
        return f"<OnwardPump {' '.join(self._left.values())}>"

    @property
    def is_over(self) -> bool:
        """True when all streams are at their end."""
        return not self._left

    @property
    def is_held(self) -> bool:
        """True when somebody may still write."""
        return not all(map(streams.is_at_its_end, self._left))

    def close(self) -> None:
        """Move nothing any more."""
        self._watch.close()

    async def run_until_exit(self) -> None:
        """Move the streams on until the leader ends, as far as a pidfd tells, or all of them do."""
        if self._leader.pidfd is not None:
            await self._run(self._leader.pidfd)
            if self._left:
                self._watch.remove(self._leader.pidfd)

    async def run(self) -> None:
        """Move the streams on to their end."""
        await self._run(None)

    async def catch_up(self) -> None:
        """Move what goes at once. The leader's end waits for no reader, who hears of the output by another way."""
        for descriptor in list(self._left):
            left = streams.bytes_left(descriptor, is_terminal=False)
            while left > 0 and (size := self._move(descriptor)):
                left -= size

    async def _run(self, pidfd: int | None) -> None:
        while self._left:
            ready = await self._watch.wait()
            for descriptor in ready:
                source = self._sources.get(descriptor, descriptor)
                if source in self._full:
                    self._full.remove(source)
                    self._watch.change(descriptor, 0)
                    self._watch.add(source)
                    self._move(source)
                elif descriptor in self._sources:
                    self._end(source)  # its reader has gone
                elif descriptor in self._left:
                    self._move(descriptor)
            if pidfd in ready:
                return

    def _move(self, source: int) -> int:
        """Move on what a stream has now, and return how much that is."""
        stream = self._left.get(source)
        if stream is None or source in self._full:
            return 0
        target = self._its.onward[stream].descriptor
        try:
            size = streams.tee(source, target, streams.PIPE_CHUNK_BYTES)
        except BlockingIOError:
            if streams.bytes_left(source, is_terminal=False):
                self._full.add(source)
                self._watch.remove(source)
                self._watch.change(target, select.EPOLLOUT)
            return 0
        except BrokenPipeError:
            size = 0
        if not size:
            self._end(source)
            return 0
        self._log.pass_by(stream, streams.read(source, is_terminal=False, most=size) or b"")
        if size == streams.PIPE_CHUNK_BYTES and source in self._narrow:
            self._narrow.remove(source)
            widen(source, PIPE_BYTES)
        return size

    def _end(self, source: int) -> None:
        """Close both pipes of a stream: whoever reads comes to its end, and whoever writes on is told."""
        stream = self._left.pop(source)
        target = self._its.onward[stream].descriptor
        del self._sources[target]
        self._watch.remove(source)
        self._watch.remove(target)
        self._its.close_output(stream)
