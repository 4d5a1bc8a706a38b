"""Plain code waits here for what the portal's thread does: any thread, many at once.

An exception that a signal raises in a waiting thread, such as `KeyboardInterrupt`, cancels the call over there; it goes
on once that has ended.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

import trio

from execsrv._portal.calls import NOTHING, Block, Call
from execsrv._portal.facade import Batch, Hold, check_no_trio, pumped, unwrapped
from execsrv._portal.facade import Facade as AnyFacade
from execsrv._portal.facade import Items as AnyItems
from execsrv._portal.thread import Portal, lease
from execsrv.client.line_batches import Lines
from execsrv.client.reader import Caller

T = TypeVar("T")


def _perform(
    portal: Portal,
    function: Callable[[], Awaitable[Any]],
    block: Block | None,
    nursery: Callable[[], trio.Nursery | None],
    *,
    let_go: Callable[[], None] | None = None,
    keep: Callable[[Any], None] | None = None,
) -> Any:
    """Call an async function in the portal's thread, and wait for its outcome.

    `keep` takes the value of a call that was interrupted too late.
    """
    check_no_trio("sync")
    bell = threading.Lock()
    bell.acquire()
    thread = threading.current_thread()
    call = Call(function, block, nursery, bell.release, Caller(thread, thread.is_alive))
    call.let_go = let_go
    try:
        if not portal.post(call.begin):
            raise call.closed()
        bell.acquire()
    except BaseException:
        _cancel(portal, call, bell)
        if keep is not None and call.value is not NOTHING:
            keep(call.value)
        raise
    return call.outcome()


def _cancel(portal: Portal, call: Call, bell: threading.Lock) -> None:
    """Cancel a call, and wait until it is done, whatever signals come meanwhile."""
    if portal.is_forked or not portal.post(call.cancel):
        return  # it never began
    while not call.is_done:
        try:
            bell.acquire()
        except BaseException:
            pass  # one is on its way already


def _enter(
    open: Callable[[], AbstractAsyncContextManager[Any]], parent: Hold | None, *, warns: bool
) -> tuple[Any, Hold]:
    """Enter a block in the portal's thread, and return what it gives, and what keeps it open."""
    check_no_trio("sync")
    outer = None if parent is None else parent.block
    portal = lease() if outer is None else outer.portal
    block = Block(portal, outer, open)
    try:
        value = _perform(portal, block.open, outer, block.outside, let_go=portal.let_go if outer is None else None)
        return value, Hold(block, parent, warns=warns)
    except BaseException:
        _leave(block)
        portal.join()
        raise


def _leave(block: Block, reason: BaseException | None = None) -> None:
    """Leave a block. One that is left already is left alone."""
    portal = block.portal
    if not block.is_entered or portal.is_forked:
        return
    try:
        _perform(portal, partial(block.close, reason), None, lambda: portal.nursery)
    except trio.ClosedResourceError:
        if not block.is_left:
            raise
    finally:
        portal.join()


class Facade(AnyFacade):
    """Stands for an object of trio in plain code."""

    _kinds: ClassVar[dict[type, type[AnyFacade]]] = {}

    def _wait(self, method: str | Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a coroutine function, and wait for it."""
        args, options = unwrapped(args, options)
        function = partial(self._function(method), *args, **options)
        block = self._hold.block
        return self._wrap(_perform(block.portal, function, block, block.within))

    def _take(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a coroutine function that takes something, which an interrupt must not lose."""
        kept = self._kept.setdefault(method, [])
        if kept:
            return kept.pop(0)
        function = partial(self._function(method), *args, **options)
        block = self._hold.block
        return self._wrap(_perform(block.portal, function, block, block.within, keep=kept.append))

    def _next(self) -> Any:
        """Return the next item of what is itself iterated over."""
        try:
            return self._take("__anext__")
        except StopAsyncIteration:
            raise StopIteration from None

    def _enter(self, method: str | Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Enter a block, and return what stands for what it gives."""
        args, options = unwrapped(args, options)
        return entered(self._kinds, partial(self._function(method), *args, **options), self._hold)

    def _iterate(self, method: str, *args: Any, **options: Any) -> Any:
        """Call what returns an iterator, and return one of this world."""
        args, options = unwrapped(args, options)
        return self._items(getattr(self._inner, method)(*args, **options), f"{method} {args} {options}")

    def _items(self, items: AsyncIterator[Any], key: str) -> Any:
        return Items(self, items, key)


def entered(
    kinds: dict[type, type[AnyFacade]], open: Callable[[], AbstractAsyncContextManager[Any]], parent: Hold | None = None
) -> Any:
    """Enter a block in the portal's thread, and return what stands for what it gives."""
    value, hold = _enter(open, parent, warns=True)
    return kinds.get(type(value), Opened)._of(value, hold)


class Held(Facade):
    """Handle of what a block gives: to be used as a context manager, or until it is closed."""

    def close(self) -> None:
        """Leave its block: what belongs to it ends. The second time it does nothing."""
        _leave(self._hold.block)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            _leave(self._hold.block, error)
        except BaseException as raised:
            if raised is not error:
                raise
            error.__traceback__ = traceback
        finally:
            del error, traceback


class Made(Held):
    """A handle that its users make, which opens it."""

    def _make(self, open: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._stand_for(*_enter(open, None, warns=True))


class Opened(Held, Generic[T]):
    """A block that gives a value, or nothing, that needs no facade."""

    @property
    def value(self) -> T:
        """Value that the block gives."""
        return self._inner  # type: ignore[no-any-return]


class Items(AnyItems[T], Iterator[T]):
    """Iterates over what comes from the portal's thread. One that is left early leaves nothing behind."""

    def __iter__(self) -> Items[T]:
        return self

    def __next__(self) -> T:
        if self._batch is not None:
            return self._next_line(self._batch)  # type: ignore[return-value]
        if self._kept:
            return self._kept.pop(0)
        if self._is_over:
            raise StopIteration
        if self._next is None:
            self._next, self._hold = _enter(partial(pumped, self._items), self._facade._hold, warns=False)
        block = self._facade._hold.block if self._hold is None else self._hold.block
        self._facade._hold.settle()
        try:
            item = _perform(block.portal, self._next, block, block.within, keep=self._kept.append)
        except StopAsyncIteration:
            self.close()
            raise StopIteration from None
        return self._facade._wrap(item)  # type: ignore[no-any-return]

    def _next_line(self, batch: Batch) -> str:
        hold, items = self._facade._hold, self._items
        assert isinstance(items, Lines)
        while not self._is_over:
            if not hold.block.is_left and (line := batch.pop()) is not None:
                return line
            hold.settle(batch)
            take, keep = partial(items.take_batch, batch.size), partial(batch.fill, items)
            lines = _perform(hold.block.portal, take, hold.block, hold.block.within, keep=keep)
            if not lines:
                break
            batch.fill(items, lines)
        raise StopIteration

    def close(self) -> None:
        """End the iteration, from this side."""
        self._is_over = True
        if self._hold is not None:
            _leave(self._hold.block)
