"""The journal of `execsrv map`: a file that tells how far each line of input has come, so that another run goes on.

A line is written down before its command is started, and again with its result. What is torn at the end of the file,
by a death in the middle of a line, is cut off. It outlives our death by SIGKILL; a machine that loses its power may
forget the last seconds.
"""

from __future__ import annotations

import fcntl
import os
import stat
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal

import msgspec

from execsrv._wire.writing import write_all
from execsrv.errors import ExecsrvError

_VERSION = 1
_START = b'{"journal":'
_READ_BYTES = 1 << 20

State = Literal["new", "begun", "unknown", "ended", "failed"]
_STATES: tuple[State, ...] = ("new", "begun", "unknown", "ended", "failed")


_Number = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]


class _Record(msgspec.Struct, rename="camel"):
    """A line of the journal, as far as it is read again: the first one, a begin, or a result."""

    journal: int | None = None
    command: list[str] | None = None
    begun: _Number | None = None
    line: _Number | None = None
    input: str = ""
    exit_code: int | None = None
    error: str | None = None
    kind: str | None = None
    """The kind of an error, where there was no end."""

    @property
    def state(self) -> State:
        """How far a result says that its line has come. One that was not started is as good as new."""
        if self.exit_code is not None:
            return "failed" if self.exit_code or self.error is not None else "ended"
        return "unknown" if self.kind == "unknown" else "new"


class Journal:
    """What is known of each line of input, by its number from 1. Five bytes of memory a line."""

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self._path = path
        self._states = bytearray()
        self._sums = array("I")

    def state(self, number: int, line: str) -> State:
        """Return how far a line has come. Raises `ExecsrvError` where another line had its number."""
        if number > len(self._states) or not self._sums[number - 1]:
            return "new"
        if self._sums[number - 1] != _sum(line):
            raise ExecsrvError(
                f"line {number} is not the one that it was when the journal `{self._path}` was written:"
                " a journal goes with one input"
            )
        return _STATES[self._states[number - 1]]

    def begin(self, number: int, line: str) -> None:
        """Write down that the command of a line is about to start. Raises `OSError`."""
        self.write(msgspec.json.encode({"begun": number, "input": line}) + b"\n")

    def write(self, records: bytes) -> None:
        """Append whole records, each a line of JSON. Raises `OSError`."""
        try:
            write_all(self._descriptor, records)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from None

    def load(self, command: Sequence[str]) -> None:
        """Read what is there, and cut off what is torn, or begin with the command. Raises `ExecsrvError`."""
        head = msgspec.json.encode({"journal": _VERSION, "command": command}) + b"\n"
        start = os.pread(self._descriptor, len(_START), 0)
        if start != _START[: len(start)]:  # so no line of another file is read, however long
            raise self._wrong(1)
        whole = 0
        for number, text in enumerate(_lines(self._descriptor), 1):
            if not text.endswith(b"\n") and (whole or head.startswith(text)):
                break
            try:
                record = msgspec.json.decode(text, type=_Record)
            except msgspec.MsgspecError:
                raise self._wrong(number) from None
            self._take(record, number, command)
            whole += len(text)
        os.ftruncate(self._descriptor, whole)
        if not whole:
            self.write(head)

    def _take(self, record: _Record, number: int, command: Sequence[str]) -> None:
        if number == 1:
            if record.journal != _VERSION or record.command is None:
                raise self._wrong(number)
            if record.command != list(command):
                raise ExecsrvError(f"the journal `{self._path}` is of another command: {record.command!r}")
        elif record.begun is not None:
            self._note(record.begun, record.input, "begun")
        elif record.line is not None:
            self._note(record.line, record.input, record.state)
        else:
            raise self._wrong(number)

    def _note(self, number: int, line: str, state: State) -> None:
        missing = number - len(self._states)
        if missing > 0:
            self._states.extend(bytes(missing))
            self._sums.extend([0] * missing)
        self._states[number - 1] = _STATES.index(state)
        self._sums[number - 1] = _sum(line)

    def _wrong(self, number: int) -> ExecsrvError:
        return ExecsrvError(f"`{self._path}` is no journal of `execsrv map`: its line {number} is none of one")


@contextmanager
def open_journal(path: str, command: Sequence[str]) -> Iterator[Journal]:
    """Open a journal, a new one or one to go on with, for one run alone.

    Raises `OSError`, and `ExecsrvError` for another file or another command, and where another run has it open or what
    we print goes there.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ExecsrvError(f"cannot use the journal `{path}`: it is no regular file")
        for name, stream in (("stdout", 1), ("stderr", 2)):
            if os.path.sameopenfile(descriptor, stream):
                raise ExecsrvError(f"cannot use the journal `{path}`: {name} is the same file")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExecsrvError(f"cannot use the journal `{path}`: another `execsrv map` writes it") from None
        journal = Journal(descriptor, path)
        journal.load(command)
        yield journal
    finally:
        os.close(descriptor)


def _lines(descriptor: int) -> Iterator[bytes]:
    """Return the lines of a file, from its start, with their ends. The last one may have none."""
    with open(descriptor, "rb", buffering=_READ_BYTES, closefd=False) as file:
        yield from file


def _sum(line: str) -> int:
    """Return a checksum that is never 0."""
    return zlib.crc32(line.encode()) or 1
