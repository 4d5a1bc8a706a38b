"""A survey of the means that this machine has to keep hold of processes, and what they guarantee, in words.

It asks and tries, by the functions that the server uses, and changes nothing.
"""

from __future__ import annotations

import errno
import os
import platform
from dataclasses import dataclass

from execsrv._processes import cgroup, guardian_keeper, posix_spawn, proc, rlimit_mark, subreaper
from execsrv._processes.confine import start
from execsrv._processes.confine.layers import Means
from execsrv._processes.limiting.make import trial
from execsrv._processes.refused_calls import refusals
from execsrv.errors import LimitUnavailableError
from execsrv.protocol.process_limits import ProcessLimits

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
    """The layers from the weakest to the strongest, what they guarantee together, and what can still escape.

    `policies` is whether commands can be confined, `limits` which can be kept of the limits of all of a command
    together. `refused` names the system calls that this machine refuses, with the
    name of the error.
    """

    kernel: str
    minimum_kernel: str
    refused: dict[str, str]
    layers: list[Capability]
    guarantees: list[str]
    escapes: list[str]
    policies: Capability
    limits: list[Capability]


def survey() -> Survey:
    """Look at this machine, as this user. A control group is made and removed for it where that is allowed."""
    table = proc.is_ours()
    refused = refusals() if table else {}
    mark = table and rlimit_mark.new_server_mark() is not None
    descent = table and subreaper.available()
    guardian = mark and guardian_keeper.possible()
    group = guardian and _makes_groups()
    layers = [
        Capability("group", True, "each command leads a session and a process group of its own"),
        Capability("fast start", posix_spawn.available, "posix_spawn of the C library does all that a start needs"),
        Capability("mark", mark, "a limit without effect names the session, through exec, setsid and double forks"),
        Capability("subreaper", descent, "strays become children of the server, so that none can be overlooked"),
        Capability("guardian", guardian, "a small process ends everything when the server is killed or crashes"),
        Capability("cgroup", group, "nothing leaves the server's control group; its rest dies with the server"),
    ]
    if table:
        words = _words(mark, descent, guardian, group, refused)
    else:
        words = [], ["nothing: without the process table in /proc, of our own pid namespace, no server starts"]
    return Survey(platform.release(), MINIMUM_KERNEL, refused, layers, *words, _policies(table=table), _limits())


def _policies(*, table: bool) -> Capability:
    """Try to confine a command."""
    found = start.means() if table else start.Refusal("starter", errno.ENOENT, "the process table in /proc")
    if isinstance(found, Means):
        meaning = f"every policy is kept, by {', '.join(sorted(found.layers))} and no new privileges"
        return Capability("policies", True, f"{meaning}; Landlock {found.landlock}")
    refusal = f"{found.step}: {errno.errorcode.get(found.errno, found.errno)}; it needs {found.need}"
    if table and not found.passes and isinstance(start.means_without_view(), Means):
        kept = "none is kept but, with allow_landlock_only, those whose callers ask for less (`atLeast`)"
        return Capability("policies", False, f"{kept}: {refusal}")
    return Capability("policies", False, f"none is kept, and such starts are refused: {refusal}")


def _limits() -> list[Capability]:
    """Try to start a command with each limit that takes a control group."""
    found = []
    for name, limits in (
        ("memory", ProcessLimits(memory_bytes=64 << 20)),
        ("processes", ProcessLimits(processes=10)),
        ("cpu", ProcessLimits(cpu_percent=50)),
    ):
        try:
            version = trial(limits)
        except LimitUnavailableError as error:
            found.append(Capability(name, False, f"refused: {error}"))
        else:
            found.append(Capability(name, True, f"kept by control groups of version {version}"))
    return found


def _words(
    mark: bool, descent: bool, guardian: bool, group: bool, refused: dict[str, str]
) -> tuple[list[str], list[str]]:
    guarantees, escapes = [], []
    if mark:
        guarantees.append("a session's end ends all that descends from it, whatever it did to its session or group")
    elif descent:
        guarantees.append("when no session runs any more, nothing that descends from one does")
        escapes.append("a process that leaves its process group and its parent outlives its session until then")
    else:
        return [], ["nothing: without a mark and a subreaper no command is started, but by `execsrv run --leave`"]
    if descent and mark:
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
    if "prlimit64" in refused:
        escapes.append("without `own_process`, where nobody can be marked: who leaves the session")
    escapes.append("a program that runs as another user (set-user-id), if the server may not signal it")
    escapes.append("what another service starts when asked (cron, systemd, a container engine): it never descended")
    return guarantees, escapes


def _makes_groups() -> bool:
    folder = cgroup.make(f"{cgroup.PREFIX}doctor-{os.getpid()}")
    if folder is not None:
        cgroup.remove(folder)
    return folder is not None
