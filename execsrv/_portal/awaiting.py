"""Tasks of asyncio wait here for what the portal's thread does: of any event loop, many at once.

A task that is cancelled cancels the call over there, and goes on once that has ended. It leaves one behind that does
not end, when it is cancelled again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

import trio

from execsrv._portal.bell import Bell
from execsrv._portal.calls import UNDO_SECONDS, Block, Call, closed
from execsrv._portal.deferred import Deferred
from execsrv._portal.facade import Batch, Hold, check_no_trio, pumped, unwrapped
from execsrv._portal.facade import Facade as AnyFacade
from execsrv._portal.facade import Items as AnyItems
from execsrv._portal.thread import Portal, used
from execsrv.client.line_batches import Lines
from execsrv.client.reader import Caller

T = TypeVar("T")


async def _perform(
    portal: Portal,
    function: Callable[[], Awaitable[Any]],
    block: Block | None,
    nursery: Callable[[], trio.Nursery | None],
    *,
    undoes: bool = False,
) -> Any:
    """Call an async function in the portal's thread, and wait for its outcome."""
    check_no_trio("asyncio")
    bell = Bell()
    call = Call(function, block, nursery, bell.ring, _caller(), undoes=undoes)
    try:
        portal.waiting.add(call.die)
        if not portal.post(call.begin):
            raise closed(block)
        await bell.wait()
    except BaseException as error:
        await _cancel(portal, call, bell, can_wait=not isinstance(error, GeneratorExit))
        raise
    finally:
        portal.waiting.discard(call.die)
    return call.outcome()


def _caller() -> Caller | None:
    task = asyncio.current_task()
    return None if task is None else Caller(task, lambda: not task.done())


async def _cancel(portal: Portal, call: Call, bell: Bell, *, can_wait: bool) -> None:
    """Cancel a call, and wait until it is undone.

    A task that is cancelled again leaves it behind where that takes longer than `UNDO_SECONDS`: it is undone when it
    ends over there. asyncio counts the cancels of a task, so that none is lost by the one that goes on from here.
    """
    if portal.is_forked or not portal.post(partial(call.cancel, bell.ring)):
        return  # it never began, or has ended with the portal
    if not can_wait:
        return
    is_asked_again = False
    with bell.expiring(UNDO_SECONDS):
        while not call.is_undone and not (is_asked_again and bell.is_expired):
            try:
                await bell.wait()
            except asyncio.CancelledError:
                is_asked_again = True


async def _enter(
    open: Callable[[], AbstractAsyncContextManager[Any]], parent: Hold | None, *, warns: bool
) -> tuple[Any, Hold]:
    """Enter a block in the portal's thread, and return what it gives, and what keeps it open."""
    check_no_trio("asyncio")
    outer = None if parent is None else parent.block
    with used(None if outer is None else outer.portal) as portal:
        block = Block(portal, outer, open)
        try:
            value = await _perform(portal, block.open, outer, block.outside)
            return value, Hold(block, parent, warns=warns)
        except BaseException as error:
            block.abandon()  # it may be entered yet, by a call that was left behind
            if not isinstance(error, GeneratorExit):
                await _leave(block)
            raise


async def _leave(block: Block, reason: BaseException | None = None) -> BaseException | None:
    """Leave a block, and return the error that it ends with. One that is left already is left alone."""
    if not block.is_entered or block.portal.is_forked:
        return None
    with used(block.portal) as portal:
        try:
            return await _perform(portal, partial(block.close, reason), None, lambda: portal.nursery)  # type: ignore[no-any-return]
        except trio.ClosedResourceError:
            if not block.is_left:
                raise
            return None


async def _close(block: Block) -> None:
    """Leave a block. Raises the error that it ends with."""
    error = await _leave(block)
    try:
        if error is not None:
            raise error
    finally:
        del error  # its traceback holds this frame


class Facade(AnyFacade):
    """Stands for an object of trio under asyncio."""

    _kinds: ClassVar[dict[type, type[AnyFacade]]] = {}

    async def _wait(self, method: str | Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a coroutine function, and wait for it."""
        args, options = unwrapped(args, options)
        function = partial(self._function(method), *args, **options)
        block = self._hold.block
        return self._wrap(await _perform(block.portal, function, block, block.within))

    async def _take(self, method: str | Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a coroutine function that takes something, which a cancel must not lose."""
        args, options = unwrapped(args, options)
        function = partial(self._function(method), *args, **options)
        block = self._hold.block
        return self._wrap(await _perform(block.portal, function, block, block.within, undoes=True))

    def _enter(self, method: str | Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Return a block that is entered by `async with` or by `await`."""
        args, options = unwrapped(args, options)
        return Opening(self._kinds, partial(self._function(method), *args, **options), self._hold)

    def _iterate(self, method: str, *args: Any, **options: Any) -> Any:
        """Call what returns an iterator, and return one of this world."""
        args, options = unwrapped(args, options)
        return self._items(getattr(self._inner, method)(*args, **options), f"{method} {args} {options}")

    def _items(self, items: AsyncIterator[Any], key: str) -> Any:
        return Items(self, items, key)


class Opening(Deferred[T]):
    """A block that is entered by `async with`, or by `await`, or as a task: then it is open until `close`."""

    _opened: T

    def __init__(
        self,
        kinds: dict[type, type[AnyFacade]],
        open: Callable[[], AbstractAsyncContextManager[Any]],
        parent: Hold | None = None,
    ) -> None:
        self._kinds = kinds
        self._open = open
        self._parent = parent

    async def _entered(self) -> T:
        value, hold = await _enter(self._open, self._parent, warns=True)
        return self._kinds.get(type(value), Opened)._of(value, hold)  # type: ignore[no-any-return]

    async def __aenter__(self) -> T:
        self._opened = await self._entered()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert isinstance(self._opened, Held)
        await self._opened.__aexit__(kind, error, traceback)


class Held(Facade):
    """Handle of what a block gives: to be used as a context manager, or until it is closed."""

    async def close(self) -> None:
        """Leave its block: what belongs to it ends. The second time it does nothing."""
        await _close(self._hold.block)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        raised = await _leave(self._hold.block, error)
        try:
            if raised is not None and raised is not error:
                raise raised
            if error is not None:
                error.__traceback__ = traceback
        finally:
            del error, raised, traceback


class Made(Held):
    """A handle that its users make, and open by `async with`, or by `await`: then it is open until `close`."""

    _open: Callable[[], AbstractAsyncContextManager[Any]]

    def _make(self, open: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._open = open

    def __getattr__(self, name: str) -> Any:
        if name in ("_inner", "_hold"):
            raise RuntimeError(f"the {type(self).__name__} is not open: use `async with`, or `await`")
        raise AttributeError(name)

    def __repr__(self) -> str:
        return super().__repr__() if "_inner" in vars(self) else f"<{type(self).__name__} not open>"

    async def _entered(self) -> Self:
        self._stand_for(*await _enter(self._open, None, warns=True))
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._entered().__await__()

    async def __aenter__(self) -> Self:
        return await self._entered()


class Opened(Held, Generic[T]):
    """A block that gives a value, or nothing, that needs no facade."""

    @property
    def value(self) -> T:
        """Value that the block gives."""
        return self._inner  # type: ignore[no-any-return]


class Items(AnyItems[T], AsyncIterator[T]):
    """Iterates over what comes from the portal's thread, each item for one of the tasks that share it.

    One that is left early leaves nothing behind.
    """

    def __init__(self, facade: AnyFacade, items: AsyncIterator[T], key: str) -> None:
        super().__init__(facade, items, key)
        self._entering = asyncio.Lock()

    def __aiter__(self) -> Items[T]:
        return self

    async def __anext__(self) -> T:
        if self._batch is not None:
            return await self._next_line(self._batch)  # type: ignore[return-value]
        if self._is_over:
            raise StopAsyncIteration
        if self._next is None:
            async with self._entering:
                if self._next is None:
                    take, self._hold = await _enter(partial(pumped, self._items), self._facade._hold, warns=False)
                    self._next = take
        block = self._facade._hold.block if self._hold is None else self._hold.block
        self._facade._hold.settle()
        try:
            item = await _perform(block.portal, self._next, block, block.within, undoes=True)
        except StopAsyncIteration:
            await self.aclose()
            raise
        except trio.ClosedResourceError:
            if not self._is_over:
                raise
            raise StopAsyncIteration from None  # another task was at the end
        return self._facade._wrap(item)  # type: ignore[no-any-return]

    async def _next_line(self, batch: Batch) -> str:
        hold, items = self._facade._hold, self._items
        assert isinstance(items, Lines)
        while not self._is_over:
            if not hold.block.is_left and (line := batch.pop()) is not None:
                return line
            hold.settle(batch)
            take = partial(items.take_batch, batch.size)
            if not (lines := await _perform(hold.block.portal, take, hold.block, hold.block.within, undoes=True)):
                break
            batch.fill(items, lines)
        raise StopAsyncIteration

    async def close(self) -> None:
        """End the iteration, from this side. `aclose` is the name that generators have for it."""
        self._is_over = True
        if self._hold is not None:
            await _close(self._hold.block)

    aclose = close
