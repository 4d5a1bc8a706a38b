"""The terminal that `execsrv run --tty` is used from: its modes, its size, and the keys that always end the command."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import tty as terminal_modes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from execsrv._processes.terminal import named

_TILDE = ord("~")
_LINE_ENDS = frozenset(b"\r\n")


def modes() -> list[Any] | None:
    """Return the modes of our terminal, None where stdin is none."""
    try:
        return termios.tcgetattr(0)
    except termios.error:
        return None


def named_modes() -> dict[str, bool | int]:
    """Return the modes of our terminal by their names, none where stdin is none."""
    attributes = modes()
    return {} if attributes is None else named(attributes)


def window() -> bytes | None:
    """Return the size of our terminal as a `struct winsize`, None where there is none that knows."""
    try:
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return None
    rows, cols, _, _ = size_of(size)
    return size if rows and cols else None


def size_of(window: bytes) -> tuple[int, int, int, int]:
    """Return the rows, columns, width and height in pixels of a `struct winsize`."""
    rows, cols, xpixel, ypixel = struct.unpack("HHHH", window)
    return rows, cols, xpixel, ypixel


@contextmanager
def raw_terminal(wanted: bool) -> Iterator[Callable[[], None]]:
    """Have our own terminal, if wanted and stdin is one, pass every key through. On leaving it is restored.

    Gives a function that does so again when we were continued: the shell has set its own modes meanwhile.
    """
    before = modes() if wanted else None

    def again() -> None:
        if before is not None and not in_background():
            terminal_modes.setraw(0, termios.TCSADRAIN)

    if before is None:
        yield again
        return
    try:
        terminal_modes.setraw(0, termios.TCSADRAIN)  # what was typed ahead is for the command
        yield again
    finally:
        try:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
        except termios.error:
            pass  # it was hung up


def write_now(data: bytes, descriptor: int = 1) -> None:
    """Write to our terminal what it takes at once. One that takes nothing holds nobody up."""
    try:
        if select.select([], [descriptor], [], 0)[1]:
            os.write(descriptor, data)
    except OSError:
        pass  # it was hung up


class Escape:
    """Finds `~.` at the start of a line, by which a user gets out whatever the command does, as in ssh.

    `~~` there is one `~`.
    """

    def __init__(self) -> None:
        self.is_complete = False
        self._at_start = True
        self._held = False

    def take(self, keys: bytes) -> bytes:
        """Return those keys that are for the command. Nothing is after the escape, which completes it."""
        passed = bytearray()
        for key in keys:
            if self._held:
                self._held = False
                if key == ord("."):
                    self.is_complete = True
                    break
                if key != _TILDE:
                    passed.append(_TILDE)
            elif key == _TILDE and self._at_start:
                self._held = True
                continue
            passed.append(key)
            self._at_start = key in _LINE_ENDS
        return bytes(passed)


def in_background() -> bool:
    """Tell whether stdin is our terminal and another job of it is in front, so that reading would stop us."""
    try:
        return os.tcgetpgrp(0) != os.getpgrp()
    except OSError:
        return False
