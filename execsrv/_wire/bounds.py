"""The largest message that a channel takes in: a small one, as long as it is not known whose it is. Pure: no I/O."""

from __future__ import annotations

_STRANGERS_BYTES = 64 * 1024
"""A message in front of `initialize`, and that itself. Nobody needs more to say who it is."""

_STRANGERS_PARTS, _PARTS = 256, 65536
"""More frames than anybody cuts a message into. Each costs the websocket library some 90 bytes, an empty one too."""


class MessageBound:
    """The bound of one channel, which is raised once: when its peer has been let in."""

    def __init__(self, max_message_bytes: int, *, is_known: bool = True) -> None:
        self._configured = max_message_bytes
        self.is_known = is_known
        self.max_bytes = max_message_bytes if is_known else min(max_message_bytes, _STRANGERS_BYTES)
        self.max_parts = _PARTS if is_known else _STRANGERS_PARTS

    def lift(self) -> None:
        """Take in from now on what was configured."""
        self.is_known = True
        self.max_bytes = self._configured
        self.max_parts = _PARTS

    def complaint(self) -> str:
        """Return the text about a message that is too large."""
        if self.max_bytes < self._configured:
            return f"message before `initialize` is larger than {self.max_bytes} bytes"
        return f"message is larger than max_message_bytes ({self.max_bytes})"
