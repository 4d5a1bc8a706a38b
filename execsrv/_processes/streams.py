"""Reading what a command has printed by now, from the server's end of a pipe or of a terminal. Never waits."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import struct
import termios
import time

from execsrv._setting_units import KIB

PIPE_CHUNK_BYTES = 64 * KIB
"""The size of one read from a pipe, and so its largest chunk. More falls out of the processor's cache and is slower."""

TERMINAL_CHUNK_BYTES = 128 * KIB
"""The largest chunk of a terminal. It comes in pieces of 4 KiB, and joining them saves messages."""

_TERMINAL_BYTES = 1024 * KIB
"""More than a terminal's buffers hold: 640 KiB on the way and 4 KiB to be read (tty_buffer.c, n_tty.c)."""

_TERMINAL_PIECE = 4096
"""The most that the kernel gives of a terminal in one read."""

_FULL_PIECE = 4095
"""So much it gives of one that is being written to without a pause."""

_ASKS, _ASKING_SECONDS = 32, 0.001
"""So often, and no longer, a terminal is asked for more behind a full piece. A read of one that is empty sleeps until a
task of the kernel has brought what was written meanwhile, and to be woken takes longer than that task."""

_DO_NOT_WAIT = 2  # SPLICE_F_NONBLOCK
_libc = ctypes.CDLL(None, use_errno=True)


def read(descriptor: int, is_terminal: bool, most: int | None = None) -> bytes | None:
    """Return the bytes that are there now, and no more than `most`: None if there are none, empty at the end."""
    try:
        if is_terminal:
            return _read_terminal(descriptor, most or TERMINAL_CHUNK_BYTES)
        return os.read(descriptor, most or PIPE_CHUNK_BYTES)
    except BlockingIOError:
        return None


def _read_terminal(descriptor: int, most: int) -> bytes:
    """Return the pieces that are there now, joined. Raises `BlockingIOError` when there is none."""
    pieces: list[bytes] = []
    left = most
    try:
        while left > 0 and (piece := os.read(descriptor, min(left, _TERMINAL_PIECE))):
            pieces.append(piece)
            left -= len(piece)
            if len(piece) >= _FULL_PIECE:
                _let_more_come(descriptor)
    except BlockingIOError:
        if not pieces:
            raise
    except OSError as error:
        # EIO is how a terminal says that nobody holds its other end.
        if error.errno != errno.EIO:
            raise
    return b"".join(pieces)


def _let_more_come(terminal: int) -> None:
    """Let the kernel bring more for a terminal, within a short time."""
    end = time.perf_counter() + _ASKING_SECONDS
    for _ in range(_ASKS):
        if any(fcntl.ioctl(terminal, termios.FIONREAD, bytes(4))) or time.perf_counter() > end:
            return
        os.sched_yield()


def tee(source: int, target: int, most: int) -> int:
    """Have what is in one pipe be in another too, as far as there is room, and return how many bytes that is.

    Nothing is copied, and nothing leaves the first. Zero at its end. Raises `BlockingIOError` where there is nothing or
    no room, and `BrokenPipeError`.
    """
    size = int(_libc.tee(source, target, ctypes.c_size_t(most), _DO_NOT_WAIT))
    if size < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return size


def bytes_left(descriptor: int, is_terminal: bool) -> int:
    """Return how many bytes at most are there now, or on their way, of what was written already.

    A terminal cannot tell, but says "nothing there" only when all that was written to it has arrived (`n_tty_read` in
    the kernel): it is to be read to that point, or as far as its buffers reach.
    """
    if is_terminal:
        return _TERMINAL_BYTES
    return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0])


def is_at_its_end(descriptor: int) -> bool:
    """Tell whether a pipe or terminal has nothing more to be read, and nobody to write to it."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return [what for _, what in poll.poll(0)] == [select.POLLHUP]
