"""Threads for what may block: each user has its own limiter, so that nobody takes the places of others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, Protocol, TypeVar

import trio
from outcome import Outcome

from execsrv._nursery import happened
from execsrv.errors import BusyError

T = TypeVar("T")

_TLS_SECONDS = 2.0
"""Time that a cancelled thread has to come out of OpenSSL."""


StartThread = Callable[[Callable[[], Any], Callable[[Outcome[Any]], object]], None]
"""Has work done in a thread, and what came of it delivered there."""


class Threads(Protocol):
    """A limit of threads, as `trio.to_thread.run_sync` takes it."""

    def acquire_on_behalf_of_nowait(self, borrower: object) -> None: ...

    async def acquire_on_behalf_of(self, borrower: object) -> None: ...

    def release_on_behalf_of(self, borrower: object) -> None: ...


async def run_in_thread(work: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
    """Return what `work` returns in a thread. Raises `BusyError` where the machine gives no thread.

    Cancelling leaves the thread behind, since it cannot be made to stop waiting.
    """
    with needing_threads():
        return await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True)


async def run_with_tls(work: Callable[[], T]) -> T:
    """Return what `work` with OpenSSL returns, in a thread. Raises as `run_in_thread` does.

    Cancelling waits for it, for two seconds at most: OpenSSL is cleaned up when a process exits, and a thread that is
    in it then takes the process down. One that waits for a slow disk is left behind.
    """
    await trio.lowlevel.checkpoint_if_cancelled()  # so that a cancel finds the thread started
    token, ended = trio.lowlevel.current_trio_token(), trio.Event()

    def run() -> T:
        try:
            return work()
        finally:
            with suppress(trio.RunFinishedError):  # it was left behind
                token.run_sync_soon(ended.set)

    try:
        return await run_in_thread(run, trio.CapacityLimiter(1))
    except trio.Cancelled:
        with trio.move_on_after(_TLS_SECONDS, shield=True):
            await happened(ended)
        raise


@contextmanager
def needing_threads() -> Iterator[None]:
    """Raise `BusyError` when the block could not start a thread."""
    try:
        yield
    except RuntimeError as error:
        _check_shortage(error)
        raise


def _check_shortage(error: BaseException) -> None:
    """Raise `BusyError` for the error of a thread that could not be started. Its text alone tells that it is one."""
    if str(error) == "can't start new thread":
        raise BusyError("no thread is to be had on the server's machine: try again later") from error


async def run_briefly(work: Callable[[], T], threads: Threads, patience: float) -> T:
    """Return what `work` returns in a thread. The loop itself waits for it, up to `patience` seconds.

    Two turns of the loop and waking it cost more than most of what is done here. Raises `BusyError` where the machine
    gives no thread. Cancelling leaves the thread behind, which counts among `threads` until it ends.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    job = Job(work, threads)
    await threads.acquire_on_behalf_of(job)
    job.begin(patience)
    await job.wait()
    return job.outcome()


class Job(Generic[T]):
    """Work of a thread. At first the whole loop may wait for it, and then one task."""

    def __init__(
        self, work: Callable[[], T], threads: Threads, start: StartThread = trio.lowlevel.start_thread_soon
    ) -> None:
        """One of the `threads` is to be acquired for it, and then `begin` to be called."""
        self._work = work
        self._threads = threads
        self._start = start
        self._token = trio.lowlevel.current_trio_token()
        self._task: trio.lowlevel.Task | None = None
        self._outcome: Outcome[T] | None = None
        self._is_over = False  # as far as the loop knows
        self._done = threading.Lock()
        self._done.acquire()
        self._first = threading.Lock()
        """Taken by the thread that is done, or by the loop that waits no longer, whichever is first."""

    def begin(self, patience: float) -> bool:
        """Have it done, and wait for it with the whole loop, up to `patience` seconds. Return whether it is over.

        Raises `BusyError` where the machine gives no thread.
        """
        try:
            self._start(self._work, self._deliver)
        except BaseException as error:
            self._threads.release_on_behalf_of(self)
            _check_shortage(error)
            raise
        if self._done.acquire(timeout=patience) or not self._first.acquire(blocking=False):
            self._end()
        return self._is_over

    def _deliver(self, outcome: Outcome[T]) -> None:
        """Take what came of the work. Called in its thread."""
        self._outcome = outcome
        if self._first.acquire(blocking=False):
            self._done.release()
            return
        try:
            self._token.run_sync_soon(self._report)
        except trio.RunFinishedError:
            pass  # nobody counts threads any more

    @trio.lowlevel.enable_ki_protection
    async def wait(self) -> None:
        """Wait until it is over. For one task. Cancelling stops waiting, not the thread."""
        if self._is_over:
            return
        self._task = trio.lowlevel.current_task()

        def abandon(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abandon)

    def outcome(self) -> T:
        """Return what came of the work, which is over, or raise it."""
        assert self._outcome is not None
        return self._outcome.unwrap()

    def _report(self) -> None:
        self._end()
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)

    def _end(self) -> None:
        self._is_over = True
        self._threads.release_on_behalf_of(self)


# -- how those of one server are shared out among its connections --

MOST_THREADS = 40
"""So many starts of one server may be under way at once. More wait."""

CONNECTION_THREADS = 8
"""So many of them may be one connection's, so that those which hang hold up nobody else's."""

FEW_THREADS = 3
"""While fewer of a connection's are in use, the loop waits for its next start: one that is slow slows no other down,
and those that hang hold up the loop no more than so often."""


class ThreadSlots:
    """So many places. Who waits for one gets it in order.

    It is what a `trio.CapacityLimiter` is, but for the names of borrowers: those cost each start a dozen calls.
    """

    def __init__(self, most: int) -> None:
        self.taken = 0
        self._most = most
        self._waiting = trio.lowlevel.ParkingLot()

    def take(self) -> bool:
        """Take a place. Return whether there was one."""
        if self.taken >= self._most:
            return False
        self.taken += 1
        return True

    @trio.lowlevel.enable_ki_protection
    async def wait(self) -> None:
        """Take a place, as soon as there is one."""
        if not self.take():
            await self._waiting.park()  # whoever gives one back hands it over

    def give(self) -> None:
        """Give a place back."""
        if self._waiting:
            self._waiting.unpark()
        else:
            self.taken -= 1


class SharedThreads:
    """The threads that one connection may have of those of its server, each until it has really ended."""

    def __init__(self, of_server: ThreadSlots, most: int = CONNECTION_THREADS) -> None:
        self._of_server = of_server
        self._own = ThreadSlots(most)

    @property
    def are_few(self) -> bool:
        """True while but a few of them are in use."""
        return self._own.taken < FEW_THREADS

    def acquire_on_behalf_of_nowait(self, _: object) -> None:
        """Take a thread. Raises `trio.WouldBlock` where all are in use."""
        if not self._own.take():
            raise trio.WouldBlock
        if not self._of_server.take():
            self._own.give()
            raise trio.WouldBlock

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Wait for a thread. Where there is one, nobody else gets a turn first."""
        try:
            self.acquire_on_behalf_of_nowait(borrower)
            return
        except trio.WouldBlock:
            pass
        await self._own.wait()
        try:
            await self._of_server.wait()
        except BaseException:
            self._own.give()
            raise

    def release_on_behalf_of(self, _: object) -> None:
        """Give a thread back."""
        self._of_server.give()
        self._own.give()
