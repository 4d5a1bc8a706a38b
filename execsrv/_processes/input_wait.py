"""Seeing that a command waits for input: one of its processes sleeps in a system call that only its input can end.

The kernel tells which call each thread is in (proc(5), syscall), and what its descriptors are. A blocking read of the
terminal or of the pipe is such a call, and so is a wait for several descriptors without a time, when all of them are
that. Who waits for something else too may go on without, and is not meant. Where the kernel does not tell, or not us,
nobody is seen.

It may not tell for as long as it likes: while a process that becomes another program closes a file on a server that has
gone, nobody learns its call, nor its memory while a page of that is on its way. So this is for threads. Standard
library only.
"""

from __future__ import annotations

import os
import platform
import re
import struct
from collections.abc import Collection
from typing import NamedTuple

from execsrv._processes import proc

_CALLS = {
    "x86_64": {
        0: "read",
        19: "readv",
        7: "poll",
        271: "ppoll",
        23: "select",
        270: "pselect6",
        232: "epoll_wait",
        281: "epoll_pwait",
        441: "epoll_pwait2",
    },
    "aarch64": {63: "read", 65: "readv", 73: "ppoll", 72: "pselect6", 22: "epoll_pwait", 441: "epoll_pwait2"},
}.get(platform.machine(), {})

_MAX_THREADS = 64
_MAX_DESCRIPTORS = 1024
"""More threads and descriptors than these are not looked at: whoever has them does not only wait for input."""

_IN, _OUT = 0x001, 0x004  # of poll(2), and of epoll(7)


class InputWait(NamedTuple):
    """A process that waits for input, by that system call on that descriptor. `sleeps` counts how often it went to
    sleep: another number says that it has been awake in between."""

    pid: int
    name: str
    call: str
    descriptor: int
    sleeps: int


def look(leader: int, names: Collection[str], group: int | None = None) -> InputWait | None:
    """Return one that waits for what has one of these names in its list of descriptors, None if there is none.

    It is looked for among a leader and all that descends from it, or those of them in one process group. Blocks as long
    as the kernel does.
    """
    for pid in proc.family([leader]):
        if group in (None, proc.group(pid)) and (found := _waiting(pid, names)) is not None:
            return InputWait(pid, proc.name(pid), *found)
    return None


def _waiting(pid: int, names: Collection[str]) -> tuple[str, int, int] | None:
    """Return the call and the descriptor by which a process waits for input, and how often that thread has slept."""

    def is_input(descriptor: int) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/fd/{descriptor}") in names
        except OSError:
            return False

    for thread in proc.threads(pid)[:_MAX_THREADS]:
        number, *arguments = proc.table(pid, f"task/{thread}/syscall").split() or [b"running"]
        call = _CALLS.get(int(number)) if number.isdigit() else None
        if call is None or len(arguments) < 6:
            continue
        watched = _watched(pid, call, [int(argument, 16) for argument in arguments[:6]])
        if watched and all(map(is_input, watched)):
            return call, watched[0], _sleeps(pid, thread)
    return None


def _sleeps(pid: int, thread: int) -> int:
    found = re.search(rb"^voluntary_ctxt_switches:\s*(\d+)", proc.table(pid, f"task/{thread}/status"), re.MULTILINE)
    return int(found[1]) if found else 0


def _watched(pid: int, call: str, arguments: list[int]) -> list[int]:
    """Return the descriptors that a call waits for input of; none where it may end in another way."""
    first, second, third, fourth, fifth, _ = arguments
    match call:
        case "read" | "readv":
            return [first]
        case "poll" if _signed(third) < 0:
            return _polled(pid, first, second)
        case "ppoll" if third == 0:
            return _polled(pid, first, second)
        case "select" | "pselect6" if fifth == 0:
            return _selected(pid, first, second, third)
        case "epoll_wait" | "epoll_pwait" if _signed(fourth) < 0:
            return _registered(pid, first)
        case "epoll_pwait2" if fourth == 0:
            return _registered(pid, first)
    return []


def _signed(value: int) -> int:
    """Return an argument that is an int of 32 bits."""
    return (value & 0xFFFFFFFF) - ((value & 0x80000000) << 1)


def _polled(pid: int, address: int, count: int) -> list[int]:
    if count > _MAX_DESCRIPTORS:
        return []
    found = [(fd, events) for fd, events, _ in struct.iter_unpack("ihh", _memory(pid, address, 8 * count)) if fd >= 0]
    return [fd for fd, _ in found] if all(events & _IN and not events & _OUT for _, events in found) else []


def _selected(pid: int, count: int, readable: int, writable: int) -> list[int]:
    count = _signed(count)
    if not 0 < count <= _MAX_DESCRIPTORS or readable == 0:
        return []
    size = (count + 63) // 64 * 8
    if writable and any(_memory(pid, writable, size)):
        return []
    bits = int.from_bytes(_memory(pid, readable, size), "little")
    return [fd for fd in range(count) if bits >> fd & 1]


def _registered(pid: int, descriptor: int) -> list[int]:
    lines = re.findall(rb"^tfd:\s*(\d+) events:\s*([0-9a-f]+)", proc.table(pid, f"fdinfo/{descriptor}"), re.MULTILINE)
    found = [(int(fd), int(events, 16)) for fd, events in lines[: _MAX_DESCRIPTORS + 1]]
    if len(found) > _MAX_DESCRIPTORS or not all(events & _IN and not events & _OUT for _, events in found):
        return []
    return [fd for fd, _ in found]


def _memory(pid: int, address: int, size: int) -> bytes:
    """Read memory of a process; nothing where that is not possible."""
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        data = os.pread(memory, size, address)
        return data if len(data) == size else b""
    except (OSError, OverflowError):
        return b""
    finally:
        os.close(memory)
