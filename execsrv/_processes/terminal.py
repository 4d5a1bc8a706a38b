"""Pseudo-terminals: the server's end is the master, the command's end is known by name only. See pty(7)."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from typing import Any

_UNLOCK = getattr(termios, "TIOCSPTLCK", 0x40045431)
_IUTF8 = 0o40000  # <asm-generic/termbits.h>
_NUMBER = getattr(termios, "TIOCGPTN", 0x80045430)


def open_terminal(rows: int, cols: int) -> tuple[int, bytes]:
    """Open a new terminal of that size; return its master, and the name of the end that a command opens.

    The master is not inheritable and does not block. Raises `OSError` when the machine has no more terminals.
    """
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(master, _UNLOCK, struct.pack("i", 0))
        (number,) = struct.unpack("i", fcntl.ioctl(master, _NUMBER, bytes(4)))
        set_size(master, rows, cols)
    except (OSError, struct.error):
        os.close(master)
        raise
    return master, b"/dev/pts/%d" % number


def set_size(terminal: int, rows: int, cols: int) -> None:
    """Change the size; the job in front gets SIGWINCH from the kernel when it really changed."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def imitate(terminal: int, modes: list[Any] | None, window: bytes | None) -> None:
    """Give a new terminal the modes and the `struct winsize` of another, where there is one. Its input is UTF-8."""
    its: list[Any] = termios.tcgetattr(terminal) if modes is None else list(modes)
    its[0] |= _IUTF8
    termios.tcsetattr(terminal, termios.TCSANOW, its)
    if window is not None:
        set_window(terminal, window)


def set_window(terminal: int, window: bytes) -> None:
    """Change the size as `set_size` does, by a `struct winsize`, which knows the pixels too."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, window)


def get_size(terminal: int) -> tuple[int, int]:
    """Return rows and columns."""
    rows, cols, _, _ = struct.unpack("HHHH", fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))
    return rows, cols


def end_of_input(terminal: int, last_key: bytes) -> bytes:
    """Return the keys that are an end-of-file behind `last_key`, which is empty where nothing was typed.

    They are this terminal's own end-of-file character, Ctrl-D unless it was changed; twice in the middle of a line,
    where the first only hands over what was typed.
    """
    control: list[bytes] = termios.tcgetattr(terminal)[6]
    end = control[termios.VEOF]
    # The kernel throws the line away at these.
    fresh = {control[key] for key in (termios.VINTR, termios.VQUIT, termios.VSUSP, termios.VKILL)} - {b"\0"}
    return end if last_key in {b"", b"\r", b"\n", end, *fresh} else 2 * end
