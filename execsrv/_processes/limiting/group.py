"""The limits that one command has: what lets it in, what it has used, and which of them has ended it.

Its control groups are below the one that the server is in. They are removed when the session is over, or by the
guardian when the server is killed.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import NamedTuple

import trio

from execsrv._processes import cgroup, proc
from execsrv._processes.leader import ExitStatus, Leader
from execsrv._processes.limiting.entry import Entry, Rlimit, not_entered, rlimits, unavailable
from execsrv._processes.limiting.files import Count, Version, read
from execsrv._processes.usage import usage_of, used_by
from execsrv._threads import run_in_thread
from execsrv.errors import BusyError
from execsrv.protocol.process_limits import ProcessLimits, ProcessUsage, Reached

logger = logging.getLogger(__name__)

_REMOVE_SECONDS = 5.0

_TICKS = os.sysconf("SC_CLK_TCK")
_USER_TIME = 11
"""Field of /proc/PID/stat behind the name; that of the system comes next."""


class Part(NamedTuple):
    """The group in which one controller holds a limit. Several may share a folder."""

    controller: str
    folder: Path
    version: Version


class LimitGroup:
    """The limits of one command. Whoever makes it calls `remove` or `end` in the end."""

    def __init__(self, asked: ProcessLimits) -> None:
        self.asked = asked
        self.leader: Leader | None = None
        """The leader of what has these limits, once it has been started."""
        self.parts: list[Part] = []

    def __repr__(self) -> str:
        return f"<LimitGroup {' '.join(part.controller for part in self.parts) or 'of processes'}>"

    @property
    def folders(self) -> list[Path]:
        """Its groups, each once."""
        return list(dict.fromkeys(part.folder for part in self.parts))

    # -- its beginning --

    @property
    def doors(self) -> list[Path]:
        """The files by which a process steps in: whoever writes 0."""
        return [folder / "cgroup.procs" for folder in self.folders]

    def rlimits(self) -> list[Rlimit]:
        """Return the limits of each process."""
        return rlimits(self.asked)

    def open_entry(self) -> Entry:
        """Open the way in for a child. Raises `LimitUnavailableError`."""
        return Entry(self.doors, self.rlimits())

    def check_entered(self, step: str, number: int) -> None:
        """Raise `LimitUnavailableError` where a step has failed at a door, or for want of memory.

        Nothing is in its groups by then but what is on its way to the program.
        """
        if step in map(str, self.doors):
            raise not_entered(Path(step), number)
        if self._count("oom_kills"):
            raise unavailable("memoryBytes", "start", errno.ENOMEM, "more memory, for the start alone")

    # -- its end --

    def reached(self, status: ExitStatus, *, was_killed: bool) -> Reached | None:
        """Return the limit that the leader, which is not reaped yet, has died of, None where it was none.

        `was_killed` says that its peer has sent it SIGKILL. That another process than the leader was killed for want of
        memory is no such reason.
        """
        limits = self.asked
        if status.signal == "SIGXFSZ" and limits.file_bytes is not None:
            return "file-size"
        if status.signal == "SIGXCPU" and limits.cpu_seconds is not None:
            return "cpu"
        if status.signal == "SIGKILL" and not was_killed:
            if limits.cpu_seconds is not None and _own_seconds(self.leader) >= limits.cpu_seconds:
                return "cpu"
            if self._count("oom_kills"):
                return "oom"
        return None

    def usage(self) -> ProcessUsage:
        """Return what was used, now that the leader has ended."""
        seconds = self._count("cpu_seconds")
        if seconds is None and self.leader is not None:
            past = self.leader.usage
            taken = usage_of([self.leader.pid]) if past is None else used_by(past)
            seconds = taken.cpu_ms / 1000
        return ProcessUsage(
            round(seconds or 0.0, 6),
            self._whole("peak_memory"),
            self._whole("oom_kills"),
            self._whole("refused_forks"),
            self._count("throttled_seconds"),
        )

    def _count(self, count: Count) -> float | None:
        """Return what the kernel has counted, None where it does not tell."""
        for part in self.parts:
            for counter in part.version.counters[count]:
                if counter.controller == part.controller and (number := read(part.folder, counter)) is not None:
                    return number
        return None

    def _whole(self, count: Count) -> int | None:
        number = self._count(count)
        return None if number is None else int(number)

    async def end(self, threads: trio.CapacityLimiter) -> None:
        """Remove its groups in one of the threads: the kernel may have to wait for others' groups. Cannot be cancelled.

        Where that takes too long the thread is left behind, and what it does not remove is removed with the server's.
        """
        with trio.move_on_after(_REMOVE_SECONDS, shield=True) as waiting:
            try:
                await run_in_thread(self.remove, threads)
            except BusyError as error:
                logger.warning("the control groups of a command stay for now: %s", error)
        if waiting.cancelled_caught:
            logger.warning("the control groups of a command stay for now: not removed within %g s", _REMOVE_SECONDS)

    def remove(self) -> None:
        """Remove its groups. One that something still lives in stays, for a later server to remove."""
        for folder in self.folders:
            cgroup.remove(folder)
        self.parts = []


def _own_seconds(leader: Leader | None) -> float:
    """Return the processor time that a leader has taken itself, which may be a zombie."""
    if leader is None:
        return 0
    fields = proc.table(leader.pid, "stat").rpartition(b")")[2].split()[_USER_TIME : _USER_TIME + 2]
    return sum(map(int, fields)) / _TICKS
