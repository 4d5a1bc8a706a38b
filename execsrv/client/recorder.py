"""Recording a process into a file, beside whoever reads it.

What arrives becomes lines at once, and waits for a thread that writes them. A slow disk never slows the process down:
beyond a bound the recording leaves output out, and has a marker there that says how much. An error of the file ends the
recording, not the process, and is raised where the block is left.
"""

from __future__ import annotations

import errno
import math
import os
import shlex
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial

import trio

from execsrv._log.log import Closed, Entry, Exited, Gap
from execsrv._nursery import happened, open_helpers
from execsrv._threads import run_in_thread
from execsrv.client.file_paths import plain_path
from execsrv.client.mirror import Mirror
from execsrv.client.parameters import flag, seconds, string
from execsrv.client.text import TextMode, text_mode
from execsrv.errors import BusyError, InvalidParamsError
from execsrv.protocol import Chunk, Size
from execsrv.record.asciicast import Asciicast, Recording
from execsrv.record.file import open_file, whole_lines

_MOST_WAITING_BYTES = 16 * 1024 * 1024
"""So much may wait for the file. Beyond it, output is left out of the recording."""

_FLUSH_SECONDS = 5.0
"""Time that the file has in the end to take what waits."""


def recording(record: object, text: TextMode | None) -> Recording:
    """Return a recording for the path or the `Recording` that a user gave. Raises `InvalidParamsError`.

    `text` is how the process is read as text, None where it is read as bytes.
    """
    recording = record if isinstance(record, Recording) else Recording(record)  # type: ignore[arg-type]
    if not isinstance(recording.path, str | os.PathLike):
        raise InvalidParamsError(f"record must be a path or a Recording, got {recording.path!r}", field="record")
    plain_path("record", recording.path)
    flag("input", recording.input)
    if recording.title is not None:
        string("title", recording.title)
    seconds("idle_time_limit", recording.idle_time_limit)
    mode = text_mode(None, recording.encoding, None) or text or TextMode()
    return replace(recording, encoding=mode.encoding)


@asynccontextmanager
async def recorded(mirror: Mirror, recording: Recording, argv: Sequence[str], size: Size | None) -> AsyncIterator[None]:
    """Record, in this block, all that arrives of a process. `size` is that of its terminal, None on pipes.

    What has arrived by its end is written, also when it is cancelled, for `_FLUSH_SECONDS` at most.

    Raises `OSError` where the file cannot be opened, and at the end of the block where it could not be written.
    """
    file = _File(os.fspath(recording.path))
    try:
        await run_in_thread(file.open, file.limiter)
        tap = _Tap(mirror, recording, argv, size)
        async with open_helpers() as nursery:
            nursery.start_soon(_write_all, tap, file)
            mirror.taps.append(tap)
            try:
                yield
            finally:
                mirror.taps.remove(tap)
                tap.end()
        if tap.error is not None:
            raise tap.error
    finally:
        file.close()


class _Tap:
    """Sees what happens to a process, and keeps it as lines until somebody takes them."""

    def __init__(self, mirror: Mirror, recording: Recording, argv: Sequence[str], size: Size | None) -> None:
        self.news = trio.Event()
        self.is_over = False
        self.writing = trio.CancelScope(shield=True)
        self.error: OSError | BusyError | None = None
        self._mirror = mirror
        self._with_input = recording.input
        self._cast = Asciicast(time.monotonic(), is_terminal=size is not None, encoding=recording.encoding or "utf-8")
        self._began = math.inf
        self._lines = [
            self._cast.header(
                *((size.rows, size.cols) if size else (24, 80)),
                timestamp=time.time(),
                command=shlex.join(argv),
                title=recording.title,
                idle_time_limit=recording.idle_time_limit,
            )
        ]
        self._waiting_bytes = 0
        self._left_out = 0

    def arrived(self, entry: Entry) -> None:
        match entry:
            case Chunk() if self._has_room(len(entry.chunk)):
                self._add(self._cast.output(self._time_of(entry), entry.stream, entry.chunk))
            case Gap():
                self._left_out += sum(entry.omitted.values())
                self._has_room(0)
            case Exited() | Closed():
                pass  # the file's last line tells how it ended

    def wrote(self, data: bytes) -> None:
        if self._with_input and self._has_room(len(data)):
            self._add(self._cast.input(time.monotonic(), data))

    def resized(self, rows: int, cols: int) -> None:
        self._add(self._cast.resized(time.monotonic(), rows, cols))

    def leaving(self) -> None:
        pass  # what it prints until it has ended is recorded too

    def end(self) -> None:
        self._tell_left_out()
        exited = self._mirror.exited
        self._add(self._cast.end(time.monotonic(), exited.exit_code if exited else None))
        self.is_over = True
        self.writing.deadline = trio.current_time() + _FLUSH_SECONDS
        self.news.set()

    def take(self) -> bytes:
        """Return all lines that wait."""
        lines, self._lines, self._waiting_bytes = self._lines, [], 0
        self.news = trio.Event()
        return b"".join(lines)

    def _time_of(self, chunk: Chunk) -> float:
        """Return when it was printed, by our clock: the server's tells how long after the start."""
        now = time.monotonic()
        if chunk.at is None:
            return now
        self._began = min(self._began, now - chunk.at)  # the later ones took longer to arrive
        return self._began + chunk.at

    def _has_room(self, size: int) -> bool:
        """Tell whether so many bytes may still wait. Say first what has been left out, once there is room again."""
        if self._waiting_bytes + size > _MOST_WAITING_BYTES:
            self._left_out += size
            return False
        self._tell_left_out()
        return True

    def _tell_left_out(self) -> None:
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            self._add(self._cast.marker(time.monotonic(), f"{left_out} bytes are missing here"))

    def _add(self, line: bytes) -> None:
        if line and self.error is None:
            self._lines.append(line)
            self._waiting_bytes += len(line)
            self.news.set()


async def _write_all(tap: _Tap, file: _File) -> None:
    """Write lines as they come, until the end or an error. A cancel does not stop it: the end of the block does."""
    with tap.writing:
        try:
            while True:
                is_over = tap.is_over
                await run_in_thread(partial(file.write, tap.take()), file.limiter)
                if is_over:
                    break
                await happened(tap.news)
        except (OSError, BusyError) as error:
            tap.error = error
    if tap.writing.cancelled_caught:
        tap.error = file.failure(errno.ETIMEDOUT)


class _File:
    """A file that is written to in threads, one at a time. A thread that hangs is left behind, and closes it later."""

    def __init__(self, path: str | bytes) -> None:
        self.limiter = trio.CapacityLimiter(1)
        self._path = path
        self._descriptor: int | None = None
        self._lock = threading.Lock()
        self._is_used = False
        self._is_closed = False

    def open(self) -> None:
        """Create it, or empty it. Raises `OSError`."""
        with self._using():
            self._descriptor = open_file(self._path)

    def write(self, data: bytes) -> None:
        """Write all of it. Raises `OSError` with its path."""
        with self._using():
            assert self._descriptor is not None
            rest = memoryview(data)
            with whole_lines(self._descriptor, data):
                while rest and not self._is_closed:
                    rest = rest[os.write(self._descriptor, rest) :]

    def failure(self, number: int) -> OSError:
        """Return the error of a recording that is not whole, for the error of the system."""
        return OSError(number, f"cannot write the recording: {os.strerror(number)}", os.fsdecode(self._path))

    def close(self) -> None:
        """Close it, now or when a thread is done with it."""
        with self._lock:
            self._is_closed = True
            self._close_if_done()

    @contextmanager
    def _using(self) -> Iterator[None]:
        with self._lock:
            self._is_used = True
        try:
            yield
        except OSError as error:
            raise self.failure(error.errno or 0) from error
        finally:
            with self._lock:
                self._is_used = False
                self._close_if_done()

    def _close_if_done(self) -> None:
        if self._is_closed and not self._is_used and self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
