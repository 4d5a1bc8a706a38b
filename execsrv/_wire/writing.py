"""Writing to a descriptor that somebody else may share. Loads nothing: the command line says its first word by it."""

from __future__ import annotations

import os
import select


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, blocking this thread."""
    view = memoryview(data)
    while view:
        view = view[write_some(descriptor, view) :]


def write_some(descriptor: int, data: memoryview) -> int:
    """Write the beginning of something, blocking this thread, and return how much that is."""
    while True:
        try:
            return os.write(descriptor, data)
        except BlockingIOError:  # whoever shares it has made it so
            select.select([], [descriptor], [])
