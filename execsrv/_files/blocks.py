"""Open files of one channel, read and written in blocks: `fs/open`, `fs/readBlock`, `fs/writeBlock`, `fs/checksum`,
`fs/close`.

Each method does at once what must keep the order of the requests: it claims an id and takes a turn. It returns the
rest, which works in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import trio

from execsrv._files.handles import MAX_OFFSET, Handle, Handles, Turn, close_all
from execsrv._files.rules import Use
from execsrv._files.threads import Call, Work
from execsrv._threads import run_in_thread
from execsrv.errors import (
    BusyError,
    FileError,
    FileRefusedError,
    LimitExceededError,
    NotFoundError,
    RequestError,
    SandboxUnavailableError,
)
from execsrv.protocol import Block, BlockChecksum, BlockRead, BlockWrite, Checksum, FileHandle, FileOpen, Nothing

_CLOSE_SECONDS = 0.5
"""Seconds that the end of a channel waits for its files to close, should the file system hang."""


class Blocks:
    """Block methods of one channel, with the handles that they own. `aclose` must follow."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._handles = Handles(work.config.file_handles, work.allowance.handles)

    async def aclose(self) -> None:
        """Close every open file. Where the file system hangs, that goes on in a thread that is left behind."""
        if not (handles := self._handles.give_up()):
            return
        with trio.move_on_after(_CLOSE_SECONDS, shield=True):
            try:
                # A limiter of its own: every other place may be taken by what hangs.
                await run_in_thread(partial(close_all, handles), trio.CapacityLimiter(1))
            except BusyError:
                close_all(handles)

    def open(self, params: FileOpen) -> Call[FileHandle]:
        """Open a file for blocks. Raises `FileRefusedError`."""
        self._work.path(params)
        self._work.roots_of(params)
        handle = self._handles.claim(params.handle_id)
        return self._open(handle, handle.take_turn(), params)

    async def _open(self, handle: Handle, turn: Turn, params: FileOpen) -> FileHandle:
        async with turn.taken():
            with self._forgotten_on(handle, FileError, SandboxUnavailableError, LimitExceededError, BusyError):
                mode = params.mode or "read"
                use: Use = "read" if mode == "read" else "write"
                await self._work.in_place(
                    params, lambda place: handle.open(place, mode, params.permissions, alone=params.alone), use=use
                )
        return FileHandle(handle.id)

    def read_block(self, params: BlockRead) -> Call[Block]:
        """Return a piece of an open file. Raises `NotFoundError` and `FileRefusedError`."""
        self._check_block("read", params.len)
        handle = self._find(params.handle_id)
        return self._read_block(handle, handle.take_turn(), params)

    async def _read_block(self, handle: Handle, turn: Turn, params: BlockRead) -> Block:
        async with turn.taken():
            with self._forgotten_on(handle, FileError), self._work.allowance.for_files.taken_for(params.len):
                chunk = await self._work.in_thread(lambda: handle.read(params.offset, params.len))
        return Block(chunk, eof=len(chunk) < params.len)

    def write_block(self, params: BlockWrite) -> Call[Nothing]:
        """Write a piece of an open file. Raises `NotFoundError`, `FileRefusedError` and `BusyError`."""
        self._check_block("write", len(params.chunk))
        if params.offset + len(params.chunk) > MAX_OFFSET:
            raise FileRefusedError("file write range exceeds the signed 64-bit file offset limit")
        handle = self._find(params.handle_id)
        self._work.check_queue(len(params.chunk))
        turn = handle.take_turn()
        return self._work.write(len(params.chunk), lambda: self._write_block(handle, turn, params))

    async def _write_block(self, handle: Handle, turn: Turn, params: BlockWrite) -> None:
        async with turn.taken():
            await self._work.in_thread(lambda: handle.write(params.offset, params.chunk))

    def checksum(self, params: BlockChecksum) -> Call[Checksum]:
        """Return the checksum of a piece of an open file. Raises `NotFoundError`."""
        handle = self._find(params.handle_id)
        return self._checksum(handle, handle.take_turn(), params)

    async def _checksum(self, handle: Handle, turn: Turn, params: BlockChecksum) -> Checksum:
        async with turn.taken():
            return Checksum(*await self._work.in_thread(lambda: handle.checksum(params.offset, params.len)))

    def close(self, params: FileHandle) -> Call[Nothing]:
        """Close an open file when everything asked of it before is done. An id that names no open file is accepted."""
        try:
            handle = self._find(params.handle_id)
        except NotFoundError:
            return _nothing()
        self._handles.free_id(handle)
        return self._close(handle, handle.take_turn())

    async def _close(self, handle: Handle, turn: Turn) -> Nothing:
        async with turn.taken():
            try:
                await self._work.in_thread(handle.close)
            except (BusyError, LimitExceededError):
                handle.close()  # which gives something back
            finally:
                if handle.is_over:  # or else it was cancelled, and is closed with the channel
                    self._handles.forget(handle)
        return Nothing()

    @contextmanager
    def _forgotten_on(self, handle: Handle, *errors: type[RequestError]) -> Iterator[None]:
        """Forget the handle, and free its id, when opening or reading it fails by one of these: it is closed then."""
        try:
            yield
        except errors:
            self._handles.forget(handle)
            raise

    def _find(self, id: str) -> Handle:
        self._work.check_allowed()
        return self._handles.find(id)

    def _check_block(self, what: str, size: int) -> None:
        most = self._work.config.file_block_bytes
        if not 1 <= size <= most:
            raise FileRefusedError(f"file {what} block length must be between 1 and {most}")


async def _nothing() -> Nothing:
    return Nothing()
