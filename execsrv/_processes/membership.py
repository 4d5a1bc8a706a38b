"""Who belongs to a session: three ways of knowing, from the strongest to the weakest that a machine allows.

`ByDescent` looks at our own children, `ByMark` at the whole process table, `ByGroup` at nobody but the leader. What
they share is the `Register`: which sessions there are, and which of them a process belongs to by what it carries.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import trio

from execsrv._processes import proc, rlimit_mark
from execsrv._processes.proc import walk
from execsrv._processes.rlimit_mark import ServerMark
from execsrv._processes.subreaper import Strays
from execsrv._processes.tree import ProcessTree
from execsrv.protocol import Layer

_YOUNG_SECONDS = 0.02
"""In so short a time the kernel cannot give out all pids once around, so a session's have the next numbers."""

_FRESH_SECONDS = 0.01
"""So long one walk may serve all for whom it found somebody: who asks will ask again until there is nobody."""


class Register:
    """The sessions that are not over, by number, and their leaders that are not reaped, by pid."""

    def __init__(self, mark: ServerMark | None) -> None:
        self.mark = mark
        self.trees: dict[int, ProcessTree] = {}
        self.leaders: dict[int, int] = {}
        self.ending: set[int] = set()
        self.used = trio.Event()

    def enter(self, tree: ProcessTree) -> None:
        self.trees[tree.number] = tree
        self.leaders[tree.pid] = tree.number
        self.used.set()

    def session_of(self, pid: int) -> int | None:
        """The number of the session that a process belongs to, by its mark or, failing that, by its session id.

        A session id is asked for only as long as the leader is there to keep it from being given to others.
        """
        number = self.mark.session_of(pid) if self.mark else None
        if number is None and self.leaders:
            try:
                number = self.leaders.get(os.getsid(pid))
            except OSError:
                pass
        return number


class ByGroup:
    """Where there is no process table: a session is its leader, and its group can be killed but not counted."""

    layer: Layer = "group"

    def __init__(self, register: Register) -> None:
        self._register = register

    def find(self, tree: ProcessTree) -> dict[int, int]:
        return {} if tree.exit_status() else {tree.pid: 0}

    def belongs(self, tree: ProcessTree, pid: int) -> bool:
        return self._register.session_of(pid) == tree.number

    def reaped(self, tree: ProcessTree) -> None:
        self._register.leaders.pop(tree.pid, None)

    def ending(self, tree: ProcessTree) -> None:
        self._register.ending.add(tree.number)

    def ended(self, tree: ProcessTree) -> None:
        self._register.trees.pop(tree.number, None)
        self._register.ending.discard(tree.number)


class ByMark(ByGroup):
    """By a walk through the process table. A session that was found empty once stays so."""

    def __init__(self, register: Register) -> None:
        super().__init__(register)
        self.layer = "mark" if register.mark else "session"
        self._census: dict[int, list[int]] = {}
        self._taken_at = 0.0

    def find(self, tree: ProcessTree) -> dict[int, int]:
        found = self._find(tree)
        mark = self._register.mark
        for pid in found:
            if (
                mark is not None and mark.session_of(pid) is None
            ):  # its parent had forked it before we came to mark that
                rlimit_mark.put(pid, mark.slot, mark.of(tree.number))
        return found

    def _find(self, tree: ProcessTree) -> dict[int, int]:
        session_of = self._register.session_of
        if time.monotonic() - tree.started_at < _YOUNG_SECONDS:

            def look() -> list[int]:
                leader = [] if tree.exit_status() else [tree.pid]
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

    def ended(self, tree: ProcessTree) -> None:
        super().ended(tree)
        self._census.pop(tree.number, None)


class ByDescent(ByGroup):
    """By our own children, among which all strays are, and their descendants."""

    layer: Layer = "subreaper"

    def __init__(self, register: Register, strays: Strays) -> None:
        super().__init__(register)
        self._strays = strays

    def find(self, tree: ProcessTree) -> dict[int, int]:
        def look() -> list[int]:
            if not tree.exit_status():
                return [tree.pid, *self._strays.of(tree.number)]
            # They belong to this one for sure when there is no other that goes on.
            alone = self._register.trees.keys() - self._register.ending <= {tree.number}
            return self._strays.of(tree.number) + (self._strays.unattributed() if alone else [])

        return _family_of(look)

    def belongs(self, tree: ProcessTree, pid: int) -> bool:
        return super().belongs(tree, pid) or pid in self._strays


def _family_of(look: Callable[[], list[int]]) -> dict[int, int]:
    """The living among those that a look finds, and their descendants.

    Who was seen and has ended since may have left a child that the look came too early for. So nobody is the answer
    only when nobody was seen.
    """
    while (roots := look()) and not (found := proc.family(roots)):
        pass
    return found if roots else {}
