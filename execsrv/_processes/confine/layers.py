"""The layers of a confined start, and the table that puts them on, in an order in which each lets the next one in.

What is put on for sure is what the table says: every layer is one of its rows, and a row that fails ends the start.
"""

from __future__ import annotations

import fcntl
import functools
import os
import signal
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from msgspec import Struct

from execsrv._processes import carried_limits
from execsrv._processes.accounts import Account
from execsrv._processes.command import Command, File
from execsrv._processes.confine import landlock, seccomp, view
from execsrv._processes.confine.places import Confinement
from execsrv._processes.confine.starter import LEADER, READY, REAPER
from execsrv._processes.confine.table import AT_FDCWD, LIFE, REPORT, Table
from execsrv._processes.rlimit_mark import Mark, own_limit

if TYPE_CHECKING:
    from execsrv._processes.limiting.group import LimitGroup

LayerName = Literal["view", "ipc", "processes", "capabilities", "landlock", "seccomp"]
ALL: frozenset[LayerName] = frozenset(get_args(LayerName))

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _PARENT = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x8000
_SECUREBITS, _BOUNDING_DROP, _NO_NEW_PRIVS, _AMBIENT, _DUMPABLE, _NAME = 28, 24, 38, 47, 4, 15
_LOCKED_BITS = 0xEF  # neither root's id nor a change of ids gives a capability, and so it stays
_CAPABILITIES = 0x20080522  # the third version of capset(2)

_KEPT = 16
"""So many tables are kept, of some 20 KB each."""


class Means(Struct, frozen=True):
    """The things that a start is confined with. `in_user` says that namespaces are made in a new user namespace.

    `landlock` is the version of Landlock, 0 for none.
    """

    layers: frozenset[LayerName]
    in_user: bool
    landlock: int

    def has(self, layer: LayerName) -> bool:
        return layer in self.layers


@functools.cache
def privileged() -> bool:
    """Tell whether this process may make namespaces and drop capabilities without a user namespace."""
    with open("/proc/self/status") as status:
        [line] = [line for line in status if line.startswith("CapEff:")]
    needed = 1 << 21 | 1 << 8  # CAP_SYS_ADMIN, CAP_SETPCAP
    return int(line.split()[1], 16) & needed == needed


def table(
    command: Command,
    confinement: Confinement,
    means: Means,
    *,
    terminal: bytes | None = None,
    nulls: Sequence[tuple[int, int]] = (),
    closed: Sequence[int] = (),
    mark: Mark | None = None,
    group: LimitGroup | None = None,
    runs: bool = True,
) -> Table:
    """Return the table that starts a command.

    `terminal` is the name of its terminal. `nulls` are those of its 0, 1 and 2 that are `/dev/null`, with their access
    mode, and `closed` those that it is to have closed. It puts a `mark` on itself, where it does not carry one by
    birth, and steps into the groups of its limits before it sees less. Unless it `runs`, all is done but the last step.
    """
    inherited = command.inherited is not None
    leads = (terminal is not None or not inherited) and (means.has("processes") or inherited)
    granted, doors = _granted(command, mark), [] if group is None else group.doors
    if doors or not means.has("view"):  # of one start alone, and of what is in the root folder now
        made = _enclosed.__wrapped__(confinement, means, terminal, leads, granted, doors)
    else:
        made = _enclosed(confinement, means, terminal, leads, granted).copy()
    made.call("cwd", "chdir", made.text(command.cwd or os.getcwdb()))
    for target, mode in nulls:  # that of its view, which it cannot change for others
        null = made.open("null", "openat", AT_FDCWD, made.text(b"/dev/null"), mode | os.O_CLOEXEC, 0)
        made.call("null", "dup3", null, target, 0)
        made.close(null)
    _open_outputs(made, command)
    for limit in [] if group is None else group.rlimits():
        pair = made.data(struct.pack("<QQ", limit.soft & 2**64 - 1, limit.hard & 2**64 - 1))
        made.call("limits", "prlimit64", 0, limit.slot, pair, 0)
    if means.has("seccomp"):
        seccomp.add(made, network=confinement.network)
    made.report(READY)
    for descriptor in closed:
        made.call("close", "close", descriptor)
    if runs:
        made.call("exec", "execve", made.text(command.program), made.texts(command.argv), made.texts(command.env))
    else:
        made.call("exit", "exit_group", 0)
    return made


class _Granted(NamedTuple):
    """The things that a command is given before it is confined: its wishes, limits, and who it is to be."""

    umask: int | None
    nice: int | None
    oom_score_adj: int | None
    limits: tuple[tuple[str, int, int, int], ...]
    """Each with the name that its failure is told by, its soft and its hard value."""
    account: Account | None
    user: int
    group: int


def _granted(command: Command, mark: Mark | None) -> _Granted:
    marked = [] if mark is None else [("mark", mark.slot, mark.value)]
    carried = [("limits", slot, value) for slot, value in carried_limits.commands_limits]
    limits = tuple((name, slot, value, own_limit(slot)[1] & 2**64 - 1) for name, slot, value in (*marked, *carried))
    ids = os.geteuid(), os.getegid()
    return _Granted(command.umask, command.nice, command.oom_score_adj, limits, command.account, *ids)


@functools.lru_cache(maxsize=_KEPT)
def _enclosed(
    confinement: Confinement,
    means: Means,
    terminal: bytes | None,
    leads: bool,
    granted: _Granted,
    doors: Sequence[os.PathLike[str]] = (),
) -> Table:
    """Return the rows of a start that its command has no part in. They are kept: most starts have those of another."""
    made = Table()
    _grant(made, granted)
    if means.in_user:
        _enter_user_namespace(made, granted)
    new = _NEWNS * means.has("view") | _NEWIPC * means.has("ipc") | _NEWPID * means.has("processes")
    if new:
        made.call("unshare", "unshare", new)
    if means.has("processes"):
        _fork(made)
    for door in doors:  # not before: the reaper is none of the command's
        _write(made, os.fspath(door), os.fsencode(door), b"0")
    if leads:
        made.call("setsid", "setsid")
    if means.has("view"):
        view.add(made, confinement, terminal, own_processes=means.has("processes"))
    if terminal is not None:  # as the view has it, where it may be opened again by `/dev/stdout`
        name = b"/dev/console" if means.has("view") else terminal
        descriptor = made.open("terminal", "openat", AT_FDCWD, made.text(name), os.O_RDWR, 0)
        for target in range(3):
            made.call("terminal", "dup3", descriptor, target, 0)
        made.close(descriptor)
    if means.has("capabilities"):
        _bound_capabilities(made, means)
    if granted.account is not None:
        _become(made, granted.account)
    if means.has("capabilities"):
        _drop_capabilities(made)
    made.call("no_new_privs", "prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
    if means.has("landlock"):
        landlock.add(made, confinement, means.landlock, terminal is not None, in_view=means.has("view"))
    return made


def _open_outputs(made: Table, command: Command) -> None:
    """Add the rows that open the files for its output, with the rights that it has: a link of it leads no further."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    for target, name, output in ((1, "stdout", command.stdout), (2, "stderr", command.stderr)):
        if isinstance(output, File):
            how = os.O_APPEND if output.append else 0
            file = made.open(name, "openat", AT_FDCWD, made.text(output.path), flags | (how or os.O_TRUNC), 0o666)
            made.call(name, "fcntl", file, fcntl.F_SETFL, how)
            made.call(name, "dup3", file, target, 0)
            made.close(file)
    if command.stderr == "stdout" and isinstance(command.stdout, File):
        made.call("stderr", "dup3", 1, 2, 0)


def _grant(made: Table, granted: _Granted) -> None:
    """Add the rows for the wishes of a command, and for the limits that differ from ours."""
    for name, slot, soft, hard in granted.limits:
        made.call(name, "prlimit64", 0, slot, made.data(struct.pack("<QQ", soft, hard)), 0)
    if granted.umask is not None:
        made.call("wishes", "umask", granted.umask)
    if granted.nice is not None:
        made.call("wishes", "setpriority", 0, 0, granted.nice)
    if granted.oom_score_adj is not None:
        _write(made, "wishes", b"/proc/self/oom_score_adj", b"%d" % granted.oom_score_adj)


def _write(made: Table, name: str, path: bytes, content: bytes) -> None:
    file = made.open(name, "openat", AT_FDCWD, made.text(path), os.O_WRONLY | os.O_CLOEXEC, 0)
    made.call(name, "write", file, made.data(content), len(content))
    made.close(file)


def _enter_user_namespace(made: Table, granted: _Granted) -> None:
    """Add the rows for a user namespace in which everybody is who he is outside."""
    made.call("unshare user", "unshare", _NEWUSER)
    _write(made, "setgroups", b"/proc/self/setgroups", b"deny")
    for name, id in (("uid_map", granted.user), ("gid_map", granted.group)):
        _write(made, name, b"/proc/self/" + name.encode(), b"%d %d 1" % (id, id))


def _fork(made: Table) -> None:
    """Add the rows that make the first process of the new pid namespace, and fork the command beside it.

    Both are children of the server, as the program is. The first one reaps whatever is left by others in there, which
    it does by ignoring their ends, and its own end is the end of them all.
    It ends when the server is gone.
    """
    ignoring, usual = (made.data(struct.pack("<4Q", action, 0, 0, 0)) for action in (signal.SIG_IGN, signal.SIG_DFL))
    made.call("reaper", "rt_sigaction", signal.SIGCHLD, ignoring, 0, 8)  # from its first instant
    reaper = made.fork("fork reaper", _PARENT, REAPER)
    command = made.fork("fork", _PARENT, LEADER)
    made.call("exit", "exit_group", 0)
    made.begins(reaper)
    made.call("reaper", "prctl", _NAME, made.text(b"execsrv-reaper"), 0, 0, 0)
    made.call("reaper", "prctl", _DUMPABLE, 0, 0, 0, 0)
    made.call("reaper", "chdir", made.text(b"/"))
    for descriptor in (0, 1, 2, REPORT):
        made.call("reaper", "close", descriptor, optional=True)
    made.call("reaper", "read", LIFE, made.data(bytes(8)), 8)
    made.call("reaper", "exit_group", 0)
    made.begins(command)
    made.call("fork", "rt_sigaction", signal.SIGCHLD, usual, 0, 8)


@functools.cache
def _capabilities() -> int:
    """Return how many there are."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read()) + 1


def _become(made: Table, account: Account) -> None:
    """Add the rows that take on another user, in the order in which each is still allowed."""
    groups = made.data(struct.pack(f"<{len(account.groups)}I", *account.groups))
    made.call("user", "setgroups", len(account.groups), groups)
    made.call("user", "setresgid", *[account.gid] * 3)
    made.call("user", "setresuid", *[account.uid] * 3)


def _bound_capabilities(made: Table, means: Means) -> None:
    """Add the rows by which no capability comes back."""
    may_lack = not means.in_user and not privileged()  # who has none has none to drop
    name = "capabilities"
    made.call(name, "prctl", _SECUREBITS, _LOCKED_BITS, 0, 0, 0, optional=may_lack)
    for capability in range(_capabilities()):
        made.call(name, "prctl", _BOUNDING_DROP, capability, 0, 0, 0, optional=may_lack)


def _drop_capabilities(made: Table) -> None:
    name = "capabilities"
    made.call(name, "prctl", _AMBIENT, 4, 0, 0, 0)  # PR_CAP_AMBIENT_CLEAR_ALL
    made.call(name, "capset", made.data(struct.pack("<Ii", _CAPABILITIES, 0)), made.data(bytes(24)))
