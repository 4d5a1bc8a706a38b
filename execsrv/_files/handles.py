"""Open files of one channel, read and written in blocks.

Requests on one handle take effect in the order in which they came, so that a client may send block after block, and the
close behind them, without waiting. Handles do not wait for each other. A read that fails closes its handle, as in the
Codex exec-server, whose clients then send no close. A write that fails leaves it open.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from execsrv._budget.budget import Budget
from execsrv._files.contents import checksum, open_file, replace_file, write_at
from execsrv._files.roots import Place, failure
from execsrv._nursery import happened
from execsrv.errors import FileRefusedError, NotFoundError

MAX_ID_BYTES = 32
MAX_OFFSET = 2**63 - 1

_FLAGS = {
    "read": os.O_RDONLY,
    "update": os.O_RDWR | os.O_CREAT,
    "append": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "create": os.O_RDWR | os.O_CREAT | os.O_EXCL,
}


class Handle:
    """One open file, or one that is about to be opened. `open`, `read`, `write` and `close` block: for threads."""

    def __init__(self, id: str) -> None:
        self.id = id
        self._descriptor: int | None = None
        # A thread may still be in a read when the channel has gone: only then do two want it at once.
        self._in_use = threading.Lock()
        self.is_over = False
        """True once it is closed, or is just being closed."""
        self._last_turn = trio.Event()
        self._last_turn.set()

    def take_turn(self) -> Turn:
        """Return the next place in the order of the requests on this handle."""
        before, self._last_turn = self._last_turn, trio.Event()
        return Turn(before, self._last_turn)

    def open(self, place: Place, mode: str, permissions: int | None, *, alone: bool = False) -> None:
        """Open the file at a place, in one of the modes of `fs/open`. `permissions` are for a file that is made.

        Raises `OSError`: EAGAIN where it is to be `alone`, and is not.
        """
        with self._in_use:
            if self.is_over:  # the channel has gone meanwhile
                raise unknown_handle(self.id)
            made_with = 0o666 if permissions is None else permissions
            if mode == "replace":
                self._descriptor = replace_file(place, made_with)
            else:
                self._descriptor = open_file(place, _FLAGS[mode], made_with)
            if alone:
                try:
                    _lock(place, self._descriptor)
                except OSError:
                    self._close()
                    raise

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes, or fewer at the end of the file. A failure closes the handle."""
        with self._in_use:
            descriptor = self._opened()
            try:
                if offset > MAX_OFFSET:
                    raise failure(errno.EINVAL)
                return _read_at(descriptor, size, offset)
            except OSError:
                self._close()
                raise

    def write(self, offset: int, data: bytes) -> None:
        """Write all the data at an offset, in bytes."""
        with self._in_use:
            write_at(self._opened(), data, offset)

    def checksum(self, offset: int, size: int) -> tuple[str, int]:
        """Return the SHA-256 of what is there, and the number of bytes that it is of."""
        with self._in_use:
            descriptor = self._opened()
            if offset + size > MAX_OFFSET:
                raise failure(errno.EINVAL)
            return checksum(descriptor, offset, size)

    def close(self) -> None:
        """Close the file; closing it again does nothing. Raises `OSError` for a failed write that is told only now."""
        with self._in_use:
            self.is_over = True
            self._close()

    def _opened(self) -> int:
        if self._descriptor is None:
            raise unknown_handle(self.id)
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


def _read_at(descriptor: int, size: int, offset: int) -> bytes:
    data = os.pread(descriptor, size, offset)
    while data and len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
        data += more
    return data


def _lock(place: Place, descriptor: int) -> None:
    """Keep whoever locks it too out of a file. Raises `OSError`: EAGAIN where somebody has it, or has just moved it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise
        return  # the file system has no locks
    try:
        is_there = os.path.samestat(place.status(), os.fstat(descriptor))
    except FileNotFoundError:
        is_there = False
    if not is_there:
        raise failure(errno.EAGAIN)


class Turn:
    """One place in the order of the requests on a handle, to be entered once."""

    def __init__(self, before: trio.Event, done: trio.Event) -> None:
        self._before = before
        self._done = done

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Wait until the turns before are over. Leaving the block lets the next one in."""
        try:
            await happened(self._before)
            yield
        finally:
            self._done.set()


class Handles:
    """Handles of one channel, by the ids that the client chose."""

    def __init__(self, most: int, budget: Budget) -> None:
        """At most so many, of those that the budget has. `give_up` must follow."""
        self._most = most
        self._budget = budget
        self._by_id: dict[str, Handle] = {}
        self._open: set[Handle] = set()  # those too whose id is free again while the close waits for its turn

    def __len__(self) -> int:
        return len(self._open)

    def claim(self, id: str) -> Handle:
        """Return a new handle, not open yet. Raises `FileRefusedError` and `LimitExceededError`."""
        self._check(id)
        if id in self._by_id:
            raise FileRefusedError(f"file handle `{id}` already exists")
        if len(self._open) >= self._most:
            raise FileRefusedError(f"at most {self._most} file handles may be open per connection")
        self._budget.take()
        self._by_id[id] = handle = Handle(id)
        self._open.add(handle)
        return handle

    def find(self, id: str) -> Handle:
        """Return the handle of an id. Raises `NotFoundError`, and `FileRefusedError` for an id that is too long."""
        self._check(id)
        if id not in self._by_id:
            raise unknown_handle(id)
        return self._by_id[id]

    def free_id(self, handle: Handle) -> None:
        """Free the id of a handle for another one."""
        if self._by_id.get(handle.id) is handle:
            del self._by_id[handle.id]

    def forget(self, handle: Handle) -> None:
        """Count a handle as closed, and free its id."""
        self.free_id(handle)
        if handle in self._open:
            self._open.discard(handle)
            self._budget.give()

    def give_up(self) -> list[Handle]:
        """Give back the places of all that are open, and return these: there is nobody left who could use them."""
        handles = list(self._open)
        self._budget.give(len(handles))
        self._open.clear()
        return handles

    def _check(self, id: str) -> None:
        if len(id.encode(errors="replace")) > MAX_ID_BYTES:
            raise FileRefusedError(f"file handle ID must not exceed {MAX_ID_BYTES} bytes")


def close_all(handles: list[Handle]) -> None:
    """Close every one of them, each when the thread that is using it lets go. Blocks; for a thread."""
    for handle in handles:
        try:
            handle.close()
        except OSError:
            pass  # there is nobody left to tell


def unknown_handle(id: str) -> NotFoundError:
    """Return the error for an id that names no open file."""
    return NotFoundError(f"unknown file handle `{id}`")
