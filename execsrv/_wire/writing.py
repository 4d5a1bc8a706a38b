"""Writing to a descriptor that somebody else may share. Loads nothing: the command line says its first word by it."""

from __future__ import annotations

import os
import select


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, blocking this thread."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # whoever shares it has made it so
            select.select([], [descriptor], [])
