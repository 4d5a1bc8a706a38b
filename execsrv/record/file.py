"""A recording's file has whole lines alone, also where its disk is full: a player takes no other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


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
