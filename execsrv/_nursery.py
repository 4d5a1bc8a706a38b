"""Nurseries for helpers of a block that is somebody else's code, and tasks whose failure is to stay their own."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

T = TypeVar("T")

logger = logging.getLogger(__name__)


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_helpers() -> AsyncIterator[trio.Nursery]:
    """Open a nursery whose tasks are cancelled when the block is left.

    An error of the block leaves as the very object that it is, never in a group, so that a caller can catch what it
    knows. The one error of a task leaves as itself too. When both failed, the task's error is the cause of the
    block's. `trio.Cancelled` leaves only through the nursery, alone or in a group: outside of it no scope would own it.
    """
    of_block: BaseException | None = None
    of_tasks: BaseException | None = None
    cancelled: BaseException | None = None
    context: BaseException | None = None
    errors: list[BaseException] = []
    try:
        try:
            async with trio.open_nursery() as nursery:
                try:
                    yield nursery
                except BaseException as error:
                    cancelled, of_block = _split_own(error)
                if cancelled is not None:
                    raise cancelled
                nursery.cancel_scope.cancel()
        except BaseException as error:
            cancelled, of_tasks = map(alone, split(error))
        else:
            cancelled = None
        if of_block is not None and of_tasks is not None:
            # Who ends the program (an interrupt, an exit) is not to be caught as anything less.
            if isinstance(of_block, Exception) and not isinstance(of_tasks, Exception):
                of_block, of_tasks = of_tasks, of_block
            blame(of_block, of_tasks)
        errors = [error for error in (of_block, of_tasks, cancelled) if error is not None]
        if errors:
            context = errors[0].__context__
            try:
                raise errors[0]
            finally:
                errors[0].__context__ = context  # to raise it here has added the cancel of the block
    finally:
        # They hold this frame, which would hold them until the next garbage collection.
        of_block = of_tasks = cancelled = context = None
        errors.clear()


def split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Return what an error says of a cancel, and the rest of it, each None where there is none of it."""
    if isinstance(error, trio.Cancelled):
        return error, None
    if not isinstance(error, BaseExceptionGroup):
        return None, error
    cancelled, rest = error.split(trio.Cancelled)
    if cancelled is None:
        return None, error  # as the object that it is
    return cancelled, rest


def _split_own(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Split an error where it has arrived: a cancel that nobody there has asked for is an error too."""
    cancelled, rest = split(error)
    if cancelled is None or is_cancelled():
        return cancelled, rest
    if rest is None:
        rest = RuntimeError("a cancel has left its scope")
        rest.__cause__ = error
    return None, rest


def alone(error: BaseException | None) -> BaseException | None:
    """Return the one error that groups are wrapped around, or the group of several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def blame(error: BaseException, cause: BaseException) -> None:
    """Name `cause` as the first of what led to `error`."""
    chain = [error]
    while (earlier := chain[-1].__cause__) is not None and all(earlier is not known for known in chain):
        chain.append(earlier)
    if all(cause is not known for known in chain):
        chain[-1].__cause__ = cause


def is_cancelled() -> bool:
    """Return True where a scope around the current task is cancelled, and no shield is in between."""
    return trio.current_effective_deadline() == -math.inf


@trio.lowlevel.enable_ki_protection
async def owned(task: Callable[..., Awaitable[T]], *args: object) -> T:
    """Await a task, and let `trio.Cancelled` leave it only if it is cancelled from outside.

    An interrupt of the program goes to its main task: one in here could fall into the middle of ending a command.

    A nursery takes any `Cancelled` of its tasks for its own: one that belongs to no scope would end all of them
    without a word. It becomes a `RuntimeError`, or is left out beside another error.
    """
    try:
        return await task(*args)
    except BaseException as error:
        cancelled, rest = _split_own(error)
        try:
            if rest is None or cancelled is not None:
                raise
            raise rest
        finally:
            del cancelled, rest  # they hold this frame


@trio.lowlevel.enable_ki_protection
async def contain(name: str, task: Callable[..., Awaitable[object]], *args: object) -> bool:
    """Await a task, log the error that it ends with, and return whether there was none.

    Nothing leaves it but a cancel from outside, and what ends the program. An interrupt goes to the main task.
    """
    try:
        await task(*args)
    except BaseException as error:
        cancelled, rest = _split_own(error)
        rest = alone(rest)
        try:
            if rest is not None and not isinstance(rest, Exception):
                raise
            if rest is not None:
                logger.error("%s failed", name, exc_info=rest)
            if cancelled is not None:
                raise cancelled from None
            return False
        finally:
            del cancelled, rest  # they hold this frame
    return True


@trio.lowlevel.enable_ki_protection
async def happened(event: trio.Event) -> None:
    """Wait for an event, as `event.wait` does, from code into which an interrupt of the program may fall.

    One that fell into trio's own `wait` would leave the task among those which the event wakes: long after its end,
    what ends the whole run at once, with nothing cleaned up.
    """
    await event.wait()


@trio.lowlevel.enable_ki_protection
async def started(nursery: trio.Nursery, task: Callable[..., Awaitable[object]], *args: object) -> Any:
    """Start a task as `nursery.start` does, which before trio 0.34 takes its cause from the error that it raises."""
    cause: BaseException | None = None

    @trio.lowlevel.enable_ki_protection
    async def remember(*, task_status: trio.TaskStatus[Any]) -> None:
        nonlocal cause
        try:
            await task(*args, task_status=task_status)
        except BaseException as error:
            cause = error.__cause__
            raise

    try:
        return await nursery.start(remember, name=task)
    except BaseException as error:
        if cause is not None:
            error.__cause__ = cause
        raise
    finally:
        cause = None  # it holds this frame


def check_trio() -> None:
    """Raise `RuntimeError` where trio does not run: under asyncio, or in plain code."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise RuntimeError(
            "execsrv needs trio: use it in a function that `trio.run` runs; under asyncio there is `execsrv.asyncio`"
        ) from None
