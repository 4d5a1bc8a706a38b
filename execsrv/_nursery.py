"""A nursery for helpers of a block that is somebody else's code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_helpers() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks are cancelled when the block is left.

    An error of the block leaves as the very object that it is, never in a group, so that a caller can catch what it
    knows. The one error of a task leaves as itself too.
    """
    of_block: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except trio.Cancelled:
                raise
            except BaseException as error:
                of_block = error
            nursery.cancel_scope.cancel()
    except BaseException as error:
        if of_block is None:
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            raise error from error.__cause__
    if of_block is not None:
        raise of_block
