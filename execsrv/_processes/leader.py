"""The leader of a session: a child of ours, watched by a pidfd from its start until it is reaped.

While it is a zombie, its pid and its group's id cannot be given to a stranger; once it is reaped, the pidfd still names
the group that it led. So no signal sent here can hit a stranger. Where this machine refuses pidfds, the leader's end is
asked for again and again. See pidfd_open(2), pidfd_send_signal(2), waitid(2).
"""

from __future__ import annotations

import logging
import math
import os
import resource
import time
from collections.abc import Callable
from functools import cache

import trio
from msgspec import Struct

from execsrv._processes import pidfd, proc
from execsrv._processes.signals import signal_name

logger = logging.getLogger(__name__)

_PROCESS_GROUP = 1 << 2
"""PIDFD_SIGNAL_PROCESS_GROUP of <linux/pidfd.h>: the whole group that the pidfd's process leads. Linux 6.9."""

_HELD_SECONDS = 0.05, 1.0
"""Pauses, at first and in the end, between two questions for a status that a debugger holds back."""

_ASKED_SECONDS = 0.001, 0.2
"""Pauses, at first and in the end, between two looks at a leader that has no pidfd."""


class ExitStatus(Struct, frozen=True):
    """The end of a leader. `code` is 128+N after a death by signal N, whose name is in `signal`.

    `is_lost`: nobody can tell any more how it ended, or whether it has.
    """

    code: int
    signal: str | None = None
    is_lost: bool = False


class Leader:
    """A child that leads a session and a process group. Whoever holds it calls `close` in the end."""

    def __init__(self, pid: int, pidfd: int | None) -> None:
        """Watch the child `pid`. Takes ownership of its pidfd, None where this machine refuses one."""
        self.pid = pid
        self.ended_at = math.inf
        """When it was first known how it has ended, by `time.perf_counter`."""
        self.is_reaped = False
        self.when_reaped: Callable[[Leader], None] | None = None
        """Called as it is reaped, by us or by others: from then on its pid may be another's."""
        self.is_closed = False
        """True when nobody holds it any more."""
        self.usage: resource.struct_rusage | None = None
        """The resources that it and those whose end it has waited for have used, once it is reaped."""
        self._pidfd: int | None = pidfd
        self._others: trio.lowlevel.ParkingLot | None = None  # who wait for the one task that waits for the pidfd
        self._status: ExitStatus | None = None

    def __repr__(self) -> str:
        state = "reaped" if self.is_reaped else "zombie" if self.has_ended else "running"
        return f"<Leader pid={self.pid} {state}>"

    @property
    def pidfd(self) -> int | None:
        """Descriptor that can be read from once it has ended, None where this machine refuses one."""
        return self._pidfd

    async def wait_exited(self) -> ExitStatus:
        """Wait until it has ended, and return how. It stays a zombie.

        While a debugger holds a process that has ended, the kernel tells nobody else how it did: then this waits for
        the debugger to let go. Cancelling stops waiting, not the process.
        """
        pause, longest = _ASKED_SECONDS if self._pidfd is None else _HELD_SECONDS
        if self.exit_status() is None and self._pidfd is not None:
            await self.wait_ended()
        while (status := self.exit_status()) is None:
            await trio.sleep(pause)
            pause = min(2 * pause, longest)
        return status

    async def wait_ended(self) -> None:
        """Wait until it has ended, also when the way it did is not known yet."""
        pause, longest = _ASKED_SECONDS
        while self._pidfd is None and not self.has_ended:
            await trio.sleep(pause)
            pause = min(2 * pause, longest)
        while self._others is not None:
            await self._others.park()
        if self._pidfd is None:
            return
        self._others = others = trio.lowlevel.ParkingLot()
        try:
            await trio.lowlevel.wait_readable(self._pidfd)
        finally:
            self._others = None
            others.unpark_all()

    @property
    def has_ended(self) -> bool:
        """True once it has ended, also when the way it did is not known yet."""
        if self._pidfd is not None:
            return self._status is not None or pidfd.has_ended(self._pidfd)
        if self.exit_status() is not None:
            return True
        try:
            return not proc.living(self.pid)
        except OSError:
            return False  # no descriptor to look with

    def exit_status(self) -> ExitStatus | None:
        """Return how it ended, None while that cannot be told: it runs, or a debugger holds it."""
        if self._status is not None:
            return self._status
        try:
            result = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            # Somebody else in this program waited for any child, and has the status; all we know is that it ended.
            logger.warning("the exit status of process %d was taken by other code of this program", self.pid)
            self._status = ExitStatus(255)
            self._note_reaped()
            return self._status
        if result is not None:
            self.ended_at = time.perf_counter()
            if result.si_code == os.CLD_EXITED:
                self._status = ExitStatus(result.si_status)
            else:
                self._status = ExitStatus(128 + result.si_status, signal_name(result.si_status))
        return self._status

    def reap(self) -> bool:
        """Reap it if it has ended and no debugger holds it. Return whether it is reaped."""
        if self.exit_status() is not None and not self.is_reaped:
            self._note_reaped()
            try:
                self.usage = os.wait4(self.pid, 0)[2]
            except ChildProcessError:
                pass  # other code of this program was faster; its status is known
        return self.is_reaped

    def _note_reaped(self) -> None:
        self.is_reaped = True
        if self.when_reaped is not None:
            self.when_reaped(self)

    def send(self, number: int) -> bool:
        """Signal it alone, which is not reaped. Return whether it lives, also where we may not."""
        if self.has_ended:
            return False
        try:
            pidfd.send_signal(self.pid, self._pidfd, number)
        except PermissionError:
            pass  # a set-user-id program
        except ProcessLookupError:
            return False
        return True

    def signal_group(self, number: int) -> bool:
        """Signal its process group at once. Return whether there was anybody to receive it."""
        try:
            if not self.is_reaped:
                os.killpg(self.pid, number)
            elif self._pidfd is not None:
                pidfd.send_signal(self.pid, self._pidfd, number, _PROCESS_GROUP)
            else:
                return False
        except PermissionError:
            pass  # somebody in the group is not ours to signal (set-user-id); the others received it
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of the pidfd. It can still be reaped."""
        self.is_closed = True
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


@cache
def signals_groups_by_pidfd() -> bool:
    """Tell whether the group of a leader that is reaped can be signalled here.

    It is tried by signal 0, which reaches nobody. Older kernels refuse the flag, some machines all of the call.
    """
    handle = pidfd.open_pidfd(os.getpid())
    if handle is None:
        return False
    try:
        return not pidfd.refusal(lambda: pidfd.send_signal(os.getpid(), handle, 0, _PROCESS_GROUP))
    finally:
        os.close(handle)
