"""The files of this machine for one peer: `files.py` is the way in, and everything else here runs in its threads.

`roots.py` alone turns paths into places; `contents.py`, `listings.py` and `changes.py` work on places and never on
paths, so that nothing gets past the roots. `watch.py` waits for what is missing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from execsrv.protocol import Notification

Tell = Callable[[Notification], Awaitable[None]]
"""Sends a notification to the peer, and waits for room."""

AnswersLeft = Callable[[], Awaitable[None]]
"""Waits until the answers so far have been sent."""
