"""The largest message that a channel takes in: a small one, as long as it is not known whose it is. Pure: no I/O.

From then on, what comes in is paid for from the budget of the one whose it is, until it was handled.

And the size from which on a message is work enough to hold up others: it is looked at before it is decoded, and decoded
in turns (`turns.py`).
"""

from __future__ import annotations

from execsrv._budget.budget import Budget, Share
from execsrv.errors import ProtocolError

LARGE_BYTES = 1024 * 1024
"""Messages of more bytes are few: nearly all of them carry one payload."""

FREE_BYTES = 64 * 1024
"""A connection has room for so much that comes in. With more than that, it pays."""

_COPIES = 3
"""What comes in is there as bytes, as a text and as what that says, until it was handled."""

TOO_LARGE = 1009
"""The code of a websocket's close for a message that is too large (RFC 6455 section 7.4.1)."""

_TRY_AGAIN_LATER = 1013
"""The code of a websocket's close for a server without room (IANA's registry)."""

_STRANGERS_BYTES = 64 * 1024
"""A message in front of `initialize`, and that itself. Nobody needs more to say who it is."""

_STRANGERS_PARTS, _PARTS = 256, 65536
"""More frames than anybody cuts a message into. Each costs the websocket library some 90 bytes, an empty one too."""


def above_bound(max_message_bytes: int) -> ProtocolError:
    """Return the error about a message that is larger than it may be, which tells how large that is."""
    text = f"message is larger than max_message_bytes ({max_message_bytes})"
    return ProtocolError(text, TOO_LARGE, limit="max_message_bytes", value=max_message_bytes)


class MessageBound:
    """The bound of one channel, which is raised once: when its peer has been let in."""

    def __init__(self, max_message_bytes: int, *, is_known: bool = True) -> None:
        self._configured = max_message_bytes
        self.is_known = is_known
        self.max_bytes = max_message_bytes if is_known else min(max_message_bytes, _STRANGERS_BYTES)
        self.max_parts = _PARTS if is_known else _STRANGERS_PARTS
        self._budget = Budget()
        self._share = Share(self._budget, FREE_BYTES)
        self._held = 0

    def lift(self, budget: Budget) -> None:
        """Take in from now on what was configured, and pay for it. `close` must follow."""
        self._budget = budget
        self._share = Share(budget, FREE_BYTES)
        self.is_known = True
        self.max_bytes = self._configured
        self.max_parts = _PARTS

    def too_large(self) -> ProtocolError:
        """Return the error about a message that is too large."""
        if self.max_bytes < self._configured:
            return ProtocolError(f"message before `initialize` is larger than {self.max_bytes} bytes", TOO_LARGE)
        return above_bound(self.max_bytes)

    def hold(self, size: int) -> None:
        """Note that so many bytes have come in and were not handled."""
        if size < self._held:
            self._share.shrink(_COPIES * size)
        self._held = size

    def come(self, size: int) -> None:
        """Note that so many bytes more have come in."""
        self._held += size

    def handled(self, size: int) -> None:
        """Note that so many of them were handled."""
        self.hold(self._held - size)

    def is_paid(self) -> bool:
        """Return whether there was room for all that has come in."""
        return _COPIES * self._held <= self._share.room or self._share.grow(_COPIES * self._held)

    def unpaid(self) -> ProtocolError:
        """Return the error of a peer for whose messages there was no room for too long."""
        short = self._budget.short_of(_COPIES * self._held - self._share.room) or self._budget
        return ProtocolError(f"no room for a message: {short.exceeded()}", close_code=_TRY_AGAIN_LATER)

    def close(self) -> None:
        """Give back what was paid: nothing more comes in."""
        self._share.close()
        self._share = Share(Budget())
