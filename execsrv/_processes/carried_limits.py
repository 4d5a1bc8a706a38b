"""Carrying a mark on this very process for the instant of a start, so that the child has it from the first.

So are other limits that commands are to have and this process is not: `commands_limits`.

A limit belongs to the whole process, so only one start may carry a mark at a time. It does so until its child is there,
not until its child has got to its program: that may wait for a file system, and so would everybody else. The C library
tells its caller only of the second, but the kernel shows everybody the first.

One turn for the whole process, however many servers are in it.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from execsrv._processes import proc
from execsrv._processes.rlimit_mark import Mark, own_limit, set_own_limit

commands_limits: tuple[tuple[int, int], ...] = ()
"""Resource limits of this process that differ for what it starts, each with the soft value there. Set by a program of
its own, before the first start."""

_SPARE_DESCRIPTORS = 64
"""So many must be left below a limit that is carried: others of this process may open some at the same instant."""

_LOOK_SECONDS = 0.005
"""After so long a wait for the turn, somebody looks whether the child that holds it up has been born."""


_news = threading.Condition()


class Turn:
    """A block in which this thread starts one command, and this process carries a mark, or none for sure, until then.

    Whoever enters it waits until it is its turn: not in the loop.
    """

    def __init__(self, mark: Mark | None) -> None:
        self.thread = threading.get_native_id()
        self._mark = mark
        self._before: list[tuple[int, tuple[int, int]]] = []  # the limits as they were

    def __enter__(self) -> None:
        global _turn
        try:
            with _news:
                while _turn is not None:
                    if not _news.wait(_LOOK_SECONDS):
                        _look()
                _turn = self
                if self._mark is not None:
                    self.carry(self._mark.slot, self._mark.value)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        with _news:
            if _turn is self:
                _pass_on()

    def carry(self, slot: int, value: int) -> None:
        """Carry this soft value of a limit until the end of the turn."""
        before = own_limit(slot)
        self._before.append((slot, before))
        set_own_limit(slot, value, before[1])

    def is_born(self) -> bool:
        """Return whether the command has been born, as far as its mark tells."""
        return self._mark is not None and bool(born(self.thread, self._mark))

    def end(self) -> None:
        """Set the limits as they were."""
        for slot, before in self._before:
            set_own_limit(slot, *before)


_turn: Turn | None = None


def look() -> None:
    """End a turn whose child has been born, so that what it carries is not carried for as long as a start hangs."""
    with _news:
        _look()


def _look() -> None:
    with suppress(OSError):  # no descriptor is left to look with: the next one looks
        if _turn is not None and _turn.is_born():
            _pass_on()


def may_be_carried(newest: int) -> bool:
    """Tell whether `commands_limits` may be carried: `newest`, a descriptor that was just opened, tells of few others.

    Else other threads could open none meanwhile, and the limits have to be set in the child.
    """
    return not any(newest + _SPARE_DESCRIPTORS > value for _, value in commands_limits)


def carry_limits() -> None:
    """Carry `commands_limits` too for the rest of this thread's turn: from here on, with few descriptors to be had."""
    if not commands_limits:
        return
    with _news:
        if _turn is not None and _turn.thread == threading.get_native_id():
            for slot, value in commands_limits:
                _turn.carry(slot, value)


def _pass_on() -> None:
    global _turn
    try:
        if _turn is not None:
            _turn.end()
    finally:
        _turn = None
        _news.notify()


def born(thread: int, mark: Mark) -> list[int]:
    """Return the children of a thread of ours that carry a mark: the one that it starts, from its first instant."""
    return [pid for pid in proc.children_of_thread(thread) if mark.is_on(pid)]
