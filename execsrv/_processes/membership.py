"""Knowing the members of a session, in three ways, from the strongest to the weakest.

- By descent: where this process is a subreaper, a session's strays are our own children, so they and their descendants
  are all there is. That reads a short list and proves that nobody was missed.
- By mark: a walk through the whole process table, for what carries the mark of the session.
- By session id, where the limits have no room for a mark: the same walk, for what is in the leader's POSIX session.

`ByDescent` is the first, `ByWalk` the other two. The `Register` knows which sessions there are, and which of them a
process belongs to by what it carries.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import trio

from execsrv._processes import proc, rlimit_mark
from execsrv._processes.census import Census
from execsrv._processes.leader import Leader
from execsrv._processes.proc import Steps
from execsrv._processes.rlimit_mark import ServerMark
from execsrv._processes.spare_descriptors import Reserve
from execsrv._processes.subreaper import UNKNOWN, Strays
from execsrv._processes.tree import ProcessTree
from execsrv._threads import ThreadSlots
from execsrv.protocol import Layer

_FRESH_SECONDS = 0.01
"""So long one walk may serve all for whom it found somebody: who asks will ask again until there is nobody."""

_SPARE_DESCRIPTORS = 8
"""An end needs two or three of them, the start of a guardian seven: the ends of three pipes, and a directory."""

_HANGING_LOOKS = 40
"""So many looks of one server may hang in the kernel, each in a thread, before nothing is known by others of them."""

_LOOKS = 10
"""So often a look is repeated for somebody that it came too late for. It seldom takes a second one."""


class Register:
    """The sessions that are not over, by number, and those of our children that somebody owns, by pid."""

    def __init__(self, mark: ServerMark | None) -> None:
        self.mark = mark
        self._own_pid = os.getpid()
        self.trees: dict[int, ProcessTree] = {}
        self.starting: set[int] = set()
        """Numbers of sessions whose command is being started."""
        self.waited_for = trio.lowlevel.ParkingLot()
        """Unparked when one of them takes so long that its task waits for it."""
        self.ending: set[int] = set()
        self.helpers: set[int] = set()
        """Children that serve the server itself: the guardian."""
        self.used = trio.Event()
        """Set when commands are to be expected."""
        self.reserve = Reserve(_SPARE_DESCRIPTORS)
        self.turn = trio.Lock()
        """Held by whoever looks for long, so that all looks together hold up the others no longer than one."""
        self.looks = ThreadSlots(_HANGING_LOOKS)
        """The threads for looks that may hang in the kernel."""
        self.removals = trio.CapacityLimiter(8)
        """The threads that remove control groups, which may hang there too."""
        self.has_had_limits = False
        """True once a command has had limits."""
        self._leaders: dict[int, tuple[Leader, int]] = {}  # until reaped
        self._held: list[Leader] = []
        self._last_number = 0

    @property
    def server(self) -> int:
        """The server's own number."""
        return id(self) if self.mark is None else self.mark.server

    def reserve_number(self) -> int:
        """Return a number for a new session, which is `starting` from now on."""
        while True:
            self._last_number = (self._last_number + 1) % (1 << rlimit_mark.SESSION_BITS)
            if self._last_number not in self.trees and self._last_number not in self.starting:
                self.starting.add(self._last_number)
                self.used.set()
                return self._last_number

    def enter(self, tree: ProcessTree) -> None:
        if self._held:
            self.reap_held()
        self.trees[tree.number] = tree
        self.starting.discard(tree.number)
        self._leaders[tree.pid] = tree.leader, tree.number
        tree.leader.when_reaped = self._forget
        if tree.reaper is not None:
            self.helpers.add(tree.reaper.pid)

    def end(self, tree: ProcessTree) -> None:
        """Note that a session is being ended."""
        if tree.number in self.trees:
            self.ending.add(tree.number)

    def leave(self, tree: ProcessTree) -> None:
        """Forget a session that is over."""
        self.trees.pop(tree.number, None)
        self.ending.discard(tree.number)
        self.let_go(tree.leader)
        if tree.reaper is not None:
            self.let_go(tree.reaper)
            tree.reaper.close()

    def let_go(self, leader: Leader) -> None:
        """Reap a leader or a helper that is done with. One that a debugger still holds is reaped later."""
        if leader.reap():
            self._forget(leader)
        else:
            self._held.append(leader)

    def reap_held(self) -> None:
        """Reap those that could not be reaped when they were done with."""
        for leader in [leader for leader in self._held if leader.reap()]:
            self._held.remove(leader)
            self._forget(leader)

    def _forget(self, leader: Leader) -> None:
        self.helpers.discard(leader.pid)
        if self._leaders.get(leader.pid, (None,))[0] is leader:  # the pid may be another's by now
            del self._leaders[leader.pid]

    def is_alone(self, tree: ProcessTree) -> bool:
        """Tell whether no other session goes on, so that whoever belongs to nobody is of this one."""
        goes_on = tree.number in self.trees and tree.number not in self.ending
        return len(self.trees) + len(self.starting) - len(self.ending) == goes_on

    def may_be_starting(self, number: int | None) -> bool:
        """Tell whether a child of ours in that session, or in none, may be a leader that is not entered yet."""
        return number in self.starting if number is not None else self.mark is None and bool(self.starting)

    def owns(self, pid: int) -> bool:
        """Tell whether a child is a leader that is not reaped, or a helper."""
        return pid in self._leaders or pid in self.helpers

    def unowned(self, pids: set[int]) -> set[int]:
        """Return those of some children that are no leaders, and no helpers."""
        return pids - self._leaders.keys() - self.helpers

    def living_session_of(self, pid: int) -> int | None:
        """Return what `session_of` does, but None for a leader that has ended."""
        if pid not in self._leaders:
            return self.session_of(pid)
        leader, number = self._leaders[pid]
        return number if leader.exit_status() is None else None

    def session_of(self, pid: int) -> int | None:
        """Return the number of the session that a process belongs to, by its mark or, failing that, its session id.

        It is `UNKNOWN` for who has given itself a mark of ours that is of no session. A session id is asked for only as
        long as the leader is there to keep it from being given to others. This process itself, which carries the mark
        of a start for a moment, is of none.
        """
        if pid == self._own_pid:
            return None
        number = self.mark.session_of(pid) if self.mark else None
        if number is not None:
            return number if number in self.trees or number in self.starting else UNKNOWN
        with suppress(OSError):
            return self._leaders.get(os.getsid(pid), (None, None))[1] if self._leaders else None
        return None


class ByWalk:
    """Finds members by a walk through the process table. A session that was found empty once stays so."""

    layer: Layer

    def __init__(self, register: Register) -> None:
        self.layer = "mark" if register.mark else "session"
        self.turn = register.turn
        self.looks = register.looks
        self._register = register
        self._census = Census({}, register.living_session_of)
        self._census.is_over = True

    def spare(self) -> AbstractContextManager[None]:
        return self._register.reserve.lent()

    def find(self, tree: ProcessTree) -> Steps[dict[int, int]]:
        found = yield from self._find(tree)
        mark = self._register.mark
        if mark is not None:
            for pid in found:
                if mark.session_of(pid) is None:  # its parent had forked it before we came to mark that
                    mark.of(tree.number).put(pid)
        return found

    def _find(self, tree: ProcessTree) -> Steps[dict[int, int]]:
        census = self._census
        if census.taken_at is not None:
            known = census.members.get(tree.number)
            if known == [] and not self._unattributed(tree, census):
                return {}
            if known and time.monotonic() - census.taken_at < _FRESH_SECONDS:
                found = yield from proc.family_in_steps(_but(known, tree.reaper))
                if found:
                    return found
        return (yield from _family_of(lambda: self._look(tree), tree.reaper))

    def _look(self, tree: ProcessTree) -> Steps[list[int]]:
        while True:
            if self._census.is_over or not self._census.covers(tree):
                self._census = Census(self._register.trees, self._register.living_session_of, self._census, tree)
            census = self._census
            census.forget_dead(tree)
            while census.step():
                yield
            if census.taken_at is not None:
                its = census.members.get(tree.number)
                return [] if its is None else its + self._unattributed(tree, census)  # None: it has ended meanwhile

    def _unattributed(self, tree: ProcessTree, census: Census) -> list[int]:
        return census.members[UNKNOWN] if self._register.is_alone(tree) else []

    def belongs(self, tree: ProcessTree, pid: int) -> bool:
        number = self._register.session_of(pid)
        return number == tree.number or (number == UNKNOWN and self._register.is_alone(tree))

    def ending(self, tree: ProcessTree) -> None:
        self._register.end(tree)

    def ended(self, tree: ProcessTree) -> None:
        if (mark := self._register.mark) is not None and proc.has_ended_child():
            mark_of_its = mark.of(tree.number)
            with suppress(OSError):  # no descriptor to look with
                # Its leader may have made us the parent of some: see clone(2), CLONE_PARENT.
                proc.reap_children(lambda pid: mark_of_its.is_on(pid) and not self._register.owns(pid))
        self._register.leave(tree)
        self._census.members.pop(tree.number, None)


class ByDescent:
    """Finds members among our own children, where all strays are, and their descendants."""

    layer: Layer = "subreaper"

    def __init__(self, register: Register, strays: Strays) -> None:
        self.turn = register.turn
        self.looks = register.looks
        self._register = register
        self._strays = strays

    def spare(self) -> AbstractContextManager[None]:
        return self._register.reserve.lent()

    def find(self, tree: ProcessTree) -> Steps[dict[int, int]]:
        return (yield from _family_of(lambda: self._look(tree), tree.reaper))

    def _look(self, tree: ProcessTree) -> Steps[list[int]]:
        leader = [] if tree.leader.has_ended else [tree.pid]
        since = self._strays.asked_since if leader else tree.leader.ended_at
        others = self._strays.unattributed if not leader and self._register.is_alone(tree) else ()
        if tree.reaper is not None and not tree.reaper.has_ended:
            leader += proc.children(tree.reaper.pid)
        return leader + (yield from self._strays.of(tree.number, *others, since=math.inf if others else since))

    def belongs(self, tree: ProcessTree, pid: int) -> bool:
        return self._register.session_of(pid) == tree.number or pid in self._strays

    def ending(self, tree: ProcessTree) -> None:
        self._register.end(tree)

    def ended(self, tree: ProcessTree) -> None:
        self._register.leave(tree)
        self._strays.disown(tree.number)


def _but(pids: list[int], reaper: Leader | None) -> list[int]:
    return pids if reaper is None else [pid for pid in pids if pid != reaper.pid]


def _family_of(look: Callable[[], Steps[list[int]]], reaper: Leader | None) -> Steps[dict[int, int]]:
    """Find the living among those that a look finds, and their descendants, but for a reaper, which is none of them.

    Who was seen and has ended since may have left a child that the look came too early for. So nobody is the answer
    only when nobody was seen but who had ended before that look. Where every look comes too late, those of the last are
    the answer: the caller goes on, and asks again when others have had their turn.
    """
    ended: set[int] = set()
    for _ in range(_LOOKS):
        roots = [pid for pid in _but((yield from look()), reaper) if pid not in ended or proc.living(pid)]
        if not roots:
            return {}
        if found := (yield from proc.family_in_steps(roots)):
            break
        ended.update(roots)
    else:
        found = dict.fromkeys(roots, 0)
    if reaper is not None:  # whose children are no others
        found |= {pid: reaper.pid for pid, parent in found.items() if not parent and proc.parent(pid) == reaper.pid}
    return found
