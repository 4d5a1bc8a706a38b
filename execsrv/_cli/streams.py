"""The standard streams of this process: all three are open, and one that takes nothing stops nobody."""

from __future__ import annotations

import os
import select
import sys

from execsrv._wire.writing import write_all

missing: set[int] = set()
"""The standard streams that this process was started without."""


def open_missing() -> None:
    """Open the standard streams that we were started without.

    Something else would get their numbers, and be read or written for them.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            missing.add(descriptor)
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def say(text: str, patience: float | None = None) -> None:
    """Write a line for people to stderr. Where nobody reads it, or there is no room for it in time, it is lost.

    Nothing in it is taken by a terminal for more than text: much of what is said are the words of others.
    """
    if patience is None or select.select([], [2], [], patience)[1]:
        write_line(2, escaped(text, keep="\r\n").encode())


def escaped(text: str, keep: str = "") -> str:
    """Return a text with nothing in it that could move the cursor, or turn what is read, but for what is to be kept."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()
        for letter in text
    )


def write_line(descriptor: int, line: bytes) -> OSError | None:
    """Write a line, and return the error where that failed. Nothing stays in a buffer, to fail at the end again."""
    try:
        write_all(descriptor, line + b"\n")
    except OSError as error:
        return error
    return None
