"""Open files of the server: one that outlives its channel, and the file object that users have.

A server closes the files of a channel that is lost. The file is then opened again by its path, as it is, at the first
request that finds it closed, if it is still there. What is read and written has its offset with it, so nothing is lost
or done twice.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import TypeVar

import trio
from msgspec import Struct

from execsrv.client.file_bounds import check_block, check_size
from execsrv.client.file_calls import FileCalls
from execsrv.client.file_info import FileInfo
from execsrv.client.file_paths import doing, sent
from execsrv.client.late import undo_if_late
from execsrv.client.parameters import Data, pieces
from execsrv.client.pending import PendingCall
from execsrv.errors import BusyError, ConnectionLostError, FileError, NotFoundError
from execsrv.protocol import (
    Block,
    BlockRead,
    BlockWrite,
    FileChange,
    FileHandle,
    FileOpen,
    FileStat,
    FileStatus,
    Nothing,
)
from execsrv.protocol.files import OpenMode

_REQUEST_BYTES = 1024 * 1024
"""Bytes that one request of a file object reads or writes: the most that a server takes by default."""

_BUSY_SECONDS = 0.05
_LEAVE_SECONDS = 5.0

_OPENINGS = 40
"""So often a file that may be open already, and is to be open alone, is asked for, before it is another's."""

_ids = count(1)

R = TypeVar("R", bound=Struct)


class Asked(Struct):
    """A request on an open file, and under which handle it was sent."""

    make: Callable[[str], Struct]
    method: str
    handle: str
    call: PendingCall


class OpenFile:
    """An open file, of one path and one mode, under one handle after the other. Its owner calls `close`.

    With `alone` it is one that nobody else has open so: else it is a `FileError` with EAGAIN.
    """

    def __init__(
        self, calls: FileCalls, path: str, mode: OpenMode, permissions: int | None = None, *, alone: bool = False
    ) -> None:
        self.path = path
        self.identity: tuple[int, int] | None = None
        """Device and inode of what was opened, where they are known: only that is opened again."""
        self._calls = calls
        self._mode: OpenMode = mode
        self._permissions = permissions
        self._alone = alone
        self._may_be_open = False  # on this channel, or on one before
        self._handle = ""
        self._opening = trio.Lock()

    async def open(self) -> None:
        """Open it, under a new handle. Raises `ConnectionLostError` where nobody can tell who has made the file."""
        for left in reversed(range(_OPENINGS)):
            handle = f"c{next(_ids)}"
            params = FileOpen(
                sent(self.path), handle_id=handle, mode=self._mode, permissions=self._permissions, alone=self._alone
            )
            # Cancelled before the answer, it is closed all the same: an id that names nothing is no error.
            self._handle = handle
            asked = await self._calls.post("fs/open", params)
            try:
                await self._calls.answer_to(asked, FileHandle)
                break
            except FileError as error:
                self._may_be_open |= asked.repeated
                if error.errno == errno.EAGAIN and self._may_be_open and left:
                    await trio.sleep(_BUSY_SECONDS)  # until the server has closed that of the channel before
                    continue
                if self._mode != "create" or not asked.repeated or error.errno != errno.EEXIST:
                    raise
                # To take it for ours would give one lock to two.
                raise ConnectionLostError(
                    f"the connection was interrupted while {self.path!r} was to be made: it is there,"
                    " and whether it was there before is not known"
                ) from error
        self._may_be_open = True
        if self._mode in ("replace", "create"):
            self._mode = "update"  # from now on it is taken as it is

    async def ask(self, method: str, make: Callable[[str], Struct], result: type[R]) -> R:
        """Ask for what `make` returns for a handle, and return the answer."""
        return await self.answer(await self.post(method, make), result)

    async def post(self, method: str, make: Callable[[str], Struct]) -> Asked:
        """Ask without waiting for the answer."""
        return Asked(make, method, self._handle, await self._calls.post(method, make(self._handle)))

    async def answer(self, asked: Asked, result: type[R]) -> R:
        """Wait for an answer; ask again where the file was closed with its channel, or the server was busy."""
        while True:
            try:
                return await self._calls.answer_to(asked.call, result)
            except BusyError:
                await trio.sleep(_BUSY_SECONDS)
            except NotFoundError as error:
                if error.errno:
                    raise
                await self._open_again(asked.handle)
            asked = await self.post(asked.method, asked.make)

    async def _open_again(self, closed: str) -> None:
        async with self._opening:
            if self._handle != closed:
                return
            if self._mode == "append":
                raise ConnectionLostError(
                    f"the connection was interrupted while {self.path!r} was open for appending:"
                    " how much has arrived is not known"
                )
            if self.identity is not None:
                await self.status()  # to open what is gone could make it anew
            await self.open()
            try:
                if self.identity is not None:
                    await self.status()
            except BaseException:
                await self.abandon(_LEAVE_SECONDS)  # nothing is to be written there later either
                raise

    async def status(self) -> FileStatus:
        """Return the facts of what is at its path. Raises `FileError` where that is known to be another file."""
        found = await self._calls.call("fs/stat", FileStat(sent(self.path)), FileStatus)
        if self.identity is not None and (found.device, found.inode) != self.identity:
            raise FileError("another file is at its path by now")
        return found

    async def close(self) -> None:
        """Close it. Raises the error of a write that is told only now."""
        await self._calls.call("fs/close", FileHandle(self._handle), Nothing)

    async def abandon(self, patience: float) -> None:
        """Close it whatever happens, within a time and cancelled or not."""
        # What the answer says does not matter: an error is under way already, or the file was only read.
        await self._calls.take_leave("fs/close", FileHandle(self._handle), patience)


class RemoteFile:
    """An open file on the server's machine, with a place in it, made by `Files.open`. All is bytes, without a buffer.

    For one task at a time, as any file. A file that is open while the connection is interrupted is opened again by its
    path; one for appending then raises `ConnectionLostError`. Where another file is there by then, it is a `FileError`.
    """

    def __init__(
        self, file: OpenFile, calls: FileCalls, mode: str, found: FileInfo | None, max_read_bytes: int
    ) -> None:
        """`found` are the facts of what was opened, None for one that is at its path no more."""
        self._file = file
        file.identity = None if found is None else (found.device, found.inode)
        self._max_read_bytes = max_read_bytes
        self._calls = calls
        self._mode = mode
        self._place = found.size if found is not None and mode == "ab" else 0
        self._busy = False
        self.closed = False
        """True once the block is left, or `aclose` was called."""

    def __repr__(self) -> str:
        return f"<RemoteFile {self.name!r} {'closed' if self.closed else self._mode}>"

    @property
    def name(self) -> str:
        """Path of the file."""
        return self._file.path

    async def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes from the place on, all up to the end for -1, nothing at the end.

        Cancelling loses nothing: the place stays. Raises `LimitExceededError` for more than `max_read_bytes`.
        """
        if not isinstance(size, int):
            raise TypeError(f"size must be a number of bytes, got {type(size).__name__}")
        found: list[bytes] = []
        with self._in_use("read"):
            left, place = size, self._place
            while left:
                ask = _REQUEST_BYTES if left < 0 else min(left, _REQUEST_BYTES)
                block = await self._read_at(place, ask)
                place += len(block.chunk)
                check_size(place - self._place, self._max_read_bytes)
                found.append(block.chunk)
                left -= len(block.chunk) if left > 0 else 0
                if block.eof:
                    break
            undo_if_late(partial(setattr, self, "_place", self._place))
            self._place = place
        return b"".join(found)

    async def _read_at(self, offset: int, size: int) -> Block:
        block = await self._file.ask("fs/readBlock", lambda handle: BlockRead(handle, offset, size), Block)
        check_block(block, size)
        return block

    async def write(self, data: Data) -> int:
        """Write all the data at the place, and return how many bytes they are. Cancelling may leave a part written."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes, got {type(data).__name__}")
        written = 0
        with self._in_use("write"):
            for piece in pieces(data, _REQUEST_BYTES):
                if piece:
                    offset = 0 if self._mode == "ab" else self._place

                    def make(handle: str, offset: int = offset, piece: bytes = piece) -> BlockWrite:
                        return BlockWrite(handle, offset, piece)

                    await self._file.ask("fs/writeBlock", make, Nothing)
                    self._place += len(piece)
                    written += len(piece)
        return written

    async def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the place, from the beginning, from where it is, or from the end; return it.

        The end is asked for by the path. Raises `FileError` where another file than the one opened is there by now.
        """
        with self._in_use("seek in"):
            if not isinstance(offset, int):
                raise TypeError(f"offset must be a number of bytes, got {type(offset).__name__}")
            if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
                raise ValueError(f"whence must be 0, 1 or 2, got {whence!r}")
            base = 0 if whence == io.SEEK_SET else self._place
            if whence == io.SEEK_END:
                base = (await self._file.status()).size
            if base + offset < 0:
                raise ValueError(f"offset {offset} leads before the beginning of the file")
            self._place = base + offset
        return self._place

    def tell(self) -> int:
        """Return the place. In a file that others append to as well, the end is further on."""
        return self._place

    async def truncate(self, size: int | None = None) -> int:
        """Cut the file, or make it longer, to `size` or to the place; return its size. The place stays.

        The server is asked to by the path. Raises `FileError` where another file than the one that was opened is there
        by now; one that comes there in that very moment is cut. Raises `io.UnsupportedOperation` for "rb".
        """
        size = self._place if size is None else size
        with self._in_use("truncate"):
            if self._mode == "rb":
                raise io.UnsupportedOperation(f"cannot truncate {self.name!r}: it is open for reading")
            await self._file.status()
            await self._calls.call("fs/change", FileChange(sent(self.name), size=size), Nothing)
        return size

    async def aclose(self) -> None:
        """Close the file; closing it again does nothing. Raises the error of a write that is told only now."""
        if not self.closed:
            self.closed = True
            with doing("close", self.name):
                await self._file.close()

    @contextmanager
    def _in_use(self, what: str) -> Iterator[None]:
        if self.closed:
            raise ValueError(f"cannot {what} {self.name!r}: the file is closed")
        if self._busy:
            raise trio.BusyResourceError(f"another task is using {self.name!r}")
        self._busy = True
        try:
            with doing(what, self.name):
                yield
        finally:
            self._busy = False
