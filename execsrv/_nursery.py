"""A nursery for helpers of a block that is somebody else's code, and the question whether there can be one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_helpers() -> AsyncIterator[trio.Nursery]:
    """Open a nursery whose tasks are cancelled when the block is left.

    An error of the block leaves as the very object that it is, never in a group, so that a caller can catch what it
    knows. The one error of a task leaves as itself too. When both failed, the task's error is the cause of the
    block's. `trio.Cancelled` leaves only through the nursery, alone or in a group: outside of it no scope would own it.
    """
    of_block: BaseException | None = None
    of_tasks: BaseException | None = None
    cancelled: BaseException | None = None
    errors: list[BaseException] = []
    try:
        try:
            async with trio.open_nursery() as nursery:
                try:
                    yield nursery
                except BaseException as error:
                    cancelled, of_block = _split(error)
                if cancelled is not None:
                    raise cancelled
                nursery.cancel_scope.cancel()
        except BaseException as error:
            cancelled, of_tasks = map(_alone, _split(error))
        else:
            cancelled = None
        if of_block is not None and of_tasks is not None:
            # Who ends the program (an interrupt, an exit) is not to be caught as anything less.
            if isinstance(of_block, Exception) and not isinstance(of_tasks, Exception):
                of_block, of_tasks = of_tasks, of_block
            _blame(of_block, of_tasks)
        errors = [error for error in (of_block, of_tasks, cancelled) if error is not None]
        if errors:
            context = errors[0].__context__
            try:
                raise errors[0]
            finally:
                errors[0].__context__ = context  # to raise it here has added the cancel of the block
    finally:
        # They hold this frame, which would hold them until the next garbage collection.
        of_block = of_tasks = cancelled = None
        errors.clear()


def _split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Return what an error says of a cancel, and the rest of it, each None where there is none of it."""
    if isinstance(error, trio.Cancelled):
        return error, None
    if not isinstance(error, BaseExceptionGroup):
        return None, error
    cancelled, rest = error.split(trio.Cancelled)
    if cancelled is None:
        return None, error  # as the object that it is
    return cancelled, rest


def _alone(error: BaseException | None) -> BaseException | None:
    """Return the one error that groups are wrapped around, or the group of several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _blame(error: BaseException, cause: BaseException) -> None:
    """Name `cause` as the first of what led to `error`."""
    chain = [error]
    while (earlier := chain[-1].__cause__) is not None and all(earlier is not known for known in chain):
        chain.append(earlier)
    if all(cause is not known for known in chain):
        chain[-1].__cause__ = cause


def check_trio() -> None:
    """Raise `RuntimeError` where trio does not run: under asyncio, or in plain code."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise RuntimeError("execsrv needs trio: use it in a function that `trio.run` runs, not under asyncio") from None
