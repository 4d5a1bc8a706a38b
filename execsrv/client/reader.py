"""Reading the output of one process: each stream by one task at a time, and the server told how far that is.

While nobody reads, `wait_exited` keeps a command going whose output would fill the window: the oldest of it is let go.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from execsrv._log.entries import Closed, Entry, Exited
from execsrv.client.calls import Calls
from execsrv.client.inbox import PARTS, Inbox, Part
from execsrv.errors import ConnectionLostError, InvalidParamsError
from execsrv.protocol import ProcessAck

T = TypeVar("T")

_LOOK_AGAIN_SECONDS = 0.2
"""A full window is looked at again after this, by who waits for the end: its reader may have ended."""

_TURN_SECONDS = 0.001
"""So long a task reads what has arrived without a turn of the others, which costs more than a line does."""


@dataclass(frozen=True)
class Caller:
    """Somebody who reads, or waits, through tasks that are short-lived: a thread, a task of asyncio."""

    who: object
    is_running: Callable[[], bool] = field(compare=False)


caller: ContextVar[Caller | None] = ContextVar("execsrv_caller", default=None)
"""The caller that reads in this context, None for its own task."""


class Reader:
    """Reading of an inbox, and the waits for it. `id` is the process."""

    def __init__(self, id: str, inbox: Inbox, calls: Calls, window_bytes: int, acknowledges: bool) -> None:
        self.id = id
        self.inbox = inbox
        self.lost: ConnectionLostError | None = None
        self._calls = calls
        self.window_bytes = window_bytes
        self._acknowledges = acknowledges
        self._is_over = False
        self.is_ended = False
        """True once the block of the process was left: nothing is told of it any more."""
        self.is_passed = False
        """True where the server tells nothing of its output, since it has passed the streams."""
        self._turn_at = 0.0
        self._untold = 0  # the entry up to which the server is still to be told, 0 for none
        self._reading: set[Part] = set()
        self._last_readers: dict[Part, trio.lowlevel.Task | Caller] = {}
        self._waiting: list[trio.lowlevel.Task | Caller] = []
        self._arrived = trio.lowlevel.ParkingLot()
        self._taken = trio.lowlevel.ParkingLot()

    @property
    def has_room(self) -> bool:
        """True while more may arrive unread."""
        return self.inbox.unread_bytes < self.window_bytes

    def has_arrived(self) -> None:
        """Look at what has arrived."""
        if self._arrived:
            self._arrived.unpark_all()

    async def wait_taken(self) -> None:
        """Wait until something is read."""
        await self._taken.park()

    def wake(self) -> None:
        """End every wait for something to be read."""
        if self._taken:
            self._taken.unpark_all()

    # -- reading --

    async def next(self, part: Part | None = None) -> Entry | None:
        """Take the next entry, of one stream or of everything; None when that is at its end.

        Raises `ConnectionLostError` behind all that has arrived, and `trio.BusyResourceError` while another task
        reads the same. `trio.ClosedResourceError` is for who reads after the process's block.
        """
        return await self.read(part, lambda: self.inbox.take(part))

    async def next_all(self) -> list[Entry] | None:
        """Take all entries that there are, as `next` takes one."""
        return await self.read(None, self.inbox.take_all)

    async def read(self, part: Part | None, take: Callable[[], T | None]) -> T | None:
        """Return what `take` does, as soon as that is not None; None at the end. Raises as `next` does.

        Cancelling takes nothing.
        """
        if self.is_passed:
            message = f"process {self.id} was started with pass_streams: only stdin, stdout and stderr are read of it"
            raise InvalidParamsError(message, field="pass_streams")
        parts = PARTS if part is None else (part,)
        for each in parts:
            if each in self._reading:
                raise trio.BusyResourceError(f"another task is reading {each} of process {self.id}")
        who = caller.get() or trio.lowlevel.current_task()
        for each in parts:
            self._reading.add(each)
            self._last_readers[each] = who
        try:
            if self.inbox.is_empty or time.perf_counter() < self._turn_at:
                await trio.lowlevel.checkpoint_if_cancelled()  # it will wait for what comes, or others had a turn
            else:
                await trio.lowlevel.checkpoint()
                self._turn_at = time.perf_counter() + _TURN_SECONDS
            await self._acknowledge()
            while True:
                seen = self.inbox.next_seq
                if self._is_over:
                    raise self._left()
                if (taken := take()) is not None:
                    self.wake()
                    return taken
                if self.inbox.closed:
                    return None
                await self._acknowledge()
                if self.inbox.next_seq == seen:
                    await self._park()
        finally:
            self._reading.difference_update(parts)

    @property
    def is_full(self) -> bool:
        """True when the server waits for something to be read."""
        return self.inbox.unread_bytes + self.inbox.read_bytes >= self.window_bytes

    def give_back(self, entry: Entry) -> None:
        """Let an entry that was taken, or the end of a chunk, be the next again for whoever reads."""
        self.inbox.give_back(entry)
        self.has_arrived()

    def discard(self, part: Part) -> None:
        """Let go of all of a stream, now and later."""
        self.inbox.discard(part)
        self._taken.unpark_all()
        self._arrived.unpark_all()

    def leave(self) -> None:
        """Let go of everything: the block of its process was left."""
        self._is_over = True
        for part in PARTS:
            self.discard(part)

    def end(self) -> None:
        """Note that nothing more is told: the block of its process was left. What has arrived can be read."""
        self.is_ended = True
        self.has_arrived()

    async def drain(self) -> Closed | None:
        """Let go of everything until all is over, also where others read. Raises `ConnectionLostError`."""
        self.leave()
        return await self.wait_closed()

    async def wait_closed(self) -> Closed | None:
        """Wait for the end of everything, and acknowledge what is let go. Raises `ConnectionLostError`."""
        while self.inbox.closed is None:
            seen = self.inbox.next_seq
            await self._acknowledge()
            if self.inbox.next_seq == seen:
                await self._park()
        return self.inbox.closed

    async def _park(self) -> None:
        if self.lost is not None:
            raise ConnectionLostError(*self.lost.args)
        if self.is_ended:
            raise self._left()
        await self._arrived.park()

    def _left(self) -> trio.ClosedResourceError:
        return trio.ClosedResourceError(f"the block of process {self.id} was left")

    async def _acknowledge(self) -> None:
        """Tell the server how much was read, once in a while. After a cancel, the next who reads or waits does it."""
        if not self._acknowledges or self.lost is not None or self.is_ended:
            return
        seq = self._untold
        if self.inbox.read_bytes > (0 if self.is_full else self.window_bytes // 2):
            seq = self.inbox.acknowledged() or seq
        if not seq:
            return
        self._untold = 0
        try:
            await self._calls.post("process/ack", ProcessAck(self.id, seq))
        except BaseException as error:
            self._untold = max(seq, self._untold)
            if not isinstance(error, ConnectionLostError):  # which is told behind all that has arrived
                raise

    # -- waiting --

    async def wait_exited(self) -> Exited:
        """Wait for the end of the leader. Raises `ConnectionLostError`.

        `trio.ClosedResourceError` is for who waits after the process's block, where the leader had not ended in it.

        Output beyond the window is let go while no other task reads: the oldest, with a gap for who reads later. A
        task that has read before, and still runs, is left to.
        """
        who = caller.get() or trio.lowlevel.current_task()
        self._waiting.append(who)
        try:
            for _ in range(2):  # who was started before us may begin to read
                await trio.lowlevel.checkpoint()
            while self.inbox.exited is None:
                seen = self.inbox.next_seq
                if self.is_full and not self._is_read():
                    self.inbox.let_go(self.window_bytes // 2)
                    self._taken.unpark_all()
                await self._acknowledge()
                if self.inbox.next_seq == seen and self.inbox.exited is None:
                    with trio.move_on_after(_LOOK_AGAIN_SECONDS if self.is_full else math.inf):
                        await self._park()
            return self.inbox.exited
        finally:
            self._waiting.remove(who)

    def _is_read(self) -> bool:
        """Return whether a task reads, or has read and may go on."""
        others = [who for who in self._last_readers.values() if who not in self._waiting]
        return bool(self._reading) or any(
            who.is_running() if isinstance(who, Caller) else inspect.getcoroutinestate(who.coro) != inspect.CORO_CLOSED
            for who in others
        )
