"""Outlet: lines for people, written to a descriptor by a thread of its own.

Whoever has something to say hands it over and goes on. The queue is bounded in bytes. When it is full, because nobody
reads, further lines are dropped and counted, and the count is told when somebody reads again. The thread is a daemon's
in both senses: it is waited for during a bounded time at the end, and keeps no process alive.
"""

from __future__ import annotations

import errno
import io
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Thread

from execsrv._wire.writing import write_some

_QUEUED_BYTES = 256 * 1024
_LAST_WORDS_SECONDS = 0.5
LINE_BYTES = 1024
"""The longest line that is said."""

_ENTRY_BYTES = 100
"""Counted for an entry of the queue beside its text, so that many short ones are bounded as well."""


def _dropped(count: int) -> bytes:
    return b"execsrv: %d messages were dropped, since they could not be written\n" % count


class Outlet:
    """Lines on their way to one descriptor, which stays the caller's. `open_outlet` makes it.

    `failed`, where given, is called with the error of a line that could not be written: in the thread, or for want of
    one in the caller's.
    """

    def __init__(
        self,
        descriptor: int,
        failed: Callable[[OSError], None] | None = None,
        max_queued_bytes: int = _QUEUED_BYTES,
        dropped: Callable[[int], bytes] = _dropped,
    ) -> None:
        """`dropped` makes the line about so many that were dropped, with its end."""
        self._descriptor = descriptor
        self._failed = failed
        self._max_queued_bytes = max_queued_bytes
        self._dropped_line = dropped
        self._news = Condition()
        self._thread: Thread | None = None
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._dropped = 0
        self._closed = False
        self._is_cut = False  # the line that was written last

    def say(self, text: str) -> None:
        """Have one line written, escaped and cut. Does not wait."""
        self.put(log_line(text))

    def put(self, text: bytes) -> None:
        """Have whole lines written as they are, or none of them where the queue is full. Does not wait."""
        size = len(text) + _ENTRY_BYTES
        with self._news:
            if self._closed:
                return
            # What was dropped is told behind what waits: so nothing may come in between.
            if self._dropped or self._queued_bytes + size > self._max_queued_bytes:
                self._dropped += 1
            else:
                self._queue.append(text + b"\n")
                self._queued_bytes += size
            self._want_thread()
            self._news.notify()

    def close(self) -> None:
        """Take no more, and give the thread a short time to write what waits."""
        with self._news:
            self._closed = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join(_LAST_WORDS_SECONDS)

    def _want_thread(self) -> None:
        """Start the thread where the machine gives it. What is said until then waits for the next line."""
        if self._thread is None:
            thread = Thread(target=self._write, name=f"execsrv outlet {self._descriptor}", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                if self._failed is not None:
                    self._failed(OSError(errno.EAGAIN, "no thread to be had"))
            else:
                self._thread = thread

    def _write(self) -> None:
        """Write line after line, until closed. A line that fails is counted, and told with the next."""
        # Our signals are for the main thread; and a blocked SIGTTOU lets a background job write to its terminal.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        lost = 0
        while (text := self._take()) is not None:
            try:
                if lost:
                    self._write_whole(self._dropped_line(lost))
                    lost = 0
                self._write_whole(text)
            except OSError as error:
                lost += 1
                if self._failed is not None:
                    self._failed(error)

    def _write_whole(self, text: bytes) -> None:
        """Write lines, behind the end of one that a full disk has cut. Raises `OSError`."""
        view = memoryview(b"\n" + text if self._is_cut else text)
        while view:
            view = view[write_some(self._descriptor, view) :]
            self._is_cut = bool(view)

    def _take(self) -> bytes | None:
        """Return what is to be written next, when there is something; None when closed and empty."""
        with self._news:
            while not (self._queue or self._dropped or self._closed):
                self._news.wait()
            if self._queue:
                text = self._queue.popleft()
                self._queued_bytes -= len(text) - 1 + _ENTRY_BYTES
                return text
            count, self._dropped = self._dropped, 0
            return self._dropped_line(count) if count else None


@contextmanager
def open_outlet(
    descriptor: int,
    failed: Callable[[OSError], None] | None = None,
    max_queued_bytes: int = _QUEUED_BYTES,
    dropped: Callable[[int], bytes] = _dropped,
) -> Iterator[Outlet]:
    """Open an outlet. Leaving gives it a short time for what waits."""
    outlet = Outlet(descriptor, failed, max_queued_bytes, dropped)
    try:
        yield outlet
    finally:
        outlet.close()


class Printed(io.TextIOBase):
    """A text file for `sys.stderr`: what is printed, by the interpreter too, is said line by line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, rest = (self._rest + text).split("\n")
        self._rest = rest[:LINE_BYTES]
        for line in lines:
            self._say(line)
        return len(text)


def log_line(text: str) -> bytes:
    """Return text as one line without its end: control characters are escaped, and it is cut to 1 KiB."""
    is_cut = len(text) > LINE_BYTES
    text = text[:LINE_BYTES]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    line = text.encode()
    if is_cut or len(line) > LINE_BYTES:
        line = line[: LINE_BYTES - 3].decode(errors="ignore").encode() + b"..."
    return line
