"""The program between spawn and exec: it carries out a table of system calls, row by row, and knows nothing else.

It is a static ELF file of constant bytes, kept in memory, or on the disk without a name where none in memory can be
executed (`vm.memfd_noexec`), or else the same loop in a Python interpreter. Source of the code, for x86-64; on aarch64
rbx is x19, and rcx is x9:

    mmap(BASE, MAPPED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, IMAGE, 0); rbx = BASE
    run: rax = syscall(row[0], row[1] ... row[6])       # row is what rbx points to
         *row[10] = rax
         if rax > 0: rcx = row[9]                       # the next row
         elif rax == 0: rcx = row[8]                    # the one upon 0
         else: rcx = row[7]                             # the one upon an error; 0 is none
         if rax < 0 and rcx == 0: write(REPORT, {rbx, rax}, 16); exit_group(127)
         rbx = rcx; goto run

tests/test_confine_table.py disassembles it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from execsrv._processes import posix_spawn, stream_ends
from execsrv._processes.command import Command
from execsrv._processes.confine.syscalls import MACHINE, is_known
from execsrv._processes.confine.table import BASE, FIRST_FREE, PROGRAM, Table
from execsrv._processes.inherited import Inherited

REAPER, LEADER, READY = 1, 2, 3
"""Tags of reports: the pid of a reaper, the pid of the command where it is not the program's own, and all is done."""

FAILED = 127

SHORTAGES = {getattr(errno, name) for name in "EAGAIN ENOMEM EMFILE ENFILE ENOSPC EDQUOT EUSERS".split()}
"""Errors for want of something that may be there the next time."""

_X86_64 = bytes.fromhex(
    "bf00000010 be00000001 ba03000000 41ba12000000 41b804000000 4531c9 b809000000 0f05 4889c3"
    "488b03 488b7b08 488b7310 488b5318 4c8b5320 4c8b4328 4c8b4b30 0f05"
    "488b4b50 488901 488b4b48 4885c0 7f31 488b4b40 742b 488b4b38 4885c9 7522"
    "50 53 bf03000000 4889e6 ba10000000 b801000000 0f05 bf7f000000 b8e7000000 0f05"
    "4889cb eb9d"
)
_AARCH64 = bytes.fromhex(
    "0000a2d2 0120a0d2 620080d2 430280d2 840080d2 050080d2 c81b80d2 010000d4 f30300aa 680240a9 610a41a9 631242a9"
    "651a40f9 010000d4 692a40f9 200100f9 692640f9 1f0000f1 cc010054 692240f9 80010054 691e40f9 490100b5"
    "f303bfa9 600080d2 e1030091 020280d2 080880d2 010000d4 e00f80d2 c80b80d2 010000d4 f30309aa e8ffff17"
)
_CODE = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}
"""The code for each machine, with the number that ELF has for it."""

_AT, _HEADER_BYTES = 0x400000, 64 + 2 * 56


class ReportedError(Exception):
    """The program has reported that a row failed."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(f"{step}: {os.strerror(number)}")
        self.step = step
        self.errno = number


class Pids(NamedTuple):
    """The children of ours that a start has made."""

    leader: int
    reaper: int | None


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A program that carries out tables, its arguments, and the file without a name that it is in, if it is in one."""

    program: bytes
    argv: tuple[bytes, ...]
    file: int | None = None


def elf(machine: str = MACHINE) -> bytes:
    """Return the program as a file: one segment that can be read and executed, and a stack that cannot."""
    number, code = _CODE[machine]
    size = _HEADER_BYTES + len(code)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, number, 1, _AT + _HEADER_BYTES, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _AT, _AT, size, size, 4096)
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)
    return header + load + stack + code


@functools.cache
def _life() -> int:
    """Return the end of a pipe whose other end is open as long as this process lives."""
    return os.pipe()[0]


def in_memory() -> int:
    """Return the program as a file in memory. Raises `OSError`."""
    file = os.memfd_create("execsrv-start", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(file, elf())
    with suppress(OSError):  # a safeguard against ourselves alone
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return file


def on_disk() -> int:
    """Return the program as a file without a name, which nobody else can open to write. Raises `OSError`."""
    import tempfile  # few machines need it

    writable = os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o500)
    try:
        os.write(writable, elf())
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)  # or it could not be executed


def in_file(make: Callable[[], int]) -> Interpreter | None:
    """Return the program in a file that is made so, None where that cannot be made or executed.

    Raises `OSError` for want of something that may be there the next time.
    """
    file: int | None = None
    try:
        file = make()
        found = Interpreter(b"/proc/self/fd/%d" % PROGRAM, (b"execsrv-start",), file)
        _reap(carry_out(_trial(), found).leader)
    except (OSError, ReportedError) as error:
        if file is not None:
            os.close(file)
        if isinstance(error, OSError) and error.errno in SHORTAGES:
            raise
        return None
    return found


@functools.cache
def in_machine_code() -> Interpreter | None:
    """Return the program in machine code, None where no such file can be executed or the machine is another.

    Raises `OSError` as `in_file` does.
    """
    return (in_file(in_memory) or in_file(on_disk)) if is_known else None


def in_python() -> Interpreter:
    """Return the program in Python, which takes 25 ms more.

    None is kept ready: each start would take as much processor time to replace it, and it would hold 10 MiB until then.
    """
    source = Path(__file__).with_name("interpreter.py").read_bytes()
    return Interpreter(os.fsencode(sys.executable), (os.fsencode(sys.executable), b"-I", b"-S", b"-c", source))


def interpreter() -> Interpreter:
    """Return the program that starts commands here. Raises `OSError`."""
    try:
        return in_machine_code() or in_python()
    except OSError:  # for now
        return in_python()


def _trial() -> Table:
    table = Table()
    table.report(READY)
    table.call("exit", "exit_group", 0)
    return table


def carry_out(
    table: Table,
    by: Interpreter,
    *,
    stdio: Sequence[int] = (0, 1, 2),
    inherited: Inherited | None = None,
    child: ctypes.c_int | None = None,
) -> Pids:
    """Carry out a table that ends in exec, and return once it has. `child` gets the pid of the command in the end.

    Where the table says so, the command is not the program itself, but forked by it as a child of ours.

    Raises `OSError` where there is no program to do so, and `ReportedError` for a row that failed. Then nothing is left
    behind. Blocks as long as the file systems do that the table asks.
    """
    program = ctypes.c_int()
    read, write = os.pipe()
    try:
        try:
            _spawn(table, by, stdio, inherited, write, program)
        finally:
            os.close(write)
        reports = dict[int, int]()
        failed: tuple[int, int] | None = None
        for tag, value in _read_reports(read):
            reports[tag] = value
            if tag >= BASE:
                failed = tag, value
    finally:
        os.close(read)
    pids = Pids(reports.get(LEADER, program.value), reports.get(REAPER))
    if failed is not None or READY not in reports:
        dismiss(pids)
        if pids.leader != program.value:
            dismiss(Pids(program.value, None))
        if failed is None:
            raise ReportedError("starter", errno.EIO)
        raise ReportedError(table.name_at(failed[0]), -failed[1])
    if pids.leader != program.value:
        _reap(program.value)
    if child is not None:
        child.value = pids.leader
    return pids


def _spawn(
    table: Table,
    by: Interpreter,
    stdio: Sequence[int],
    inherited: Inherited | None,
    write: int,
    program: ctypes.c_int,
) -> None:
    with stream_ends.Descriptors() as lent:
        lent.append(fcntl.fcntl(write, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE))
        image = os.memfd_create("execsrv-table", os.MFD_CLOEXEC)
        try:
            table.write(image)
            lent.append(fcntl.fcntl(image, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE))
        finally:
            os.close(image)
        lent.append(fcntl.fcntl(_life(), fcntl.F_DUPFD_CLOEXEC, FIRST_FREE))
        if by.file is not None:
            lent.append(fcntl.fcntl(by.file, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE))
        posix_spawn.start(Command(by.program, by.argv, (), None, inherited=inherited), None, stdio, program, lent=lent)


def _read_reports(pipe: int) -> list[tuple[int, int]]:
    text = b""
    while piece := os.read(pipe, 4096):
        text += piece
    return list(struct.iter_unpack("<Qq", text[: len(text) // 16 * 16]))


def dismiss(pids: Pids) -> None:
    """Kill and reap what a start has made, as long as nobody else knows of it."""
    made = [pid for pid in pids if pid is not None]
    for pid in made:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in made:  # the reaper last, which is not gone before the others are reaped
        _reap(pid)


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):  # the reaper of strays was faster, or it is reaped already
        os.waitpid(pid, 0)
