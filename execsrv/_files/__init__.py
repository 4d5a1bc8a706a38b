"""Files of this machine, for one peer.

`channel.py` opens the file methods of a channel, and `files.py` has them: one method for each `fs/*`, in `threads.py`'s
threads. Open files are in `blocks.py` and `handles.py`, the watch for missing files in `watch.py` and `inotify.py`.
Only `roots.py` turns paths into places; `contents.py`, `listings.py` and `changes.py` work on places, so that nothing
gets past the roots. `statx.py` reads creation times. Nothing here sends a message.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from execsrv.protocol import Notification

Tell = Callable[[Notification], Awaitable[None]]
"""Function that sends a notification to the peer, and waits for room in its queue."""

AnswersLeft = Callable[[], Awaitable[None]]
"""Function that waits until all answers given so far have been sent."""
