"""Starting a confined command, and finding out beforehand whether this machine can confine as it has to.

A machine is asked by a trial: the table of a real start, which ends before the command would begin.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from execsrv._processes import cgroup, portable_spawn, posix_spawn, spawn_errors
from execsrv._processes.accounts import Account
from execsrv._processes.command import Command, File, spawn_error
from execsrv._processes.confine import landlock, layers, starter
from execsrv._processes.confine.layers import LayerName, Means
from execsrv._processes.confine.places import Confinement, Place
from execsrv._processes.confine.starter import ReportedError
from execsrv._processes.confine.syscalls import is_known
from execsrv._processes.confine.table import TooLargeError
from execsrv._processes.rlimit_mark import Mark
from execsrv._wire.quoting import shown
from execsrv.errors import SandboxUnavailableError

if TYPE_CHECKING:
    from execsrv._processes.limiting.group import LimitGroup


class Refusal(NamedTuple):
    """The step that a machine refuses, its errno, and what would be needed."""

    step: str
    errno: int
    need: str
    passes: bool = False
    """True for want of something that may be there the next time: it decides nothing for later starts."""


_NEEDS = {
    "unshare": "a user namespace or CAP_SYS_ADMIN",
    "unshare user": "a user namespace or CAP_SYS_ADMIN",
    "uid_map": "a user namespace that may have capabilities",
    "landlock": "Landlock, of Linux 5.13",
    "seccomp": "seccomp filters",
    "mount /proc": "a /proc that nothing is mounted over",
    "mount read-only": "mount_setattr, of Linux 5.12",
}


def _hand_over(account: Account, means: Means, terminal: bytes | None, ends: Sequence[int | None]) -> None:
    """Give the streams of a command to its user. Raises `SandboxUnavailableError` where it cannot have another."""
    if means.in_user or not layers.privileged():
        message = "a confined command has another user only where its server may make namespaces without one for users"
        raise SandboxUnavailableError(message, field="user")
    if terminal is not None:
        os.chown(terminal, account.uid, -1)
    portable_spawn.give_streams(account, ends)


class _ShortageError(Exception):
    """A trial failed for want of something that may be there the next time, which is its refusal."""


def means() -> Means | Refusal:
    """Return what commands are confined with here, or why they cannot be. It is tried, once, unless that fails for now.

    Without a pid namespace, Landlock has to keep signals in.
    """
    return _tried(_means)


def means_without_view() -> Means | Refusal:
    """Return what commands are confined with where there are no namespaces, or why they cannot be. Tried likewise."""
    return _tried(_means_without_view)


def _tried(find: Callable[[], Means | Refusal]) -> Means | Refusal:
    try:
        return find()
    except _ShortageError as error:
        refusal: Refusal = error.args[0]
        return refusal
    except OSError as error:  # of a question that comes before the trial
        return _shortage("starter", error.errno or 0)


def _shortage(step: str, number: int) -> Refusal:
    return Refusal(step, number, "more of what is used up for now", passes=True)


@functools.cache
def _means() -> Means | Refusal:
    if not is_known:
        return Refusal("starter", errno.ENOSYS, "x86-64 or aarch64, whose system calls are known here")
    if not posix_spawn.available:
        return Refusal("starter", errno.ENOSYS, "a C library whose posix_spawn is complete, as glibc 2.34")
    version = landlock.version()
    if not version:
        return Refusal("landlock", errno.EOPNOTSUPP, _NEEDS["landlock"])
    refusal: Refusal | None = None
    for in_user in (False, True) if layers.privileged() else (True,):
        for chosen in (layers.ALL, layers.ALL - {"processes"}):
            if "processes" not in chosen and version < landlock.SIGNALS_VERSION:
                continue
            found = Means(chosen, in_user, version)
            refused = _try(found)
            if refused is None:
                return found
            refusal = refusal or refused
    assert refusal is not None
    return refusal


@functools.cache
def _means_without_view() -> Means | Refusal:
    version = landlock.version()
    if not is_known or not posix_spawn.available or version < landlock.SIGNALS_VERSION:
        return Refusal(
            "landlock", errno.EOPNOTSUPP, "Landlock that keeps signals in, of Linux 6.12, on x86-64 or aarch64"
        )
    found = Means(frozenset({"capabilities", "landlock", "seccomp"}), in_user=False, landlock=version)
    return _try(found) or found


def _try(found: Means) -> Refusal | None:
    """Return why a command cannot be confined with that, None if it can.

    Raises `_ShortageError`, and nothing goes by less then, where it could be the next time.
    """
    command = Command(b"/", (), (), b"/")
    places = [Place(b"/", "read"), Place(b"/usr", "write")]
    if found.has("view"):
        places.append(Place(b"/usr/bin", "read"))
    trial = Confinement(tuple(place for place in places if os.path.realpath(place.path) == place.path), network=False)
    child = ctypes.c_int()
    try:
        with open(os.devnull, "r+") as null:
            table = layers.table(command, trial, found, runs=False)
            pids = starter.carry_out(table, starter.interpreter(), stdio=[null.fileno()] * 3, child=child)
    except ReportedError as error:
        step, number = error.step, error.errno
        need = _NEEDS.get(step, f"a machine that allows the step `{step}`")
    except OSError as error:
        step, number, need = "starter", error.errno or 0, "a program that carries out the steps"
    else:
        starter.dismiss(pids)
        return None
    if number in starter.SHORTAGES and not (number == errno.ENOSPC and _makes_none(step, found)):
        raise _ShortageError(_shortage(step, number))
    return Refusal(step, number, need)


_KINDS: dict[LayerName, str] = {"view": "mnt", "ipc": "ipc", "processes": "pid"}
"""The namespace that a layer is made of, as the kernel's bounds on their number name it."""


def _makes_none(step: str, found: Means) -> bool:
    """Tell whether no namespace of those that a step makes can ever be had here: user_namespaces(7)."""
    kinds = ["user"] if step == "unshare user" else [kind for layer, kind in _KINDS.items() if found.has(layer)]
    return step.startswith("unshare") and any(_most(kind) == b"0" for kind in kinds)


def _most(kind: str) -> bytes:
    try:
        with open(f"/proc/sys/user/max_{kind}_namespaces", "rb") as file:
            return file.read().strip()
    except OSError:
        return b""


WITHOUT_VIEW = (
    "files outside can be changed in mode, owner, times and attributes",
    "processes outside can be seen; those of the same user, unless it is root, given other priorities and processors",
    "shared memory and queues of System V are those of the machine",
    "/dev has a few devices, no terminals and no shared memory, and / cannot be listed",
)
"""What a command that is confined without a view can do all the same, or cannot do."""


def needed_means(*, may_lack_view: bool = False) -> Means:
    """Return what commands are confined with here. Raises `SandboxUnavailableError` where they cannot be.

    Where a view cannot be had for now, that is no reason to go without.
    """
    found = means()
    if isinstance(found, Refusal) and may_lack_view and not found.passes:
        less = means_without_view()
        if isinstance(less, Means) or less.passes:
            found = less
    if isinstance(found, Means):
        return found
    said = f"{os.strerror(found.errno)} (os error {found.errno})"
    anything = "anything for now" if found.passes else "anything"
    message = f"this server cannot confine {anything}: {found.step}: {said}; it needs {found.need}"
    raise SandboxUnavailableError(message, field="sandbox", step=found.step, errno=found.errno, need=found.need)


def start(
    command: Command,
    confinement: Confinement,
    stdio: Sequence[int | None] | bytes,
    child: ctypes.c_int,
    mark: Mark | None,
    group: LimitGroup | None = None,
) -> int | None:
    """Start `command`, confined, write its pid into `child`, and return that of its reaper, None where it has none.

    `stdio` is as `posix_spawn.start` takes it. `mark` is put on it, unless we carry it, and the limits of its
    `group`. No control groups can be written by it, whatever its policy. The given descriptors stay the caller's.
    Raises `SpawnError` when it could not be executed or confined, and `LimitUnavailableError`; then nothing is left
    behind.
    """
    found = needed_means(may_lack_view=confinement.may_lack_view)
    if any(place.access == "write" for place in confinement.places):  # by groups it could kill the server
        confinement = confinement.protecting(filter(os.path.exists, cgroup.mounts()))
    if not found.has("view"):
        landlock.check_alone(confinement)
    inherited = command.inherited
    if inherited is not None and inherited.pass_fds:
        message = "a confined command gets no descriptors beside its 0, 1 and 2"
        raise SandboxUnavailableError(message, field="passFds")
    terminal = stdio if isinstance(stdio, bytes) else None
    ends = (None, None, None) if isinstance(stdio, bytes) else stdio
    if command.account is not None:
        _hand_over(command.account, found, terminal, () if inherited is not None else ends)
    closed = [target for target, end in enumerate(ends) if end is None and terminal is None]
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        device = os.fstat(null).st_rdev
        nulls = [
            (target, fcntl.fcntl(end, fcntl.F_GETFL) & os.O_ACCMODE)
            for target, end in enumerate(ends)
            if end is not None and os.fstat(end).st_rdev == device
        ]
        made = layers.table(
            command, confinement, found, terminal=terminal, nulls=nulls, closed=closed, mark=mark, group=group
        )
        return starter.carry_out(
            made,
            starter.interpreter(),
            stdio=[null if end is None else end for end in ends],
            inherited=None if inherited is None else replace(inherited, pass_fds=()),
            child=child,
        ).reaper
    except TooLargeError:
        raise spawn_error("sandbox", errno.E2BIG, "start, with so many places in its policy") from None
    except ReportedError as error:
        output = {"stdout": command.stdout, "stderr": command.stderr}.get(error.step)
        if isinstance(output, File):
            raise spawn_error(
                error.step, error.errno, f"open `{os.fsdecode(output.path)}` for its {error.step}"
            ) from None
        if group is not None:
            group.check_entered(error.step, error.errno)
        if error.step == "wishes":
            raise spawn_errors.of_wishes(command, error.errno) from None
        if error.step == "exec":
            raise spawn_errors.of_program(command, error.errno) from None
        if error.step == "cwd":
            raise spawn_errors.of_directory(command, error.errno) from None
        raised = spawn_error("sandbox", error.errno, f"confine, {error.step}")
        raised.facts["step"] = shown(error.step)
        raise raised from None
    finally:
        os.close(null)
