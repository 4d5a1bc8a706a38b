"""A table of system calls, as the program between spawn and exec reads it.

A row is twelve numbers of 64 bits: the call and its six arguments; the addresses of the rows that follow upon an error,
upon 0 and upon anything greater; the address that the result is written to; and a spare one. Upon an error that has no
row to follow, the program reports the row and the number of the error, and ends. The rows lie at `BASE`, the texts and
structures that they point to at `DATA`, and nothing is decided any more once a table is made.

Descriptors in a table have the numbers that the kernel will give them: it gives out the lowest that is free, the
program has one thread, and `Table` counts along.
"""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass

from execsrv._processes.confine.syscalls import NUMBERS

BASE = 0x10000000
DATA = BASE + 0x40000
MAPPED_BYTES = 1 << 24
"""So much is mapped at `BASE`: rows, and data with the arguments and the environment of the command."""

REPORT, IMAGE, LIFE, PROGRAM = 3, 4, 5, 6
"""Descriptors that the program begins with: the pipe for its reports, its table, a pipe that is at its end when the
server is gone, and in most cases its own file."""

FIRST_FREE = 7

AT_FDCWD = -100
"""The working directory, for calls that take a directory."""

MOST_ROWS = (DATA - BASE) // 96

_ROW, _CELL = struct.Struct("<12Q"), struct.Struct("<Q")
_ZERO = 8  # the place of the row that follows upon 0


@dataclass(frozen=True, slots=True)
class Row:
    """A place in the table, with the name by which its failure is told."""

    index: int
    name: str

    @property
    def address(self) -> int:
        return BASE + self.index * _ROW.size


class TooLargeError(Exception):
    """A table would have more rows or data than there is room for."""


class Table:
    """A table in the making. Rows are carried out in the order in which they are added, unless they say otherwise."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._packed = bytearray()
        self._data = bytearray()
        self._open = {0, 1, 2, REPORT, LIFE}
        for descriptor in (REPORT, LIFE):
            self.call("close", "fcntl", descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        self.call("close", "close", IMAGE)
        self.call("close", "close", PROGRAM, optional=True)

    def copy(self) -> Table:
        """Return a table with the same rows, to which others may be added."""
        copied: Table = Table.__new__(Table)
        copied.rows = self.rows.copy()
        copied._packed, copied._data, copied._open = self._packed.copy(), self._data.copy(), self._open.copy()
        return copied

    def data(self, content: bytes) -> int:
        """Keep some bytes, aligned to 8, and return their address."""
        address = DATA + len(self._data)
        self._data += content + bytes(-len(content) % 8)
        if address + len(content) > BASE + MAPPED_BYTES:
            raise TooLargeError
        return address

    def text(self, content: bytes) -> int:
        """Keep a text with its end and return its address."""
        return self.data(content + b"\0")

    def texts(self, contents: tuple[bytes, ...]) -> int:
        """Keep a list of texts, as exec takes it, and return its address."""
        addresses = [self.text(content) for content in contents]
        return self.data(struct.pack(f"<{len(addresses) + 1}Q", *addresses, 0))

    def call(self, name: str, call: str, *arguments: int, optional: bool = False, store: int | None = None) -> Row:
        """Add a row, whose failure is told by `name`. An `optional` one may fail. `store` is where its result goes."""
        row = Row(len(self.rows), name)
        if row.index >= MOST_ROWS:
            raise TooLargeError
        following = row.address + _ROW.size
        six = [argument & 2**64 - 1 for argument in arguments] + [0] * (6 - len(arguments))
        spare = row.address + 88
        self.rows.append(row)
        self._packed += _ROW.pack(
            NUMBERS[call], *six, following if optional else 0, following, following, store or spare, 0
        )
        return row

    def open(self, name: str, call: str, *arguments: int) -> int:
        """Add a row that opens a descriptor, and return the number that it will have."""
        descriptor = next(number for number in range(MOST_ROWS) if number not in self._open)  # a row opens one at most
        self._open.add(descriptor)
        self.call(name, call, *arguments)
        return descriptor

    def close(self, descriptor: int) -> None:
        """Add a row that closes a descriptor."""
        self._open.remove(descriptor)
        self.call("close", "close", descriptor)

    def report(self, tag: int, value: int | None = None) -> int:
        """Add a row that reports `tag`, and return the address of the number that goes with it."""
        address = self.data(struct.pack("<2Q", tag, value or 0))
        self.call("report", "write", REPORT, address, 16)
        return address + 8

    def fork(self, name: str, flags: int, tag: int) -> Row:
        """Add rows that fork and report the child's pid under `tag`. The child begins where `begins` says."""
        report = self.data(struct.pack("<2Q", tag, 0))
        row = self.call(name, "clone", flags, store=report + 8)
        self.call("report", "write", REPORT, report, 16)
        return row

    def begins(self, child: Row) -> None:
        """Have the child of a `fork` go on with the row that is added next."""
        _CELL.pack_into(self._packed, child.index * _ROW.size + _ZERO * _CELL.size, BASE + len(self._packed))

    def name_at(self, address: int) -> str:
        """Return the name of the row at an address."""
        index = (address - BASE) // _ROW.size
        return self.rows[index].name if 0 <= index < len(self.rows) else "starter"

    def write(self, file: int) -> None:
        """Write it into an empty file."""
        os.pwrite(file, self._packed, 0)
        data, offset = memoryview(self._data), DATA - BASE
        while data:
            written = os.pwrite(file, data, offset)
            data, offset = data[written:], offset + written
