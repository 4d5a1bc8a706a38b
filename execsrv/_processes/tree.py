"""Watching one started command and ending all of it.

The leader is known by a pidfd. While it is a zombie, its pid and its group's id cannot be given to a stranger; once it
is reaped, the pidfd still names the group that it led. So no signal sent here can hit a stranger. See pidfd_open(2),
pidfd_send_signal(2), waitid(2).
"""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import trio

from execsrv._signal_names import signal_name
from execsrv.protocol import Member

log = logging.getLogger(__name__)

_PROCESS_GROUP = 1 << 2
"""PIDFD_SIGNAL_PROCESS_GROUP of <linux/pidfd.h>: the whole group that the pidfd's process leads. Linux 6.9."""


END_SECONDS = 5.0
"""How long killed processes may take to be gone. Freeing a large memory takes its time."""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a leader ended. `code` is 128+N after a death by signal N, whose name is in `signal`."""

    code: int
    signal: str | None = None


class ProcessTree:
    """A leader and its process group. Whoever holds it calls `end` in the end."""

    def __init__(self, pid: int) -> None:
        """Watch the running child `pid`. Raises `OSError` when there is no descriptor left for that."""
        self.pid = pid
        self._pidfd: int | None = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        self._status: ExitStatus | None = None
        self._reaped = False

    def __repr__(self) -> str:
        state = "reaped" if self._reaped else "running" if self.exit_status() is None else "zombie"
        return f"<ProcessTree pid={self.pid} {state}>"

    async def wait_exited(self) -> ExitStatus:
        """Wait until the leader has ended. It stays a zombie. Cancelling stops waiting, not the process."""
        while (status := self.exit_status()) is None:
            if self._pidfd is not None:
                await trio.lowlevel.wait_readable(self._pidfd)
            else:
                await trio.to_thread.run_sync(self._peek, 0, abandon_on_cancel=True)
        return status

    def exit_status(self) -> ExitStatus | None:
        """How the leader ended, None while it runs."""
        if self._status is not None:
            return self._status
        try:
            result = self._peek(os.WNOHANG)
        except ChildProcessError:
            # Somebody else in this program waited for any child, and has the status; all we know is that it ended.
            log.warning("the exit status of process %d was taken by other code of this program", self.pid)
            self._status, self._reaped = ExitStatus(255), True
            return self._status
        if result is not None:
            if result.si_code == os.CLD_EXITED:
                self._status = ExitStatus(result.si_status)
            else:
                self._status = ExitStatus(128 + result.si_status, signal_name(result.si_status))
        return self._status

    def _peek(self, flags: int) -> os.waitid_result | None:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | flags)

    def signal(self, number: int, target: Literal["leader", "group", "tree"]) -> int:
        """Send a signal to the leader, to all of its group, or to everything that descends from it; how many got it."""
        leader = [self.pid] if self.exit_status() is None else []
        if target == "leader":
            return sum(_signal_process(pid, number) for pid in leader)
        members = [*leader, *self._others()]
        # Found first: who has lost its parent to the signal descends from nobody any more.
        strays = [pid for pid in _descendants(members) if pid not in members] if target == "tree" else []
        self.signal_group(number)
        return len(members) + sum(_signal_process(pid, number) for pid in strays)

    def signal_foreground(self, number: int, terminal: int) -> int:
        """Send a signal to the job in front of the terminal with this master; how many got it."""
        group = os.tcgetpgrp(terminal)
        if group <= 0:
            return 0
        members = [pid for pid, stat in _processes() if stat.group == group and stat.session == self.pid]
        if members:
            os.killpg(group, number)
        return len(members)

    def remaining(self) -> list[Member]:
        """Everything of it that still lives, but not a leader that has ended."""
        if not self.signal_group(0):
            return []
        return [Member(pid, _name(pid)) for pid in self._others()]

    def signal_group(self, number: int) -> bool:
        """Send a signal to all of the group; false when there was nobody to receive it."""
        try:
            if not self._reaped:
                os.killpg(self.pid, number)
            elif self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number, None, _PROCESS_GROUP)
            else:
                return False
        except PermissionError:
            pass  # somebody in the group is not ours to signal (set-user-id); the others received it
        except OSError:
            return False
        return True

    def settle(self) -> bool:
        """Reap the leader, which has ended, unless its group needs it: whether the group has no other member.

        Where the kernel cannot signal a group by pidfd, the leader stays a zombie as long as others live.
        """
        if not _signals_groups_by_pidfd():
            return not self._others()
        self._reap()
        return not self.signal_group(0) or not self._others()

    def _others(self) -> list[int]:
        """Who but the leader lives in the group, by the process table. Zombies do not live."""
        return [pid for pid, stat in _processes() if stat.group == self.pid != pid]

    def _reap(self) -> None:
        self.exit_status()
        if not self._reaped:
            self._reaped = True
            try:
                os.waitid(os.P_PID, self.pid, os.WEXITED)
            except ChildProcessError:
                pass  # other code of this program was faster; its status is known

    async def wait_alone(self) -> None:
        """Wait until nobody of the group lives but its leader, which has ended. Cancelling stops waiting."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self.settle():
            for pid in self._others():
                await _wait_gone(pid)

    async def end(self) -> None:
        """Kill all that is left of the group, wait until it is gone, and reap the leader. Cannot be cancelled.

        Who cannot be killed (the kernel is busy with it, or it runs as another user) is waited for no longer than
        `END_SECONDS`, and then left, with a word in the log.
        """
        try:
            with trio.move_on_after(END_SECONDS, shield=True) as patience:
                self.signal_group(signal.SIGKILL)
                await self.wait_exited()
                while not self.settle():
                    self.signal_group(signal.SIGKILL)
                    await self.wait_alone()
                self._reap()
            if patience.cancelled_caught:
                log.error("the processes of group %d cannot be killed; left are %s", self.pid, self._others())
        finally:
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None


class _Stat(NamedTuple):
    """What the process table says of a process. See proc_pid_stat(5)."""

    parent: int
    group: int
    session: int


def _processes() -> Iterator[tuple[int, _Stat]]:
    """Every process that lives; zombies do not."""
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, *numbers = file.read().rpartition(b")")[2].split()[:4]
            except OSError:
                continue  # ended meanwhile
            if state not in (b"Z", b"X"):
                yield int(name), _Stat(*map(int, numbers))


def _descendants(roots: list[int]) -> list[int]:
    """Everything below these processes."""
    children: dict[int, list[int]] = {}
    for pid, stat in _processes():
        children.setdefault(stat.parent, []).append(pid)
    found, queue = [], list(roots)
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().decode(errors="replace").rstrip("\n")
    except OSError:
        return ""


def _signal_process(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


async def _wait_gone(pid: int) -> None:
    """Wait until a process that is being killed has ended; it need not be a child of ours."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)


@cache
def _signals_groups_by_pidfd() -> bool:
    """Whether this kernel can. Asked with signal 0, which reaches nobody; older kernels refuse the flag."""
    if not hasattr(os, "pidfd_open"):
        return False
    pidfd = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(pidfd, 0, None, _PROCESS_GROUP)
    except OSError as error:
        return error.errno != errno.EINVAL
    finally:
        os.close(pidfd)
    return True
