"""Watching one started command, and ending all that descends from it.

The leader is known by a pidfd. While it is a zombie, its pid and its group's id cannot be given to a stranger; once it
is reaped, the pidfd still names the group that it led. So no signal sent here can hit a stranger. See pidfd_open(2),
pidfd_send_signal(2), waitid(2). Who else belongs to the session is asked of a `Finder`, which the supervisor gives.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

import trio

from execsrv._processes import proc
from execsrv._processes.signals import signal_name
from execsrv.protocol import Layer, Member

logger = logging.getLogger(__name__)

_PROCESS_GROUP = 1 << 2
"""PIDFD_SIGNAL_PROCESS_GROUP of <linux/pidfd.h>: the whole group that the pidfd's process leads. Linux 6.9."""


END_SECONDS = 5.0
"""How long killed processes may take to be gone. Freeing a large memory takes its time."""

_ROUND_SECONDS = 0.1

Target = Literal["leader", "group", "tree"]


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a leader ended. `code` is 128+N after a death by signal N, whose name is in `signal`."""

    code: int
    signal: str | None = None


class Finder(Protocol):
    """Knows who belongs to a session."""

    layer: Layer
    """What it goes by, and so what an empty answer proves: see docs/survival.md."""

    def find(self, tree: ProcessTree) -> dict[int, int]:
        """The living processes of a session, its leader included: each with its parent, 0 where it has a mark."""

    def belongs(self, tree: ProcessTree, pid: int) -> bool:
        """Whether that number is, now, a process of the session."""

    def reaped(self, tree: ProcessTree) -> None:
        """The leader's pid is free for others."""

    def ending(self, tree: ProcessTree) -> None:
        """The session is being ended."""

    def ended(self, tree: ProcessTree) -> None:
        """The session is over."""


class ProcessTree:
    """A leader and all that descends from it. Whoever holds it calls `end` in the end."""

    def __init__(self, pid: int, number: int, finder: Finder) -> None:
        """Watch the running child `pid`, session `number` of its supervisor.

        Raises `OSError` without descriptors left.
        """
        self.pid = pid
        self.number = number
        self.started_at = time.monotonic()
        self._finder = finder
        self._pidfd: int | None = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        self._status: ExitStatus | None = None
        self._reaped = False
        self._is_empty = False

    def __repr__(self) -> str:
        state = "reaped" if self._reaped else "running" if self.exit_status() is None else "zombie"
        return f"<ProcessTree pid={self.pid} {state}>"

    # -- the leader --

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
            logger.warning("the exit status of process %d was taken by other code of this program", self.pid)
            self._status, self._reaped = ExitStatus(255), True
            self._finder.reaped(self)
            return self._status
        if result is not None:
            if result.si_code == os.CLD_EXITED:
                self._status = ExitStatus(result.si_status)
            else:
                self._status = ExitStatus(128 + result.si_status, signal_name(result.si_status))
        return self._status

    def _peek(self, flags: int) -> os.waitid_result | None:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | flags)

    def _reap(self) -> None:
        self.exit_status()
        if not self._reaped:
            self._reaped = True
            try:
                os.waitid(os.P_PID, self.pid, os.WEXITED)
            except ChildProcessError:
                pass  # other code of this program was faster; its status is known
            self._finder.reaped(self)

    # -- signals --

    def signal(self, number: int, target: Target = "tree") -> int:
        """Send a signal to the leader, to its process group or to all that descends from it; how many received it."""
        if target == "leader":
            return self._send({} if self.exit_status() else {self.pid: 0}, number)
        members = self._find()
        if target == "tree":
            return self._send(members, number)
        return self._signal_group(number, sum(_group_of(pid) == self.pid for pid in members))

    def signal_foreground(self, number: int, terminal: int) -> int:
        """Send a signal to the job in front on this session's terminal, by the terminal's master; to how many."""
        try:
            group = os.tcgetpgrp(terminal)
        except OSError:
            return 0
        return self._send({pid: 0 for pid in self._find() if _group_of(pid) == group}, number)

    def _send(self, members: dict[int, int], number: int) -> int:
        """Children first, as long as their parent is there to tell whose they are."""
        return sum(proc.send(pid, number, self._whether(parent)) for pid, parent in reversed(members.items()))

    def _whether(self, parent: int) -> proc.Belongs:
        """Whether a pid is still whom it was found as."""

        def belongs(pid: int) -> bool:
            if pid == self.pid and not self._reaped:
                return True
            return self._finder.belongs(self, pid) or (parent != 0 and proc.parent(pid) == parent)

        return belongs

    def _signal_group(self, number: int, members: int = 1) -> int:
        """Signal the leader's group at once; 0 when there was nobody to receive it, else `members`."""
        try:
            if not self._reaped:
                os.killpg(self.pid, number)
            elif self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number, None, _PROCESS_GROUP)
            else:
                return 0
        except PermissionError:
            pass  # somebody in the group is not ours to signal (set-user-id); the others received it
        except OSError:
            return 0
        return members

    # -- what is left --

    def _find(self) -> dict[int, int]:
        """Who lives of the session, each with its parent. Once that was nobody, it stays so.

        Raises `OSError` without a descriptor left to look with.
        """
        if self._is_empty:
            return {}
        found = self._finder.find(self)
        self._is_empty = not found and self.exit_status() is not None
        return found

    def remaining(self) -> list[Member]:
        """Who lives of the session. The leader counts as long as it runs."""
        return [Member(pid, proc.name(pid)) for pid in self._find()]

    def reap_if_alone(self) -> bool:
        """Reap the leader, which has ended, unless its group needs it: whether nothing else of the session lives.

        Where the kernel cannot signal a group by pidfd, the leader stays a zombie as long as others live.
        """
        alone = not self._find()
        if alone or _signals_groups_by_pidfd():
            self._reap()
        return alone

    async def wait_alone(self) -> None:
        """Wait until nothing of the session lives; its leader has ended. Cancelling stops waiting."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                if self.reap_if_alone():
                    return
                await trio.lowlevel.checkpoint()
                left = self._find()
            except OSError:
                await trio.sleep(_ROUND_SECONDS)  # for a descriptor to look with
            else:
                for pid in left:
                    await _wait_gone(pid)

    async def kill(self) -> Layer | None:
        """Kill all that is left, wait until it is gone, and reap the leader. Cannot be cancelled.

        All are stopped first, parents before their children: a shell whose child was killed would go on with its next
        command. Gives the layer that proved that nothing is left; None when it could not be proved: who cannot be
        killed (the kernel is busy with it, or it runs as another user) is waited for no longer than `END_SECONDS`, and
        then left, with a word in the log.
        """
        self._finder.ending(self)
        left: dict[int, int] = {}
        with trio.move_on_after(END_SECONDS, shield=True) as patience:
            while True:
                try:
                    if not (left := self._find()):
                        break
                    if len(left) > 1:
                        self._send(dict(reversed(left.items())), signal.SIGSTOP)
                    self._send(left, signal.SIGKILL)
                except OSError:
                    # No descriptor left to look with. The end of its streams will give some back.
                    self._signal_group(signal.SIGKILL)
                    await trio.sleep(_ROUND_SECONDS)
                    continue
                await trio.lowlevel.checkpoint()
                with trio.move_on_after(_ROUND_SECONDS):  # then see who has come up meanwhile
                    for pid in left:
                        await _wait_gone(pid)
            await self.wait_exited()
            self._signal_group(signal.SIGKILL)  # where nobody can tell who is left
            self._reap()
        if patience.cancelled_caught:
            names = ", ".join(f"{pid} ({proc.name(pid)})" for pid in left)
            logger.error("cannot kill what is left of session %d: %s", self.pid, names)
            return None
        return self._finder.layer

    async def end(self) -> None:
        """The same, and let go of it."""
        try:
            await self.kill()
        finally:
            self._finder.ended(self)
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None


async def _wait_gone(pid: int) -> None:
    """Wait until a process has ended; it need not be a child of ours."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError:
        await trio.sleep(_ROUND_SECONDS)  # for a descriptor to look with
        return
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


@cache
def _signals_groups_by_pidfd() -> bool:
    """Whether this kernel can. PendingCall with signal 0, which reaches nobody; older kernels refuse the flag."""
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
