"""A survey of the means that this machine has to keep hold of processes, and what they guarantee, in words.

It asks and tries, and changes nothing.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

from execsrv._processes import cgroup, posix_spawn, rlimit_mark, subreaper
from execsrv._processes.supervisor import guardian_possible

MINIMUM_KERNEL = "5.4"
"""The first long-term kernel with `pidfd_open` (5.3), by which all processes are watched and signalled."""


@dataclass(frozen=True, slots=True)
class Capability:
    """A means of keeping hold of processes, whether `execsrv serve` has it on this machine, and its use."""

    name: str
    available: bool
    meaning: str


@dataclass(frozen=True, slots=True)
class Survey:
    """The layers from the weakest to the strongest, what they guarantee together, and what can still escape."""

    kernel: str
    minimum_kernel: str
    layers: list[Capability]
    guarantees: list[str]
    escapes: list[str]


def survey() -> Survey:
    """Look at this machine, as this user. A control group is made and removed for it where that is allowed."""
    mark = rlimit_mark.new_server_mark() is not None
    descent = mark and subreaper.available()
    guardian = mark and guardian_possible()
    group = guardian and _makes_groups()
    layers = [
        Capability("group", True, "each command leads a session and a process group of its own"),
        Capability("fast start", posix_spawn.available, "posix_spawn of the C library does all that a start needs"),
        Capability("mark", mark, "a limit without effect names the session, through exec, setsid and double forks"),
        Capability("subreaper", descent, "strays become children of the server, so that none can be overlooked"),
        Capability("guardian", guardian, "a small process ends everything when the server is killed or crashes"),
        Capability("cgroup", group, "nothing leaves the server's control group; its rest dies with the server"),
    ]
    return Survey(platform.release(), MINIMUM_KERNEL, layers, *_words(mark, descent, guardian, group))


def _words(mark: bool, descent: bool, guardian: bool, group: bool) -> tuple[list[str], list[str]]:
    guarantees, escapes = [], []
    if mark:
        guarantees.append("a session's end ends all that descends from it, whatever it did to its session or group")
    else:
        escapes.append("a process that leaves its process group outlives its session and the server")
    if descent:
        guarantees.append("a forced end is proved: no child of the server is left that could belong to the session")
    if guardian:
        guarantees.append("the same when the server is killed or crashes")
        escapes.append("everything, if the server and its guardian are killed within the same moment")
    else:
        escapes.append("everything, if the server is killed with SIGKILL or crashes")
    if group:
        guarantees.append("when the server ends, also what has changed the limit that held its mark")
        escapes.append("a process that changes that limit and then daemonizes lives on until no session runs")
    elif mark:
        escapes.append("a process that changes the limit that held its mark, and then daemonizes")
    escapes.append("a program that runs as another user (set-user-id), if the server may not signal it")
    escapes.append("what another service starts when asked (cron, systemd, a container engine): it never descended")
    return guarantees, escapes


def _makes_groups() -> bool:
    folder = cgroup.make(f"doctor-{os.getpid()}")
    if folder is not None:
        cgroup.remove(folder)
    return folder is not None
