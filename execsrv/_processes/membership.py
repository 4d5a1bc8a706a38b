"""Knowing the members of a session, in three ways, from the strongest to the weakest.

- By descent: where this process is a subreaper, a session's strays are our own children, so they and their descendants
  are all there is. That reads a short list and proves that nobody was missed.
- By mark: a walk through the whole process table, for what carries the mark of the session.
- By session id, where the limits have no room for a mark: the same walk, for what is in the leader's POSIX session.

`ByDescent` is the first, `ByWalk` the other two. The `Register` knows which sessions there are, and which of them a
process belongs to by what it carries.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import trio

from execsrv._processes import proc, rlimit_mark
from execsrv._processes.leader import Leader
from execsrv._processes.proc import walk
from execsrv._processes.rlimit_mark import ServerMark
from execsrv._processes.subreaper import Strays
from execsrv._processes.tree import ProcessTree
from execsrv.protocol import Layer

_YOUNG_SECONDS = 0.02
"""In so short a time the kernel cannot give out all pids once around, so a session's have the next numbers."""

_FRESH_SECONDS = 0.01
"""So long one walk may serve all for whom it found somebody: who asks will ask again until there is nobody."""

_LOOKS = 10
"""So often a look is repeated for somebody that it came too late for. It seldom takes a second one."""


class Register:
    """The sessions that are not over, by number, and those of our children that somebody owns, by pid."""

    def __init__(self, mark: ServerMark | None) -> None:
        self.mark = mark
        self.trees: dict[int, ProcessTree] = {}
        self.starting: set[int] = set()
        """Numbers of sessions whose command is being started."""
        self.ending: set[int] = set()
        self.helpers: set[int] = set()
        """Children that serve the server itself: the guardian."""
        self.used = trio.Event()
        self._leaders: dict[int, tuple[Leader, int]] = {}  # until reaped
        self._held: list[Leader] = []
        self._last_number = 0

    def reserve_number(self) -> int:
        """Return a number for a new session, which is `starting` from now on."""
        while True:
            self._last_number = (self._last_number + 1) % (1 << rlimit_mark.SESSION_BITS)
            if self._last_number not in self.trees and self._last_number not in self.starting:
                self.starting.add(self._last_number)
                return self._last_number

    def enter(self, tree: ProcessTree) -> None:
        self.reap_held()
        self.trees[tree.number] = tree
        self.starting.discard(tree.number)
        self._leaders[tree.pid] = tree.leader, tree.number
        self.used.set()

    def leave(self, tree: ProcessTree) -> None:
        """Forget a session that is over. A leader that a debugger still holds is reaped later."""
        self.trees.pop(tree.number, None)
        self.ending.discard(tree.number)
        if not tree.leader.is_reaped:
            self._held.append(tree.leader)
        else:
            self._forget(tree.leader)

    def reap_held(self) -> None:
        """Reap those leaders of sessions that are over which could not be reaped then."""
        for leader in [leader for leader in self._held if leader.reap()]:
            self._held.remove(leader)
            self._forget(leader)

    def _forget(self, leader: Leader) -> None:
        if self._leaders.get(leader.pid, (None,))[0] is leader:  # the pid may be another's by now
            del self._leaders[leader.pid]

    def owns(self, pid: int) -> bool:
        """Tell whether a child is a leader that is not reaped, or a helper."""
        return pid in self.helpers or self._led_by(pid) is not None

    def _led_by(self, pid: int) -> int | None:
        """Return the number of the session whose leader a process is."""
        leader, number = self._leaders.get(pid, (None, None))
        return None if leader is None or leader.is_reaped else number

    def session_of(self, pid: int) -> int | None:
        """Return the number of the session that a process belongs to, by its mark or, failing that, its session id.

        A session id is asked for only as long as the leader is there to keep it from being given to others.
        """
        number = self.mark.session_of(pid) if self.mark else None
        if number is None and self._leaders:
            try:
                number = self._led_by(os.getsid(pid))
            except OSError:
                pass
        return number


class ByWalk:
    """Finds members by a walk through the process table. A session that was found empty once stays so."""

    layer: Layer

    def __init__(self, register: Register) -> None:
        self.layer = "mark" if register.mark else "session"
        self._register = register
        self._census: dict[int, list[int]] = {}
        self._taken_at = 0.0

    def find(self, tree: ProcessTree) -> dict[int, int]:
        found = self._find(tree)
        mark = self._register.mark
        if mark is not None:
            for pid in found:
                if mark.session_of(pid) is None:  # its parent had forked it before we came to mark that
                    mark.of(tree.number).put(pid)
        return found

    def _find(self, tree: ProcessTree) -> dict[int, int]:
        session_of = self._register.session_of
        if time.monotonic() - tree.started_at < _YOUNG_SECONDS:

            def look() -> list[int]:
                leader = [] if tree.leader.has_ended else [tree.pid]
                return [*leader, *(pid for pid, number in walk(session_of, since=tree.pid) if number == tree.number)]

            return _family_of(look)
        known = self._census.get(tree.number)
        if known == []:
            return {}
        if known and time.monotonic() - self._taken_at < _FRESH_SECONDS and (found := proc.family(known)):
            return found
        return _family_of(lambda: self._take_census().get(tree.number, []))

    def _take_census(self) -> dict[int, list[int]]:
        census: dict[int, list[int]] = {number: [] for number in self._register.trees}
        for pid, number in walk(self._register.session_of):
            if number in census:
                census[number].append(pid)
        self._census, self._taken_at = census, time.monotonic()
        return census

    def belongs(self, tree: ProcessTree, pid: int) -> bool:
        return self._register.session_of(pid) == tree.number

    def ending(self, tree: ProcessTree) -> None:
        self._register.ending.add(tree.number)

    def ended(self, tree: ProcessTree) -> None:
        self._register.leave(tree)
        self._census.pop(tree.number, None)


class ByDescent:
    """Finds members among our own children, where all strays are, and their descendants."""

    layer: Layer = "subreaper"

    def __init__(self, register: Register, strays: Strays) -> None:
        self._register = register
        self._strays = strays

    def find(self, tree: ProcessTree) -> dict[int, int]:
        def look() -> list[int]:
            if not tree.leader.has_ended:
                return [tree.pid, *self._strays.of(tree.number)]
            # They belong to this one for sure when there is no other that goes on.
            going_on = (self._register.trees.keys() | self._register.starting) - self._register.ending
            alone = going_on <= {tree.number}
            return self._strays.of(tree.number) + (self._strays.unattributed() if alone else [])

        return _family_of(look)

    def belongs(self, tree: ProcessTree, pid: int) -> bool:
        return self._register.session_of(pid) == tree.number or pid in self._strays

    def ending(self, tree: ProcessTree) -> None:
        self._register.ending.add(tree.number)

    def ended(self, tree: ProcessTree) -> None:
        self._register.leave(tree)


def _family_of(look: Callable[[], list[int]]) -> dict[int, int]:
    """Return the living among those that a look finds, and their descendants.

    Who was seen and has ended since may have left a child that the look came too early for. So nobody is the answer
    only when nobody was seen. Where every look comes too late, those of the last are the answer: the caller goes on,
    and asks again when others have had their turn.
    """
    for _ in range(_LOOKS):
        roots = look()
        if not roots:
            return {}
        if found := proc.family(roots):
            return found
    return dict.fromkeys(roots, 0)
