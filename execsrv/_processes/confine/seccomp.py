"""A filter of system calls: what a confined command may not even ask the kernel for. See seccomp(2).

It denies sockets that lead out, what undoes the other layers, what sheds the mark of its session, leases by which files
are kept from others, and whatever of the kernel only debuggers and administrators need. The errors are those that
programs know how to live with.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import socket
import struct
import termios
from collections.abc import Sequence

from execsrv._processes.confine.syscalls import BY_MACHINE, MACHINE
from execsrv._processes.confine.table import Table
from execsrv._processes.rlimit_mark import LOCKS, RTTIME

_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _JUMP, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x05, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x50000, 0x80000000
_NUMBER, _ARCHITECTURE = 0, 4
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_* of <linux/audit.h>
_X32 = 0x40000000
_SET_MODE_FILTER = 1
_TIOCLINUX = 0x541C
_F_SETDELEG = 1040
_NAMESPACES = 0x7E020080  # CLONE_NEW* of <linux/sched.h>, time included
_PARENT = 0x8000  # CLONE_PARENT: a child of whoever has started the caller, which may be this server

DENIED = """
    acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module finit_module fsconfig fsmount fsopen
    fspick init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load
    keyctl listmount lookup_dcookie migrate_pages mount mount_setattr move_mount move_pages name_to_handle_at nfsservctl
    open_by_handle_at open_tree open_tree_attr perf_event_open pidfd_getfd pivot_root process_madvise process_vm_readv
    process_vm_writev ptrace quotactl quotactl_fd reboot request_key setdomainname sethostname setns settimeofday
    statmount swapoff swapon syslog umount2 uselib userfaultfd vhangup _sysctl
""".split()
"""Denied to all that is confined, where the machine has it."""

DENIED_NETWORK = "accept accept4 bind connect listen sendmmsg".split()
"""Denied where the network is."""

Instruction = tuple[int, int, int, int]
Body = tuple[Instruction, ...]


def _argument(index: int, high: bool = False) -> Instruction:
    return _LOAD, 0, 0, 16 + 8 * index + 4 * high


def _returns(value: int) -> Instruction:
    return _RETURN, 0, 0, value


_DENY, _PASS, _NO_CALL = _returns(_ERROR | errno.EPERM), _returns(_ALLOW), _returns(_ERROR | errno.ENOSYS)


def _when(kind: int, value: int, yes: Body, no: Body) -> Body:
    """Return what goes on with `yes` where what was loaded is so, and else with `no`. Both end in returns."""
    return (kind, 0, len(yes), value), *yes, *no


def _when_one_of(values: Sequence[int], yes: Body, no: Body) -> Body:
    for value in values:
        no = _when(_EQUAL, value, yes, no)
    return no


def _when_zero(index: int, yes: Body, no: Body) -> Body:
    """Return what looks at both halves of an argument."""
    high = _argument(index, high=True), *_when(_EQUAL, 0, yes, no)
    return _argument(index), *_when(_EQUAL, 0, high, no)


_OF_OWN_ALONE = _argument(0), *_when(_ANY_BIT, _NAMESPACES | _PARENT, (_DENY,), (_PASS,))
_NO_ADDRESS = _when_zero(4, (_PASS,), (_DENY,))
_NO_TYPING = _argument(1), *_when_one_of((termios.TIOCSTI, _TIOCLINUX), (_DENY,), (_PASS,))
_NO_LEASE = _argument(1), *_when_one_of((fcntl.F_SETLEASE, _F_SETDELEG), (_DENY,), (_PASS,))
_NO_MARK = _when_one_of((RTTIME, LOCKS), (_DENY,), (_PASS,))
_OF_ITSELF = _argument(0), *_when(_EQUAL, 0, (_argument(1), *_NO_MARK), (_DENY,))

_LOOKED_INTO: dict[str, Body] = {
    # Its flags are in memory, where no filter sees them; the C library falls back to clone.
    "clone3": (_NO_CALL,),
    "clone": _OF_OWN_ALONE,
    "unshare": _OF_OWN_ALONE,
    "fcntl": _NO_LEASE,  # for which the kernel holds up others who open the file, by 45 seconds
    "ioctl": _NO_TYPING,  # into a terminal on behalf of its user
    "setrlimit": (_argument(0), *_NO_MARK),
    "prlimit64": _when_zero(2, (_PASS,), _OF_ITSELF),  # a pointer to new values: asking is allowed
}

# Datagram sockets, which raw ones are too, reach others by their paths, with calls whose addresses no filter sees.
_CONNECTED = (_AND, 0, 0, 0xF), *_when_one_of((socket.SOCK_STREAM, socket.SOCK_SEQPACKET), (_PASS,), (_DENY,))
_OF_SOCKETS = _argument(0), *_when(_EQUAL, socket.AF_UNIX, (_argument(1), *_CONNECTED), (_DENY,))
_LOOKED_INTO_NETWORK: dict[str, Body] = {"socket": _OF_SOCKETS, "socketpair": _OF_SOCKETS, "sendto": _NO_ADDRESS}


@functools.cache
def program(*, network: bool, machine: str = MACHINE) -> bytes:
    """Return the filter, as the kernel of a machine takes it.

    It looks for a call by halves: the kernel tries a new filter with every call that there is.
    """
    numbers = BY_MACHINE[machine]
    denied = [call for call in (DENIED if network else [*DENIED, *DENIED_NETWORK]) if call in numbers]
    bodies = {**dict.fromkeys(denied, (_DENY,)), **_LOOKED_INTO, **({} if network else _LOOKED_INTO_NETWORK)}
    parts: list[tuple[int, Body]] = [(0, (_PASS,))]
    for number, body in sorted((numbers[call], body) for call, body in bodies.items()):
        if number == parts[-1][0]:
            parts.pop()
        if body != parts[-1][1]:
            parts.append((number, body))
        parts.append((number + 1, (_PASS,)))
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        _returns(_KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),  # of x86-64; elsewhere there are no such numbers
        _NO_CALL,
        *_search(parts),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _search(parts: list[tuple[int, Body]]) -> list[Instruction]:
    """Return what finds the part that a call's number is in, and carries out its body. Each has its first number."""
    if len(parts) == 1:
        return list(parts[0][1])
    middle = len(parts) // 2
    below, rest = _search(parts[:middle]), _search(parts[middle:])
    return [(_AT_LEAST, 0, 1, parts[middle][0]), (_JUMP, 0, 0, len(below)), *below, *rest]


def add(table: Table, *, network: bool) -> None:
    """Add the row that puts it on. It must be one of the last."""
    content = program(network=network)
    filter = table.data(struct.pack("<HxxxxxxQ", len(content) // 8, table.data(content)))
    table.call("seccomp", "seccomp", _SET_MODE_FILTER, 0, filter)
