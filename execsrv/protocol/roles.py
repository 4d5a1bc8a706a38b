"""The roles of those who may speak with a server, from the least to the most."""

from __future__ import annotations

from enum import IntEnum


class Role(IntEnum):
    """All that somebody may do. A role may do what a lesser one may."""

    HEALTH = 1
    """Ask whether the server is well."""
    VIEWER = 2
    """See commands and their output, and change nothing."""
    WRITER = 3
    """Speak with commands that run: write to them, signal them, end them."""
    OWNER = 4
    """Start commands, and reach the machine: its files, its network, its configuration."""

    @property
    def word(self) -> str:
        """The name of the role where people write it."""
        return self.name.lower()
