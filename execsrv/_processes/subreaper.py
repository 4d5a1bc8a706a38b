"""The strays of our sessions, where this process is a child subreaper or PID 1: they become our children.

A process whose parent has ended is given to the nearest living ancestor that is a subreaper (prctl(2)). So once the
leader of a session has ended, whoever is left of the session has us, or one of our children, as ancestor, whatever it
did: one look at our own children proves that a session is empty. And our list of children can only shrink by our own
reaping, so the look misses nobody.

Several servers of one process may each have their strays. The process is a subreaper from the first to the last of
them, in whatever order they come and go: the proof needs it all the time.

Never reaps a child that other code of this program has started.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

import trio

from execsrv._processes import pidfd, proc
from execsrv._processes.proc import Steps
from execsrv._processes.starting_threads import children_shown, open_children_of, read_children, read_whole

UNKNOWN = -1
"""The session of who has a mark of our server, but of no session that runs."""

_SET_CHILD_SUBREAPER, _GET_CHILD_SUBREAPER = 36, 37  # <linux/prctl.h>
_libc = ctypes.CDLL(None, use_errno=True)
_libc.signal.argtypes, _libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
_DEFAULT = None  # SIG_DFL of <signal.h>


class Owners(Protocol):
    """Tells whose our children are."""

    def owns(self, pid: int) -> bool:
        """Tell whether somebody owns a child: it is a leader, or the guardian."""

    def unowned(self, pids: set[int]) -> set[int]:
        """Return those children that nobody owns."""

    def session_of(self, pid: int) -> int | None:
        """Return the number of the session that a child belongs to, None where it has none."""

    def may_be_starting(self, number: int | None) -> bool:
        """Tell whether a child of that session may be a leader that nobody owns yet."""


def available() -> bool:
    """Tell whether all strays of this process become its children, and can be seen."""
    return (os.getpid() == 1 or not refusal()) and proc.knows_children()


def refusal() -> int:
    """Return the errno with which this machine refuses subreapers, 0 where it has them.

    It is tried, with the setting as it is.
    """
    return pidfd.refusal(lambda: _set_subreaper(is_subreaper()))


def is_subreaper() -> bool:
    """Tell whether this process is a subreaper. Raises `OSError` where that is refused."""
    value = ctypes.c_int()
    _prctl(_GET_CHILD_SUBREAPER, ctypes.addressof(value))
    return bool(value)


def _set_subreaper(on: bool) -> None:
    _prctl(_SET_CHILD_SUBREAPER, int(on))


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(number := ctypes.get_errno(), os.strerror(number))


@contextmanager
def open_strays(owners: Owners, *, sole: bool) -> Iterator[Strays]:
    """The strays of one server. As long as the block lasts, this process is a subreaper and hears SIGCHLD.

    `sole` says that no other code of this process has children, so all that nobody owns are ours to reap. To be used in
    the main thread.
    """
    strays = Strays(owners, sole)
    try:
        if not _open:
            _shared.begin()
        _open.append(strays)
        try:
            with children_shown():
                yield strays
        finally:
            _open.remove(strays)
            if not _open:
                _shared.end()
    finally:
        strays.close()


def hears_children() -> bool:
    """Tell whether this process hears SIGCHLD for us, so that nobody ignores it."""
    return bool(_open)


class _Shared:
    """The settings of this process that all strays share, as they were before the first."""

    _is_deaf = False
    """True from the news of one end until all are looked for: a signal for each would wake the loop twice."""

    def begin(self) -> None:
        self._is_deaf = False
        self._token = trio.lowlevel.current_trio_token()
        self._handler = signal.signal(signal.SIGCHLD, self._hear)
        self._subreaper = True
        if not refusal():  # PID 1 needs it not
            self._subreaper = is_subreaper()
            _set_subreaper(True)

    def end(self) -> None:
        if not self._subreaper:
            _set_subreaper(False)
        if signal.getsignal(signal.SIGCHLD) == self._hear:
            signal.signal(signal.SIGCHLD, self._handler or signal.SIG_DFL)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not all(strays.news.is_set() for strays in _open):
            self._token.run_sync_soon(_tell_all, idempotent=True)
        if callable(self._handler):
            self._handler(number, frame)
        else:
            self._is_deaf = True
            # Not by Python, which would complain of one that has come just now, and has no handler any more.
            _libc.signal(signal.SIGCHLD, _DEFAULT)

    def listen(self) -> None:
        """Hear of the next end. Who calls this looks for those before it."""
        if self._is_deaf and signal.getsignal(signal.SIGCHLD) == self._hear:
            self._is_deaf = False
            signal.signal(signal.SIGCHLD, self._hear)


def _tell_all() -> None:
    for strays in _open:
        strays.news.set()


class Strays:
    """Our children that we did not start, as one server sees them."""

    def __init__(self, owners: Owners, sole: bool) -> None:
        self.news = trio.Event()
        """Set when a child has ended since the last time that all were reaped."""
        self.session_of = owners.session_of
        """Tells which session a process belongs to, None for none of ours."""
        self._is_known = owners.owns
        self._unknown = owners.unowned
        self._may_be_starting = owners.may_be_starting
        self._sole = sole
        self._our_session = os.getsid(0)
        self._owner: dict[int, int | None] = {}  # a child's pid is its own until we reap it
        self.reaped = 0
        """Strays that were reaped so far."""
        self.asked_since = math.inf
        """When the block of `one_look` has begun, infinite outside of one."""
        self._looked_at = -math.inf  # when the last look has begun that is through
        self._reaped_before = 0  # strays that had been reaped by then
        self._reaped_of: dict[int | None, int] = {}
        # Of the first thread: the kernel gives orphans to no other as long as that one lives.
        self._children = open_children_of(os.getpid())

    def close(self) -> None:
        os.close(self._children)

    @contextmanager
    def one_look(self) -> Iterator[None]:
        """Let one look do for all sessions in a block whose leader lives. It must not await."""
        self.asked_since = time.perf_counter()
        try:
            yield
        finally:
            self.asked_since = math.inf

    def of(self, *numbers: int | None, since: float = math.inf) -> Steps[list[int]]:
        """Find the living strays that belong to sessions, or to none that we know. Reaps the dead ones it meets.

        A look reads all of our children: one that has begun after `since` does for all who ask for strays of that time.
        But what was reaped since then, here or elsewhere, may have left a child that became ours after the look, so it
        looks again. Who has ended but cannot be reaped, because a debugger holds it, is looked past the second time.
        """
        held: set[int] = set()
        while True:
            if self._looked_at <= since or self.reaped != self._reaped_before:
                yield from self._look()
            since = math.inf
            found = [pid for pid, owner in self._owner.items() if owner in numbers]
            reaped = self._count_reaped(numbers)
            dead: set[int] = set()
            for pid in found:
                if pid in self._owner and not self._reap(pid) and not proc.living(pid):
                    dead.add(pid)
                yield
            if self._count_reaped(numbers) == reaped and dead <= held:
                return [pid for pid in found if pid not in dead]
            held |= dead

    def _count_reaped(self, numbers: Iterable[int | None]) -> int:
        return sum([self._reaped_of.get(number, 0) for number in numbers])

    def disown(self, number: int) -> None:
        """Let those that are left of a session belong to none that runs."""
        self._reaped_of.pop(number, None)
        self._owner = {pid: UNKNOWN if owner == number else owner for pid, owner in self._owner.items()}

    def __contains__(self, pid: int) -> bool:
        """Tell whether this is a stray that was seen and not reaped, so that its pid cannot be another's."""
        return pid in self._owner

    @property
    def unattributed(self) -> tuple[int | None, ...]:
        """Name that `of` has for the strays without a session: they have changed the limit that held their mark.

        Those without any mark are left out where other code has children, and as PID 1, where they may well be
        strangers.
        """
        return (UNKNOWN, None) if self._sole and os.getpid() != 1 else (UNKNOWN,)

    def reap(self) -> Steps[None]:
        """Reap all strays that have ended."""
        self.news = trio.Event()
        _shared.listen()
        yield from self._look()
        for pid, owner in list(self._owner.items()):
            if pid in self._owner and (owner is not None or self._sole or self._is_orphan(pid)):
                self._reap(pid)
                yield

    def _is_orphan(self, pid: int) -> bool:
        """Tell whether a child without a mark of ours was given to us, and so has nobody else to reap it.

        The kernel does not say it. But who was started by this program is either in our POSIX session or leads one.
        """
        try:
            session = os.getsid(pid)
        except OSError:
            return False
        if session in (pid, self._our_session, os.getsid(0)):
            return False
        return not any(strays is not self and strays.session_of(pid) is not None for strays in _open)

    def _look(self) -> Steps[None]:
        """Find out of all strays, dead or alive, which session they belong to.

        What was reaped meanwhile must not be asked for, since its pid may be another's. Then it begins anew, with what
        it knows already.
        """
        reaped = -1
        while reaped != self.reaped:
            reaped, began = self.reaped, time.perf_counter()
            before = self._owner
            unknown = sorted(self._unknown(set(map(int, self._read().split()))))
            self._owner = {pid: before[pid] for pid in unknown if pid in before}
            for pid in unknown:
                if pid not in self._owner and not self._is_known(pid):
                    owner = self.session_of(pid)
                    if not self._may_be_starting(owner):
                        self._owner[pid] = owner
                    yield
                    if self.reaped != reaped:
                        break
        self._looked_at, self._reaped_before = max(self._looked_at, began), reaped

    def _read(self) -> bytes:
        """Return our children: the siblings that leaders have made themselves, and the orphans."""
        return read_children() + read_whole(self._children)

    def _reap(self, pid: int) -> bool:
        """Reap a stray if it has ended. Return whether it is gone."""
        try:
            gone = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
        except ChildProcessError:
            gone = True
        if gone:
            owner = self._owner.pop(pid, None)
            self._reaped_of[owner] = self._reaped_of.get(owner, 0) + 1
            self.reaped += 1
        return gone


_open: list[Strays] = []
_shared = _Shared()
