"""The threads in which commands are started.

To Linux the parent of a process is the thread that has started it, and not the program. When that thread ends, whoever
asked to die with his parent (PR_SET_PDEATHSIG of prctl(2), as `setpriv --pdeathsig` and `bwrap --die-with-parent` do)
is killed, though the program lives on. And what a command makes its sibling (CLONE_PARENT of clone(2)) is a child of
that thread, so it is looked for there. So each of them lasts at least as long as what it has started. It is kept for
the next start, as trio keeps its threads, and all servers of this process have the same.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from outcome import Outcome, capture

_IDLE_SECONDS = 10.0
"""Time without work after which one ends that has no children."""

Work = tuple[Callable[[], Any], Callable[[Outcome[Any]], object]]
"""What is to be done, and who is told what came of it."""


def start_soon(work: Callable[[], Any], deliver: Callable[[Outcome[Any]], object]) -> None:
    """Do something in one of these threads, and then have `deliver` take, there, what came of it.

    Raises `RuntimeError` where the machine gives no thread.
    """
    try:
        parent = _idle.popitem()[0]  # who was busy last has its memory at hand
    except KeyError:
        parent = _Parent()
    parent.do(work, deliver)


def begin_start() -> None:
    """Have the children of this thread, if it is one of these, seen by who reads them: it is about to start a command.

    Raises `OSError` without a descriptor to see them with.
    """
    parent = _parents.get(threading.get_native_id())
    if parent is not None and _readers:
        with _ends:
            parent.show_children()
            _shown[parent] = None


@contextmanager
def children_shown() -> Iterator[None]:
    """Have the children of all these threads shown as long as the block lasts. It takes a descriptor for each."""
    reader = object()
    _readers.add(reader)
    try:
        yield
    finally:
        with _ends:
            _readers.discard(reader)  # who is none in the child of a fork
            if not _readers:
                _shown.clear()
                for parent in _parents.values():
                    parent.close()


def read_children() -> bytes:
    """Return the pids of the children of all these threads that are shown, those that have ended too."""
    text = b""
    with _ends:
        for parent in list(_shown):
            its = parent.read_children()
            text += its
            if not its and parent in _idle:
                del _shown[parent]  # it has none until it starts another
    return text


class _Parent:
    """One of the threads."""

    def __init__(self) -> None:
        self._work: Work | None = None
        self._has_work = threading.Lock()
        self._has_work.acquire()
        self._children: int | None = None
        threading.Thread(target=self._run, name="execsrv start", daemon=True).start()

    def do(self, work: Callable[[], Any], deliver: Callable[[Outcome[Any]], object]) -> None:
        self._work = work, deliver
        self._has_work.release()

    def show_children(self) -> None:
        if self._children is None:
            self._children = open_children_of(threading.get_native_id())

    def read_children(self) -> bytes:
        return b"" if self._children is None else read_whole(self._children)

    def _run(self) -> None:
        _parents[threading.get_native_id()] = self
        while True:
            if self._has_work.acquire(timeout=_IDLE_SECONDS):
                self._do()
            elif self._may_end():
                return

    def _do(self) -> None:
        assert self._work is not None
        work, deliver = self._work
        self._work = None
        came_of_it = capture(work)
        del work  # and with it what it holds, before anybody hears of it
        _idle[self] = None  # before too: whoever hears of it may have the next
        deliver(came_of_it)

    def _may_end(self) -> bool:
        """End, unless there are children, or work has come in this moment. Return whether it is so."""
        with _ends:
            if _has_children() or _idle.pop(self, self) is self:
                return False
            del _parents[threading.get_native_id()]
            _shown.pop(self, None)
            self.close()
            return True

    def close(self) -> None:
        if self._children is not None:
            os.close(self._children)
            self._children = None


def open_children_of(thread: int) -> int:
    """Return a descriptor of the list of children that a thread of this process has. Raises `OSError`."""
    return os.open(f"/proc/self/task/{thread}/children", os.O_RDONLY | os.O_CLOEXEC)


def read_whole(descriptor: int) -> bytes:
    """Return all of such a list, as it is now. Nobody else may be reading it."""
    os.lseek(descriptor, 0, os.SEEK_SET)  # and then on, since the kernel makes all that is before an offset anew
    text = b""
    while piece := os.read(descriptor, 65536):
        text += piece
    return text


def _has_children() -> bool:
    """Tell whether this thread has children, as far as the kernel tells that: it may list none."""
    try:
        with open(open_children_of(threading.get_native_id()), "rb") as file:
            return bool(file.read())
    except OSError:
        return True


_idle: dict[_Parent, None] = {}
_parents: dict[int, _Parent] = {}
"""All of them, by the numbers that the kernel has given them."""

_shown: dict[_Parent, None] = {}
"""Those that may have children, as far as somebody reads them."""

_readers: set[object] = set()
_ends = threading.Lock()
"""Held by who reads, and by one that ends."""


def _forget() -> None:
    """Forget them in the child of a fork, which has none of these threads."""
    global _ends
    _ends = threading.Lock()
    _idle.clear()
    for parent in _parents.values():
        parent.close()
    _parents.clear()
    _shown.clear()
    _readers.clear()


os.register_at_fork(after_in_child=_forget)
