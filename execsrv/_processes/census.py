"""A walk through the process table for all sessions there are at once, so that many that end together share it.

A walk through everything takes longer than a short command. So one that follows soon upon another looks only at the
processes that were born since: who was found to belong to no session never will, as a mark and a session id are
inherited. In so short a time the kernel cannot give out all pids once around, so the new ones have the next numbers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import cache

from execsrv._processes import proc
from execsrv._processes.proc import walk_in_steps
from execsrv._processes.subreaper import UNKNOWN
from execsrv._processes.tree import ProcessTree

_STARTS_A_SECOND = 200_000
"""One processor does not start so many processes or threads: each takes it more than ten microseconds."""

_FEW = 512
"""Numbers that lie further apart than this are not taken for those of one moment: the row may have started anew."""


_AT_ONCE = 8
"""So many processes are looked at in one step: a busy machine has as many new ones at the end of a short command."""


@cache
def _round_seconds() -> float:
    """Return a time in which the kernel cannot give out all pids once around."""
    try:
        most = int(proc.content("/proc/sys/kernel/pid_max"))
    except (OSError, ValueError):
        most = 32768  # no system has fewer, unless somebody has set it so
    return min(1.0, most / (_STARTS_A_SECOND * (os.cpu_count() or 128)))


class Census:
    """One walk. `members` are the processes of each session that it covers, dead ones too where they were alive once.

    Whoever asks for a session while it goes on shares it.
    """

    def __init__(
        self,
        trees: Mapping[int, ProcessTree],
        session_of: Callable[[int], int | None],
        before: Census | None = None,
        tree: ProcessTree | None = None,
    ) -> None:
        """Begin a walk that covers `tree` and, as far as that costs no more, the others.

        `before` is the last one: if it is complete and was a moment ago, this one goes on from there.
        """
        self.began_at = now = time.monotonic()
        self.taken_at: float | None = None
        """The time at which it was complete."""
        self.is_over = False
        self._last = 0  # the last pid of all when it was complete
        self.members: dict[int, list[int]] = {}
        since: int | None = None
        if before is not None and tree is not None:
            since = self._go_on(trees, before, tree, now)
        if since is None:
            self.members = {number: [] for number in trees}
        self.members.setdefault(UNKNOWN, [])
        self._walk = walk_in_steps(session_of, since)

    def _go_on(self, trees: Mapping[int, ProcessTree], before: Census, tree: ProcessTree, now: float) -> int | None:
        """Take over what is known, and return the pid behind which to look; None where that must be everywhere.

        A session that is younger than the last walk may have been passed over by that, when its first processes had no
        mark yet. So they are looked for again, from their leader on.
        """
        is_recent = before.taken_at is not None and now - before.taken_at < _round_seconds()
        known = before.members if is_recent else {}
        young = {
            number: other.pid
            for number, other in trees.items()
            if number not in known and now - other.born_after < _round_seconds()
        }
        starts = [*young.values(), *([before._last] if is_recent else [])]
        if tree.number not in known and tree.number not in young:
            return None
        if max(starts) - min(starts) > _FEW:
            return None
        self.members = {number: pids for number, pids in known.items() if number in trees}
        self.members |= {number: [pid] for number, pid in young.items()}
        self.members[UNKNOWN] = [pid for pid in known.get(UNKNOWN, []) if proc.living(pid)]
        return min(starts)

    def covers(self, tree: ProcessTree) -> bool:
        """Tell whether it finds all processes of a session, once it is complete."""
        return tree.number in self.members

    def forget_dead(self, tree: ProcessTree) -> None:
        """Leave out who has ended of a session. What they have left behind is found by the rest of the walk."""
        if pids := self.members.get(tree.number):
            # The leader itself is asked for without a look at the process table, and it is there nearly always.
            self.members[tree.number] = [
                pid for pid in pids if (not tree.leader.has_ended if pid == tree.pid else proc.living(pid))
            ]

    def step(self) -> bool:
        """Look at a few more. Return false when it is over: it is complete, or has failed for somebody else."""
        return all(self._look_at_one() for _ in range(_AT_ONCE))

    def _look_at_one(self) -> bool:
        try:
            found = next(self._walk)
        except StopIteration as done:
            if not self.is_over:
                self.taken_at, self._last = time.monotonic(), done.value
            self.is_over = True
            return False
        except BaseException:
            self.is_over = True
            raise
        if found is not None and found[1] in self.members:
            self.members[found[1]].append(found[0])
        return True
