"""The file of a recording: its user's alone, as a terminal is, and of whole lines, since a player takes no others."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def open_file(path: str | bytes) -> int:
    """Create a file for a recording, or empty it, and return its descriptor. Raises `OSError`."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OSError(error.errno, f"cannot write the recording: {error.strerror}", path) from None
    with suppress(OSError):  # what is another user's stays as it is
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fchmod(descriptor, 0o600)
    return descriptor


@contextmanager
def whole_lines(descriptor: int, lines: bytes) -> Iterator[None]:
    """Write lines in this block. Where it ends before all of them are written, the one that is cut is taken back.

    What is no regular file keeps it.
    """
    began = _place(descriptor)
    try:
        yield
    finally:
        written = _place(descriptor) - began
        if written < len(lines):
            with suppress(OSError):
                os.ftruncate(descriptor, began + lines.rfind(b"\n", 0, written) + 1)


def _place(descriptor: int) -> int:
    try:
        return os.lseek(descriptor, 0, os.SEEK_CUR)
    except OSError:
        return 0
