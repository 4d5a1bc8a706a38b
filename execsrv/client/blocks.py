"""Contents of files as a flow of blocks, several under way at a time, compared by SHA-256 piece by piece.

Every block has its offset, so one that was answered by nobody, because the connection was interrupted, is simply asked
for again. What is under way is all that is held in memory.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from execsrv.client.file_bounds import check_block
from execsrv.client.file_handles import Asked, OpenFile
from execsrv.errors import FileError
from execsrv.protocol import Block, BlockChecksum, BlockRead, BlockWrite, Checksum, Nothing

if TYPE_CHECKING:
    from hashlib import _Hash

BLOCK_BYTES = 256 * 1024
"""Bytes that one message carries: any server takes so much, and more in one was no faster."""

AHEAD = 16
"""Blocks under way for one file."""

_PIECE_BLOCKS = 32
"""Blocks that one checksum is of."""

Progressed = Callable[[int], None]
"""Function that is told the number of bytes done so far."""


class _Piece(Struct):
    """A part of the file, and the checksum of what we have sent or received of it."""

    offset: int
    sha256: str
    size: int

    def make(self, handle: str) -> BlockChecksum:
        return BlockChecksum(handle, self.offset, self.size)


def _write(offset: int, chunk: bytes) -> Callable[[str], BlockWrite]:
    return lambda handle: BlockWrite(handle, offset, chunk)


def _read(offset: int) -> Callable[[str], BlockRead]:
    return lambda handle: BlockRead(handle, offset, BLOCK_BYTES)


Read = Callable[[int, int, "_Hash"], Awaitable[bytes]]
"""Function that gives what is at an offset, so many bytes at the most, and adds it to a hash."""

Write = Callable[[int, bytes, "_Hash"], Awaitable[None]]
"""Function that takes what is at an offset, and adds it to a hash."""


async def send(file: OpenFile, read: Read, progressed: Progressed, begin: int = 0) -> int:
    """Write what `read` gives for offset and size, until it gives nothing, and return the number of bytes.

    What is before `begin` is there already. `read` adds what it returns to the hash.

    Raises `FileError` where the server has other bytes afterwards.
    """
    waiting: deque[tuple[Asked, int | _Piece]] = deque()
    offset = begin
    sha256 = hashlib.sha256()
    while True:
        chunk = await read(offset, BLOCK_BYTES, sha256)
        if chunk:
            asked = await file.post("fs/writeBlock", _write(offset, chunk))
            offset += len(chunk)
            waiting.append((asked, offset))
        if offset > begin and (not chunk or offset - begin >= _PIECE_BLOCKS * BLOCK_BYTES):
            piece = _Piece(begin, sha256.hexdigest(), offset - begin)
            waiting.append((await file.post("fs/checksum", piece.make), piece))
            begin, sha256 = offset, hashlib.sha256()
        while len(waiting) > AHEAD or (waiting and not chunk):
            asked, what = waiting.popleft()
            if isinstance(what, _Piece):
                await _compare(file, asked, what, "the server has not what was sent")
            else:
                await file.answer(asked, Nothing)
                progressed(what)
        if not chunk:
            return offset


async def receive(file: OpenFile, size: int, write: Write, progressed: Progressed, begin: int = 0) -> int:
    """Read a file that seems to have `size` bytes to its end, give each block to `write`, return the number of bytes.

    What is before `begin` is here already. `write` adds what it is given to the hash.

    Raises `FileError` where the file has changed meanwhile.
    """
    blocks: deque[Asked] = deque()
    pieces: deque[tuple[Asked, _Piece]] = deque()
    offset = ahead = begin
    sha256 = hashlib.sha256()
    while True:
        while len(blocks) < AHEAD and (ahead <= size or not blocks):
            blocks.append(await file.post("fs/readBlock", _read(ahead)))
            ahead += BLOCK_BYTES
        block = await file.answer(blocks.popleft(), Block)
        check_block(block, BLOCK_BYTES)
        if block.chunk:
            await write(offset, block.chunk, sha256)
            offset += len(block.chunk)
            progressed(offset)
        if offset > begin and (block.eof or offset - begin >= _PIECE_BLOCKS * BLOCK_BYTES):
            piece = _Piece(begin, sha256.hexdigest(), offset - begin)
            pieces.append((await file.post("fs/checksum", piece.make), piece))
            begin, sha256 = offset, hashlib.sha256()
        while pieces and (block.eof or len(pieces) > 1):
            await _compare(file, *pieces.popleft(), "the file has changed while it was read")
        if block.eof:
            return offset


async def agreed(file: OpenFile, size: int, read: Read) -> int:
    """Return how many of the first `size` bytes of a file of the server are those that `read` gives, in whole pieces.

    `size` itself ends a piece too.
    """
    offset = 0
    while offset < size:
        sha256 = hashlib.sha256()
        begin, end = offset, min(size, offset + _PIECE_BLOCKS * BLOCK_BYTES)
        while offset < end and (chunk := await read(offset, min(BLOCK_BYTES, end - offset), sha256)):
            offset += len(chunk)
        piece = _Piece(begin, sha256.hexdigest(), end - begin)
        found = await file.ask("fs/checksum", piece.make, Checksum)
        if offset < end or (found.sha256, found.len) != (piece.sha256, piece.size):
            return begin
    return offset


async def _compare(file: OpenFile, asked: Asked, piece: _Piece, complaint: str) -> None:
    found = await file.answer(asked, Checksum)
    if (found.sha256, found.len) != (piece.sha256, piece.size):
        # It may have come before a block that had to be sent again. All are there now.
        found = await file.ask("fs/checksum", piece.make, Checksum)
    if (found.sha256, found.len) != (piece.sha256, piece.size):
        raise FileError(f"{complaint}: other bytes between {piece.offset} and {piece.offset + piece.size}")
