"""Descriptors on their way from one owner to another: each is closed when nobody refers to it any more."""

from __future__ import annotations

import os


class Lent:
    """A descriptor that somebody else gets. It is closed when nobody refers to it any more.

    So a start that hangs in its thread, and that everybody has given up, never hands on a number that is another
    file's by then; and an answer that nobody reads keeps none open.
    """

    def __init__(self, descriptor: int) -> None:
        """Take ownership of the descriptor."""
        self.descriptor = descriptor

    def __repr__(self) -> str:
        return f"<Lent {self.descriptor}>"

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def take(self) -> int:
        """Return the descriptor, which is the caller's from now on."""
        descriptor, self.descriptor = self.descriptor, -1
        return descriptor
