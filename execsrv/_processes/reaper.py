"""The first process of a session's own pid namespace: it reaps there, and its end is the end of all that is in it.

It is no member of the session. It lives as long as there are any, and is a child of ours.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from execsrv._processes import proc
from execsrv._processes.leader import Leader
from execsrv._processes.proc import Steps


class Reaper(Leader):
    """One such process, watched as a leader is."""

    def find(self, find: Callable[[], Steps[dict[int, int]]], leader: Leader) -> Steps[dict[int, int]]:
        """Find the members of its session by `find`, and end all that is in there once that is nobody."""
        found = yield from find()
        if not found and leader.has_ended:
            # Who was left behind by somebody that had been looked at became its child after the look.
            found = yield from find()
            if not found:
                proc.send(self.pid, signal.SIGKILL, lambda pid: not self.has_ended)
        return found
