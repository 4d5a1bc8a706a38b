"""Work in the portal's thread: a call, and a block that is kept open until somebody leaves it.

A block has a task of its own, which enters and leaves it, and a nursery within it for the calls on what it gives and
for the blocks below it. So to leave a block is to cancel those, wait for them, and only then to leave.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import trio

from execsrv._nursery import alone, blame, split
from execsrv._portal.thread import Portal, used
from execsrv.client.late import Undo, noting
from execsrv.client.reader import Caller, caller

UNDO_SECONDS = 10.0
"""So long a call that was cancelled is waited for in any case. Who is asked again to stop waits no longer than that."""


class Call:
    """One call of an async function, and its outcome. It begins once, and ends once."""

    def __init__(
        self,
        function: Callable[[], Awaitable[Any]],
        block: Block | None,
        nursery: Callable[[], trio.Nursery | None],
        ring: Callable[[], object],
        who: Caller | None = None,
        *,
        undoes: bool = False,
    ) -> None:
        """`nursery` gives the nursery to run it in, None when `block` is closed. `ring` is called when it is done.

        One that `undoes` leaves no trace of what it has done when it is cancelled, however late.
        """
        self.is_undone = False
        """True when it was cancelled, and is done, and has left nothing behind."""
        self._is_done = False
        self._value: Any = None
        self._undo: Undo = []
        self._function = partial(noting, self._undo, function) if undoes else function
        self._block = block
        self._nursery = nursery
        self._ring = ring
        self._scope = trio.CancelScope()
        self._context = contextvars.copy_context()
        self._context.run(caller.set, who)
        self._error: BaseException | None = None
        self._is_begun = False

    def begin(self) -> None:
        """Begin, in the portal's thread."""
        if self._is_begun:
            return  # it was cancelled before
        self._is_begun = True
        try:
            if (nursery := self._nursery()) is None:
                raise closed(self._block)
            self._context.run(nursery.start_soon, self._run)
        except BaseException as error:
            self._error = error
            self._end()

    async def _run(self) -> None:
        try:
            with self._scope:
                self._value = await self._function()
        except BaseException as error:
            self._error = without_cancel(error) or closed(self._block)
        finally:
            self._end()

    def die(self, error: BaseException) -> None:
        """End it with the portal, in its thread: trio has ended by an error, and no task goes on."""
        if not self._is_done:
            self._error = trio.ClosedResourceError("execsrv has ended by an internal error")
            self._error.__cause__ = error
            self.is_undone = self._is_begun = self._is_done = True
            ring, self._ring = self._ring, lambda: None  # whoever collects the task ends it once more
            ring()

    def _end(self) -> None:
        self._is_done = True
        if self._scope.cancel_called:
            while self._undo:
                self._undo.pop()()
            self.is_undone = True
        self._ring()

    def cancel(self, ring: Callable[[], object]) -> None:
        """Cancel it, in the portal's thread and at any time, and have `ring` called when it `is_undone`."""
        self._ring = ring
        self._scope.cancel()
        if self._is_done or not self._is_begun:
            self._is_begun = True
            self._end()

    def outcome(self) -> Any:
        """Return its value, or raise its error, the very object: nothing is undone any more."""
        self._undo.clear()
        if self._error is None:
            return self._value
        try:
            raise self._error
        finally:
            self._error = None  # its traceback holds this frame


def closed(block: Block | None) -> BaseException:
    """Return the error of a call on what is closed."""
    return trio.ClosedResourceError("execsrv was closed" if block is None else f"{block} was closed")


def without_cancel(error: BaseException) -> BaseException | None:
    """Return what an error says beside a cancel, None where it says nothing else: nurseries wrap that into groups."""
    cancelled, rest = split(error)
    return rest if cancelled is None else alone(rest)


def to_raise(errors: list[BaseException]) -> BaseException:
    """Return the error to raise of those that ended a call, and came while it was undone.

    Of one kind it is the first, of several the last, and what ends the program before what does not; each has the
    others as its causes.
    """
    raised, *others = errors
    try:
        for another in others:
            if type(another) is not type(raised):
                is_less = isinstance(another, Exception) and not isinstance(raised, Exception)
                lesser, raised = (another, raised) if is_less else (raised, another)
                blame(raised, lesser)
        return raised
    finally:
        del raised, others, errors


class Block:
    """An `async with` block in the portal's thread, open until it is left."""

    def __init__(
        self, portal: Portal, parent: Block | None, open: Callable[[], AbstractAsyncContextManager[Any]]
    ) -> None:
        self.portal = portal
        self.is_left = False
        self._parent = parent
        self._open = open
        self._name = "the block"
        self.is_entered = False
        self._calls: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self._leaving = trio.Event()
        self._left = trio.Event()
        self._reason: BaseException | None = None
        self._error: BaseException | None = None

    def __str__(self) -> str:
        return self._name

    def within(self) -> trio.Nursery | None:
        """Return the parent of the calls on what it gives, None when it is being left."""
        return self._calls

    def outside(self) -> trio.Nursery | None:
        """Return the parent of the block itself, None when that is being left."""
        return self.portal.nursery if self._parent is None else self._parent.within()

    async def open(self) -> Any:
        """Enter the block, and return what it gives. It stays open behind this call."""
        if (outside := self.outside()) is None:
            raise closed(self._parent)  # since this call began
        return await outside.start(self._keep)

    async def _keep(self, task_status: trio.TaskStatus[Any]) -> None:
        try:
            with used(self.portal), self._scope:
                async with self._open() as value:
                    self._name = f"{type(value).__name__} {getattr(value, 'id', '')}".strip()
                    async with trio.open_nursery() as calls:
                        self._calls, self.is_entered = calls, True
                        task_status.started(value)
                        try:
                            await self._leaving.wait()
                        finally:
                            self._calls = None
                        calls.cancel_scope.cancel()
                    if self._reason is not None:
                        raise self._reason
        except BaseException as error:
            if not self.is_entered:
                raise
            self._error = without_cancel(error)
        finally:
            self.is_left = True
            self._left.set()

    async def close(self, reason: BaseException | None = None) -> BaseException | None:
        """Leave the block, by an error if there is a reason, and return the error that it ends with.

        Cancelling cancels what the block does in its end, and waits for it.
        """
        if not self._leaving.is_set():
            self._reason = reason
            self._leaving.set()
        try:
            await self._left.wait()
        except trio.Cancelled:
            self._scope.cancel()
            with trio.CancelScope(shield=True):
                await self._left.wait()
            raise
        error, self._error, self._reason = self._error, None, None
        return error  # not raised: a coroutine raises no `StopIteration`

    def abandon(self) -> None:
        """Have it left soon, from anywhere, without waiting for it."""
        if not self.is_left and not self.portal.is_forked:
            self.portal.post(self._leaving.set)
