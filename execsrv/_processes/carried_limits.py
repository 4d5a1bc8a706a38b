"""Carrying a mark on this very process for the instant of a start, so that the child has it from the first.

So are other limits that commands are to have and this process is not: `commands_limits`.

A limit belongs to the whole process, so only one start may carry a mark at a time. It does so until its child is there,
not until its child has got to its program: that may wait for a file system, and so would everybody else. The C library
tells its caller only of the second, but the kernel shows everybody the first.

One turn for the whole process, however many servers are in it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from execsrv._processes import proc
from execsrv._processes.rlimit_mark import Mark, own_limit, set_own_limit

commands_limits: tuple[tuple[int, int], ...] = ()
"""Resource limits of this process that differ for what it starts, each with the soft value there. Set by a program of
its own, before the first start."""

_SPARE_DESCRIPTORS = 64
"""So many must be left below a limit that is carried: others of this process may open some at the same instant."""

_LOOK_SECONDS = 0.005
"""After so long a wait for the turn, somebody looks whether the child that holds it up has been born."""


class _Turn:
    """A thread that starts a command, the mark that is carried meanwhile, and the limits as they were before."""

    def __init__(self, thread: int, mark: Mark | None) -> None:
        self.thread = thread
        self._mark = mark
        self._before: list[tuple[int, tuple[int, int]]] = []

    def begin(self) -> None:
        if self._mark is not None:
            self.carry(self._mark.slot, self._mark.value)

    def carry(self, slot: int, value: int) -> None:
        before = own_limit(slot)
        self._before.append((slot, before))
        set_own_limit(slot, value, before[1])

    def is_born(self) -> bool:
        return self._mark is not None and bool(born(self.thread, self._mark))

    def end(self) -> None:
        for slot, before in self._before:
            set_own_limit(slot, *before)


_news = threading.Condition()
_turn: _Turn | None = None


@contextmanager
def carried(mark: Mark | None) -> Iterator[None]:
    """Carry a mark, or none for sure, while the block starts one command. Waits for its turn: not for the loop."""
    global _turn
    ours = _Turn(threading.get_native_id(), mark)
    try:
        with _news:
            while _turn is not None:
                if not _news.wait(_LOOK_SECONDS):
                    _look()
            _turn = ours
            ours.begin()
        yield
    finally:
        with _news:
            if _turn is ours:
                _pass_on()


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
