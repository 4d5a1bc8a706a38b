"""Bounds of what a server answers of the content of a file."""

from __future__ import annotations

from execsrv.errors import BadAnswerError, LimitExceededError
from execsrv.protocol import Block


def check_size(size: int, most: int) -> None:
    """Raise `LimitExceededError` where so much of a file is not to be gathered."""
    if size > most:
        message = f"it has more than max_read_bytes ({most}); `open` reads it piece by piece"
        raise LimitExceededError(message, limit="max_read_bytes", value=most)


def check_block(block: Block, size: int) -> None:
    """Raise `BadAnswerError` for a block that is none of up to `size` bytes."""
    if len(block.chunk) > size:
        raise BadAnswerError("fs/readBlock", f"{len(block.chunk)} bytes, where {size} were asked for")
    if not block.chunk and not block.eof:
        raise BadAnswerError("fs/readBlock", "nothing, and no end")
