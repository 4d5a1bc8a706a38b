"""Reading what a command has printed by now, from the server's end of a pipe or of a terminal. Never waits."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import termios
import threading

from execsrv._setting_units import KIB

PIPE_CHUNK_BYTES = 64 * KIB
"""The size of one read from a pipe, and so its largest chunk. More falls out of the processor's cache and is slower."""

TERMINAL_CHUNK_BYTES = 128 * KIB
"""The largest chunk of a terminal. It comes in pieces of 4 KiB, and joining them saves messages."""

_TERMINAL_BYTES = 1024 * KIB
"""More than a terminal's buffers hold: 640 KiB on the way and 4 KiB to be read (tty_buffer.c, n_tty.c)."""


def read(descriptor: int, is_terminal: bool, most: int | None = None) -> bytes | None:
    """Return the bytes that are there now, and no more than `most`: None if there are none, empty at the end."""
    try:
        if is_terminal:
            return _read_terminal(descriptor, most or TERMINAL_CHUNK_BYTES)
        return os.read(descriptor, most or PIPE_CHUNK_BYTES)
    except BlockingIOError:
        return None


class _Room(threading.local):
    """Where a thread gathers the pieces of a terminal: new memory for each of them would cost more than the calls."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(TERMINAL_CHUNK_BYTES))


_room = _Room()


def _read_terminal(descriptor: int, most: int) -> bytes:
    """Return what is there now, which the kernel gives in pieces. Raises `BlockingIOError` when there is nothing."""
    room = _room.view[:most]
    size = 0
    try:
        while room and (count := os.readv(descriptor, [room])):
            size += count
            room = room[count:]
    except BlockingIOError:
        if not size:
            raise
    except OSError as error:
        # EIO is how a terminal says that nobody holds its other end.
        if error.errno != errno.EIO:
            raise
    return bytes(_room.view[:size])


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
