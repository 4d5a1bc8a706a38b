"""The thread that runs trio for those who do not.

It is started when the first block is opened, and ends when the last one is left. What is still open when the
interpreter exits is left then, before the thread would be torn off: so it ends what it has started. A process that was
forked has no such thread, and may open blocks of its own.
"""

from __future__ import annotations

import atexit
import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import trio

_lock = threading.RLock()
"""Can be had again in the thread that has it: what a dead portal leaves is given back when it is collected.

Nothing is called while it is held: so no signal handler waits there for a portal whose thread waits for it.
"""

_starting = threading.RLock()
"""Held by who starts a portal, and not by portals. A signal handler that comes meanwhile starts one of its own."""

_current: Portal | None = None


class Portal:
    """A thread with trio in it, as long as somebody uses it. It is started, and waited for, by its first user."""

    _token: trio.lowlevel.TrioToken | None = None
    nursery: trio.Nursery | None = None
    """Parent of the blocks that have no other parent, None when nobody uses it any more."""

    def __init__(self) -> None:
        self.waiting: set[Callable[[BaseException], object]] = set()
        """Told of an error by which the thread ends, of trio itself, say: nobody else hears of that."""
        self._pid = os.getpid()
        self.users = 0
        """Those who use it, counted under the lock."""
        self.unused = trio.Event()
        """Set behind the last of them."""
        self._is_ready = threading.Event()
        self._error: BaseException | None = None
        # A daemon only by name: no thread of the user's is cut short by the interpreter's exit, and this one neither.
        self._thread = threading.Thread(target=self._run, name="execsrv portal", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def until_ready(self) -> None:
        """Wait until trio runs. Raises the error by which it does not."""
        self._is_ready.wait()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            trio.run(self._main, strict_exception_groups=True)
        except BaseException as error:
            if self._is_ready.is_set():
                self._die(error)
                raise
            self._error = error
            self._is_ready.set()

    async def _main(self) -> None:
        async with trio.open_nursery() as self.nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._is_ready.set()
            try:
                if self.users:  # not where they were interrupted meanwhile, and had no token to say so
                    await self.unused.wait()
            finally:
                self.nursery = None

    def _die(self, error: BaseException) -> None:
        """Let others begin anew, and tell those who wait."""
        global _current
        with _lock:
            if _current is self:
                _current = None
        for tell in [*self.waiting]:
            tell(error)

    @property
    def is_forked(self) -> bool:
        """True in a child of the process that the thread runs in."""
        return os.getpid() != self._pid

    def post(self, function: Callable[[], object]) -> bool:
        """Call a function in the thread, soon, from anywhere, and return True; False when trio does not run there.

        Raises `RuntimeError` in a child of the process.
        """
        if self.is_forked:
            raise RuntimeError("cannot use what execsrv opened before os.fork(): open a client of its own in the child")
        if self._token is None:
            return False
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            return False
        except OSError as error:  # an interrupt may be one too, such as a TimeoutError
            if error.errno != errno.EBADF:
                raise
            return False  # it has died
        return True

    def join(self) -> None:
        """Wait until the thread has ended, if nobody uses it any more."""
        if self.users == 0:
            self._thread.join()

    def close(self) -> None:
        """Cancel everything, and wait until it has ended."""
        self.post(self._cancel)
        self._thread.join()

    def _cancel(self) -> None:
        if self.nursery is not None:
            self.nursery.cancel_scope.cancel()


@contextmanager
def used(portal: Portal | None) -> Iterator[Portal]:
    """Keep a portal going while the block lasts, in any thread: None is the one there is, started if need be.

    Behind its last user its thread ends, and the next is another.
    """
    global _current
    is_counted = False
    try:
        with _starting if portal is None else nullcontext():
            made = portal or Portal()
            with _lock:
                is_new = portal is None and _current is None
                portal = portal or _current or made
                portal.users += 1
                is_counted = True  # and from here on, an interrupt leaves no thread that nobody knows of
            if is_new:
                portal.start()
                _current = portal
        portal.until_ready()
        yield portal
    finally:
        if portal is not None and is_counted:
            with _lock:
                portal.users -= 1
                is_unused = portal.users == 0
                if is_unused and _current is portal:
                    _current = None
            if is_unused and not portal.is_forked:
                portal.post(portal.unused.set)


@atexit.register
def _close_at_exit() -> None:
    global _current
    with _lock:
        portal, _current = _current, None
    if portal is not None:
        portal.close()


def _forget() -> None:
    """Begin anew in a child, which has the locks as they were, and no thread."""
    global _current, _lock, _starting
    _current, _lock, _starting = None, threading.RLock(), threading.RLock()


os.register_at_fork(after_in_child=_forget)
