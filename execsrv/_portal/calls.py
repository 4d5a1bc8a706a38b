"""Work in the portal's thread: a call, and a block that is kept open until somebody leaves it.

A block has a task of its own, which enters and leaves it, and a nursery within it for the calls on what it gives and
for the blocks below it. So to leave a block is to cancel those, wait for them, and only then to leave.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from execsrv._portal.thread import Portal
from execsrv.client.reader import Caller, caller

NOTHING = object()
"""The value of a call that has none."""


class Call:
    """One call of an async function, and its outcome. It begins once, and ends once."""

    def __init__(
        self,
        function: Callable[[], Awaitable[Any]],
        block: Block | None,
        nursery: Callable[[], trio.Nursery | None],
        ring: Callable[[], object],
        who: Caller | None = None,
    ) -> None:
        """`nursery` gives the nursery to run it in, None when `block` is closed. `ring` is called when it is done."""
        self.is_done = False
        self.value: Any = NOTHING
        self.let_go: Callable[[], None] | None = None
        self._function = function
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
                raise self.closed()
            self._context.run(nursery.start_soon, self._run)
        except BaseException as error:
            self._error = error
            self._end()

    async def _run(self) -> None:
        try:
            with self._scope:
                self.value = await self._function()
        except trio.Cancelled:
            self._error = self.closed()
            raise
        except BaseException as error:
            self._error = error
        finally:
            self._end()

    def closed(self) -> BaseException:
        """Return the error of a call on what is closed."""
        return trio.ClosedResourceError("execsrv was closed" if self._block is None else f"{self._block} was closed")

    def _end(self) -> None:
        if self.let_go is not None:
            self.let_go()
        self.is_done = True
        self._ring()

    def cancel(self) -> None:
        """Cancel it, in the portal's thread. It is done soon; one that has not begun never begins."""
        self._scope.cancel()
        if not self._is_begun:
            self._is_begun = True
            self._end()

    def outcome(self) -> Any:
        """Return its value, or raise its error, the very object."""
        if self._error is None:
            return self.value
        try:
            raise self._error
        finally:
            self._error = None  # its traceback holds this frame


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
        outside = self.outside()
        assert outside is not None  # this very call runs in it
        return await outside.start(self._keep)

    async def _keep(self, task_status: trio.TaskStatus[Any]) -> None:
        self.portal.use()
        try:
            with self._scope:
                async with self._open() as value:
                    self._name = f"{type(value).__name__} {getattr(value, 'id', '')}".strip()
                    async with trio.open_nursery() as self._calls:
                        self.is_entered = True
                        task_status.started(value)
                        await self._leaving.wait()
                        calls, self._calls = self._calls, None
                        calls.cancel_scope.cancel()
                    if self._reason is not None:
                        raise self._reason
        except trio.Cancelled:
            raise
        except BaseException as error:
            if not self.is_entered:
                raise
            self._error = error
        finally:
            self._calls = None
            self.is_left = True
            self._left.set()
            self.portal.let_go()

    async def close(self, reason: BaseException | None = None) -> None:
        """Leave the block, by an error if there is a reason.

        Raises the error that the block ends with. Cancelling cancels what the block does in its end, and waits for it.
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
        try:
            if error is not None:
                raise error
        finally:
            del error, reason  # its traceback holds this frame

    def abandon(self) -> None:
        """Have it left soon, from anywhere, without waiting for it."""
        if not self.is_left and not self.portal.is_forked:
            self.portal.post(self._leaving.set)
