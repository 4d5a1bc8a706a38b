"""One session: a started command from its start to its close, with its streams, its input and its log.

    started -> exited (the leader; known from the kernel, never from end-of-file)
            -> drained (every stream at its end) -> closed

It owns the tree of its processes, the server's ends of the streams, and the log. It runs as one task of its connection,
with a pump per stream below it; cancelling that task kills the tree, and that is the only way to lose a session. It
knows nothing of messages.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import signal
import struct
import termios
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import trio

from execsrv._log.log import OutputLog
from execsrv._processes import terminal
from execsrv._processes.spawn import Spawned, widen
from execsrv.errors import LimitExceededError, StdinClosedError
from execsrv.limits import KIB, MIB, ServerConfig
from execsrv.protocol import Reason, SignalTarget, Stream

_TERMINAL_BYTES = 1024 * 1024
"""More than a terminal's buffers hold: 640 KiB on the way and 4 KiB to be read (tty_buffer.c, n_tty.c)."""

_TERMINAL_PIECE = 4096
"""What the kernel gives of a terminal at most in one read."""

_READ_BYTES = 64 * KIB
"""The size of one read from a pipe, and so its largest chunk. More falls out of the processor's cache and is slower."""

_TERMINAL_READ_BYTES = 128 * KIB
"""The largest chunk of a terminal. It comes in pieces of 4 KiB, and joining them saves messages."""

_PIPE_BYTES = MIB
"""The width asked for a pipe that is busy: Linux allows as much without rights. Refused, the pipe stays as it was."""

_DRAIN_SECONDS = 1.0
"""How long a killed session waits for the end of its streams, should something else still hold them."""

_REMEMBERED_WRITES = 256
"""Ids of writes that a session remembers, so that a write which is sent again is done once."""


class Write:
    """Input on its way to a command. It is `settled` once it was handed over, or cannot be any more."""

    __slots__ = ("data", "error", "settled")

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.settled = trio.Event()
        self.error: StdinClosedError | None = None

    async def wait(self) -> None:
        """Wait until it is settled. Raises `StdinClosedError`. Cancelling stops waiting, not the write."""
        await self.settled.wait()
        if self.error is not None:
            raise self.error


class StartOptions(NamedTuple):
    """What was asked for a session beside the command itself. Times are in seconds."""

    timeout: float = math.inf
    idle_timeout: float = math.inf
    window_bytes: int | None = None
    drops: bool = False


class Session:
    """A running or ended command. `id` is what its connection calls it."""

    def __init__(
        self, id: str, spawned: Spawned, terms: StartOptions, config: ServerConfig, has_news: Callable[[Session], None]
    ) -> None:
        """Take ownership of what was spawned: `run` must follow.

        `has_news` is called, and must not block, whenever the log has something for its attached reader. With a window,
        that reader lags by at most that, by its own acknowledgements.
        """
        self.id = id
        self.log = OutputLog(
            config.retained_output_bytes_per_session,
            terms.window_bytes or config.unsent_output_bytes,
            streams=spawned.outputs,
            acknowledged=terms.window_bytes is not None,
            drops=terms.drops,
        )
        self.is_terminal = "pty" in spawned.outputs
        self.has_stdin = spawned.stdin is not None
        self.program = spawned.program
        self.closed_at: float | None = None
        self.is_over = False
        self._config = config
        self._tree = spawned.tree
        self._outputs = spawned.outputs
        self._stdin = spawned.stdin
        self._has_news = has_news
        self._appended = trio.lowlevel.ParkingLot()
        self._taken = trio.lowlevel.ParkingLot()
        self._writes: deque[Write | None] = deque()  # None: close stdin
        self._queued_bytes = 0
        self._last_typed = b""
        self._writes_queued = trio.lowlevel.ParkingLot()
        self._seen_writes: dict[str, Write] = {}
        self._helpers: trio.Nursery | None = None
        self._clocks: list[tuple[trio.CancelScope, Reason]] = []
        self._idle_timeout = terms.idle_timeout
        self._idle: trio.CancelScope | None = None
        self._held = 0  # how many streams wait for the reader
        if terms.timeout < math.inf:
            self._end_after(terms.timeout, "timeout")
        if terms.idle_timeout < math.inf:
            self._idle = self._end_after(terms.idle_timeout, "idle")
        self._grace: trio.CancelScope | None = None  # how long it may take, once asked to end
        self._cause: Reason | None = None  # of the leader's end, where we are the cause
        self._pumping: trio.CancelScope | None = None
        self._until_killed = trio.CancelScope()

    def __repr__(self) -> str:
        state = "closed" if self.log.closed else "exited" if self.log.exited else "running"
        return f"<Session {self.id} {state} pid={self._tree.pid}>"

    # -- its life --

    async def run(self) -> None:
        """See it through to its end. Cancelling kills all of it; when this returns, the leader is reaped."""
        try:
            async with trio.open_nursery() as self._helpers:
                for clock in self._clocks:
                    self._helpers.start_soon(self._end_at, *clock)
                if self._stdin is not None:
                    self._helpers.start_soon(self._feed)
                if self._until_killed.cancel_called:
                    self._helpers.start_soon(self._tree.kill)
                await self._exit_and_drain()
                self._close_streams()
                proof = await self._tree.kill() if self._until_killed.cancel_called else None
                self.log.append_closed(remaining := self._tree.remaining(), proof)
                self.closed_at = trio.current_time()
                self._announce()
                with self._until_killed:
                    if remaining:  # without any of our streams, as they were told to; they are still ours
                        await self._tree.wait_alone()
                self._helpers.cancel_scope.cancel()
                self.is_over = True  # before the nursery closes, so that nobody starts a helper any more
        finally:
            self.is_over = True
            self._close_streams()
            await self._tree.end()

    async def _exit_and_drain(self) -> None:
        """Pump every stream to its end. In between, wait for the leader's end and log it."""
        async with trio.open_nursery() as pumps:
            for stream, descriptor in self._outputs.items():
                pumps.start_soon(self._pump, stream, descriptor)
            await self._exit()
            self._pumping = pumps.cancel_scope
            if self._until_killed.cancel_called:
                self._kill()

    async def _exit(self) -> None:
        """Wait for the leader's end and log it, behind all that the leader wrote."""
        status = await self._tree.wait_exited()
        for stream, descriptor in self._outputs.items():
            await self._catch_up(stream, descriptor)
        self.log.append_exited(status.code, status.signal, self._cause or ("signaled" if status.signal else "exited"))
        self._announce()

    @property
    def pid(self) -> int:
        """The leader's."""
        return self._tree.pid

    @property
    def running(self) -> bool:
        """Whether the leader lives, by the kernel's word: output that it left may still be on its way."""
        return self.log.exited is None and self._tree.exit_status() is None

    def signal(self, number: int, target: SignalTarget) -> int:
        """Send a signal; how many processes got it. `foreground` is the job in front, for a terminal only."""
        if self.is_over:
            return 0
        if target != "foreground":
            return self._tree.signal(number, target)
        return self._tree.signal_foreground(number, self._outputs["pty"]) if self._outputs else 0

    def terminate(self, reason: Reason = "terminated", grace: float = 0) -> bool:
        """End everything of it, whether or not its leader has ended; whether the leader was still running.

        With a grace it is asked first, and killed when that time is over. What the leader has printed is still
        delivered; what others hold of the streams gets a second after the kill.
        """
        if self.is_over:
            return False
        running = self.running
        if running and self._cause is None:
            self._cause = reason
        if grace > 0:
            self._tree.signal(signal.SIGTERM, "tree")
            self._tree.signal(signal.SIGCONT, "tree")  # a stopped process cannot heed it
            if self._grace is None:
                self._grace = self._end_after(grace, reason)
            self._grace.deadline = min(self._grace.deadline, trio.current_time() + grace)
        else:
            self._kill()
        return running

    def _kill(self) -> None:
        if not self._until_killed.cancel_called and self._helpers is not None:
            self._helpers.start_soon(self._tree.kill)
        self._until_killed.cancel()
        self._taken.unpark_all()
        if self._pumping is not None:
            self._pumping.deadline = min(self._pumping.deadline, trio.current_time() + _DRAIN_SECONDS)

    def _end_after(self, seconds: float, reason: Reason) -> trio.CancelScope:
        """Have it killed when that time is over. The deadline of what this gives may be moved."""
        clock = trio.CancelScope(deadline=trio.current_time() + seconds), reason
        if self._helpers is None:
            self._clocks.append(clock)  # `run` starts them
        else:
            self._helpers.start_soon(self._end_at, *clock)
        return clock[0]

    async def _end_at(self, clock: trio.CancelScope, reason: Reason) -> None:
        with clock:
            await trio.sleep_forever()
        self.terminate(reason)

    def _stir(self) -> None:
        """Something happened: the time for being idle begins anew, but not while output waits for its reader."""
        if self._idle is not None:
            self._idle.deadline = math.inf if self._held else trio.current_time() + self._idle_timeout

    def resize(self, rows: int, cols: int) -> None:
        """Change the size of its terminal."""
        if "pty" in self._outputs:
            terminal.set_size(self._outputs["pty"], rows, cols)

    # -- output --

    async def _pump(self, stream: Stream, descriptor: int) -> None:
        """Move one stream into the log until its end. While the reader lags, read nothing: the command waits."""
        full = _TERMINAL_READ_BYTES if self.is_terminal else _READ_BYTES
        more = widened = False
        while True:
            if more:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(descriptor)
            while not self.log.has_room:
                await self._wait_taken()
            chunk = self._read(descriptor)
            more = False
            if chunk is None:
                continue  # `_catch_up` was here before us
            if not chunk:
                return
            self._append(stream, chunk)
            more = len(chunk) >= full
            if more and not widened and not self.is_terminal:
                widened = True
                widen(descriptor, _PIPE_BYTES)

    async def _catch_up(self, stream: Stream, descriptor: int) -> None:
        """Move what the leader has left in a stream; what others write meanwhile may stay for the pump.

        A terminal cannot tell how much that is, but says "nothing there" only when all that was written to it has
        arrived (`n_tty_read` in the kernel), so it is read to that point, or as far as its buffers reach.

        Once terminated it waits for no reader: what is left is bounded, and the end must not hang on being read.
        """
        left = _TERMINAL_BYTES if self.is_terminal else _bytes_in(descriptor)
        while left > 0:
            while not self.log.has_room and not self._until_killed.cancel_called:
                await self._wait_taken()
            chunk = self._read(descriptor)
            if not chunk:
                return
            self._append(stream, chunk)
            left -= len(chunk)

    def _read(self, descriptor: int) -> bytes | None:
        """What is there now: None if nothing, empty at the end."""
        try:
            return self._read_terminal(descriptor) if self.is_terminal else os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return None

    def _read_terminal(self, descriptor: int) -> bytes:
        """The pieces that are there now, joined. Raises `BlockingIOError` when there is none."""
        pieces: list[bytes] = []
        left = _TERMINAL_READ_BYTES
        try:
            while left > 0:
                pieces.append(os.read(descriptor, _TERMINAL_PIECE))
                left -= len(pieces[-1])
        except BlockingIOError:
            if not pieces:
                raise
        except OSError as error:
            # EIO is how a terminal says that nobody holds its other end.
            if error.errno != errno.EIO:
                raise
        return b"".join(pieces)

    async def _wait_taken(self) -> None:
        """Wait until the reader took something. Its slowness is not the command's idleness."""
        self._held += 1
        self._stir()
        try:
            await self._taken.park()
        finally:
            self._held -= 1
            self._stir()

    def _append(self, stream: Stream, chunk: bytes) -> None:
        self.log.append(stream, chunk)
        self._stir()
        self._announce()

    def _announce(self) -> None:
        self._appended.unpark_all()
        if self.log.has_news:
            self._has_news(self)

    def taken(self) -> None:
        """The attached reader took something from the log: there may be room again."""
        self._taken.unpark_all()

    def acknowledge(self, seq: int) -> None:
        """The attached reader is done with all output up to that number."""
        self.log.acknowledge(seq)
        self.taken()
        if self.log.has_news:  # what was withheld
            self._has_news(self)

    def attach(self) -> None:
        """The log has an attached reader again."""
        self.log.attach()
        self.taken()

    def detach(self) -> None:
        """The log's attached reader has gone."""
        self.log.detach()
        self.taken()

    async def wait_appended(self) -> None:
        """Wait for the next entry of the log."""
        await self._appended.park()

    # -- input --

    def write(self, data: bytes, write_id: str | None = None) -> Write:
        """Give input to the command, behind all input given before; the order of the calls is the order of the bytes.

        What the system takes at once is settled at once. A `write_id` that was seen before gives that earlier write.
        Raises `StdinClosedError`, and `LimitExceededError` when the command reads too slowly for what is queued.
        """
        if write_id is not None and write_id in self._seen_writes:
            return self._seen_writes[write_id]
        self._stir()
        if self._stdin is None or None in self._writes:
            raise self._stdin_closed()
        bound = self._config.queued_stdin_bytes
        if self._queued_bytes and self._queued_bytes + len(data) > bound:
            message = f"{self.id} does not read its input: queued_stdin_bytes ({bound}) would be exceeded"
            raise LimitExceededError(message, limit="queued_stdin_bytes", value=bound)
        write = Write(data)
        self._last_typed = data[-1:] or self._last_typed
        if write_id is not None:
            self._seen_writes[write_id] = write
            if len(self._seen_writes) > _REMEMBERED_WRITES:
                del self._seen_writes[next(iter(self._seen_writes))]
        if not self._writes and self._write_now(write):
            return write
        self._queued_bytes += len(write.data)
        self._writes.append(write)
        self._writes_queued.unpark()
        return write

    def close_stdin(self) -> None:
        """End the input, behind all that was written. A terminal gets its end-of-file character and stays open.

        Once more does no harm. Raises `StdinClosedError` for a command that never had any.
        """
        if not self.has_stdin:
            raise self._stdin_closed()
        if self._stdin is None:
            return
        if self.is_terminal:
            self.write(terminal.end_of_input(self._stdin, self._last_typed))
        elif None not in self._writes:
            self._writes.append(None)
            self._writes_queued.unpark()

    def _write_now(self, write: Write) -> bool:
        """Hand over what the system takes without waiting; whether the write is settled."""
        assert self._stdin is not None
        try:
            count = os.write(self._stdin, write.data) if write.data else 0
        except BlockingIOError:
            return False
        except OSError:  # EPIPE, EIO: nobody reads this any more
            write.error = self._stdin_closed()
            write.data = memoryview(b"")
        else:
            write.data = write.data[count:]
        if write.data:
            return False
        write.data = memoryview(b"")  # an empty slice would keep all of it in memory
        write.settled.set()
        return True

    async def _feed(self) -> None:
        """Hand over what could not be written at once, in order, as the command reads."""
        while self._stdin is not None:
            while not self._writes:
                await self._writes_queued.park()
            write = self._writes[0]
            if write is None:
                self._close_stdin()
                return
            size = len(write.data)
            settled = self._write_now(write)
            self._queued_bytes -= size - len(write.data)
            if len(write.data) < size:
                self._stir()
            if settled:
                self._writes.popleft()
            else:
                if not self.is_terminal:
                    widen(self._stdin, _PIPE_BYTES)
                try:
                    await trio.lowlevel.wait_writable(self._stdin)
                except trio.ClosedResourceError:
                    return  # the session has drained

    def _close_stdin(self) -> None:
        """No input any more: close our end, and tell those who wait to write."""
        descriptor, self._stdin = self._stdin, None
        if descriptor is not None:
            trio.lowlevel.notify_closing(descriptor)
            if not self.is_terminal:
                os.close(descriptor)
        for write in self._writes:
            if write is not None:
                write.error = self._stdin_closed()
                write.settled.set()
        self._writes.clear()
        self._queued_bytes = 0

    def _close_streams(self) -> None:
        self._close_stdin()
        while self._outputs:
            os.close(self._outputs.popitem()[1])

    def _stdin_closed(self) -> StdinClosedError:
        return StdinClosedError(f"stdin is closed for session {self.id}")


def _bytes_in(pipe: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])
