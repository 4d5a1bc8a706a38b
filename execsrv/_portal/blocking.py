"""Plain code waits here for what the portal's thread does: any thread, many at once.

An exception that a signal raises in a waiting thread, such as `KeyboardInterrupt`, cancels the call over there; it goes
on once that has ended. One that comes meanwhile is not lost, and leaves a call behind that does not end.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

import trio

from execsrv._portal.calls import UNDO_SECONDS, Block, Call, closed, to_raise
from execsrv._portal.facade import Batch, Hold, check_no_trio, pumped, unwrapped
from execsrv._portal.facade import Facade as AnyFacade
from execsrv._portal.facade import Items as AnyItems
from execsrv._portal.thread import Portal, used
from execsrv.client.line_batches import Lines
from execsrv.client.reader import Caller

T = TypeVar("T")

_SIGNAL_SECONDS = 1.0
"""A signal that comes just before a thread begins to wait wakes nobody, and is seen to after this time."""


def _perform(
    portal: Portal,
    function: Callable[[], Awaitable[Any]],
    block: Block | None,
    nursery: Callable[[], trio.Nursery | None],
    *,
    undoes: bool = False,
) -> Any:
    """Call an async function in the portal's thread, and wait for its outcome."""
    check_no_trio("sync")
    bell = threading.Lock()
    bell.acquire()
    thread = threading.current_thread()
    call = Call(function, block, nursery, bell.release, Caller(thread, thread.is_alive), undoes=undoes)
    try:
        portal.waiting.add(call.die)
        if not portal.post(call.begin):
            raise closed(block)
        while not bell.acquire(timeout=_SIGNAL_SECONDS):
            pass
    except BaseException as error:
        errors, since, is_over = [error], 0.0, False
        while not is_over:
            try:  # between the error and this no signal is seen to: the interpreter does that in calls and jumps back
                since = since or time.monotonic()
                until = since + UNDO_SECONDS if len(errors) > 1 else math.inf
                is_over = time.monotonic() > until or _cancel(portal, call, until)
            except BaseException as another:
                errors += [another]
        raised = to_raise(errors)
        try:
            if raised is not error:
                raise raised
            raise
        finally:
            del errors, raised  # their tracebacks hold this frame
    finally:
        portal.waiting.discard(call.die)
    return call.outcome()


def _cancel(portal: Portal, call: Call, until: float) -> bool:
    """Cancel a call, wait until it is undone, but not beyond a time of the clock, and return True.

    Whatever a signal raises in here leaves it; so it is done again, from its beginning.
    """
    bell = threading.Lock()
    bell.acquire()
    if portal.is_forked or not portal.post(partial(call.cancel, bell.release)):
        return True  # it never began, or has ended with the portal
    while not call.is_undone and time.monotonic() < until:
        bell.acquire(timeout=_SIGNAL_SECONDS)  # a portal that dies rings the other one
    return True


def _enter(
    open: Callable[[], AbstractAsyncContextManager[Any]], parent: Hold | None, *, warns: bool
) -> tuple[Any, Hold]:
    """Enter a block in the portal's thread, and return what it gives, and what keeps it open."""
    check_no_trio("sync")
    outer = None if parent is None else parent.block
    with _used(None if outer is None else outer.portal) as portal:
        block = Block(portal, outer, open)
        try:
            value = _perform(portal, block.open, outer, block.outside)
            return value, Hold(block, parent, warns=warns)
        except BaseException:
            block.abandon()  # it may be entered yet, by a call that was left behind
            _leave(block)
            raise


def _leave(block: Block, reason: BaseException | None = None) -> BaseException | None:
    """Leave a block, and return the error that it ends with. One that is left already is left alone."""
    if not block.is_entered or block.portal.is_forked:
        return None
    with _used(block.portal) as portal:
        try:
            return _perform(portal, partial(block.close, reason), None, lambda: portal.nursery)  # type: ignore[no-any-return]
        except trio.ClosedResourceError:
            if not block.is_left:
                raise
            return None


def _close(block: Block) -> None:
    """Leave a block. Raises the error that it ends with."""
    error = _leave(block)
    try:
        if error is not None:
            raise error
    finally:
        del error  # its traceback holds this frame


@contextmanager
def _used(portal: Portal | None) -> Iterator[Portal]:
    """Keep the portal going while the block lasts. Where nobody uses it then, it has ended behind the block."""
    try:
        with used(portal) as portal:
            yield portal
    finally:
        if portal is not None:
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

    def _take(self, method: str | Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a coroutine function that takes something, which an interrupt must not lose."""
        args, options = unwrapped(args, options)
        function = partial(self._function(method), *args, **options)
        block = self._hold.block
        return self._wrap(_perform(block.portal, function, block, block.within, undoes=True))

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
        _close(self._hold.block)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        raised = _leave(self._hold.block, error)
        try:
            if raised is not None and raised is not error:
                raise raised
            if error is not None:
                error.__traceback__ = traceback
        finally:
            del error, raised, traceback


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
    """Iterates over what comes from the portal's thread, each item for one of the threads that share it.

    One that is left early leaves nothing behind.
    """

    def __init__(self, facade: AnyFacade, items: AsyncIterator[T], key: str) -> None:
        super().__init__(facade, items, key)
        self._entering = threading.RLock()

    def __iter__(self) -> Items[T]:
        return self

    def __next__(self) -> T:
        if self._batch is not None:
            return self._next_line(self._batch)  # type: ignore[return-value]
        if self._is_over:
            raise StopIteration
        if self._next is None:
            with self._entering:
                if self._next is None:
                    take, self._hold = _enter(partial(pumped, self._items), self._facade._hold, warns=False)
                    self._next = take
        block = self._facade._hold.block if self._hold is None else self._hold.block
        self._facade._hold.settle()
        try:
            item = _perform(block.portal, self._next, block, block.within, undoes=True)
        except StopAsyncIteration:
            self.close()
            raise StopIteration from None
        except trio.ClosedResourceError:
            if not self._is_over:
                raise
            raise StopIteration from None  # another thread was at the end
        return self._facade._wrap(item)  # type: ignore[no-any-return]

    def _next_line(self, batch: Batch) -> str:
        hold, items = self._facade._hold, self._items
        assert isinstance(items, Lines)
        while not self._is_over:
            if not hold.block.is_left and (line := batch.pop()) is not None:
                return line
            hold.settle(batch)
            take = partial(items.take_batch, batch.size)
            lines = _perform(hold.block.portal, take, hold.block, hold.block.within, undoes=True)
            if not lines:
                break
            batch.fill(items, lines)
        raise StopIteration

    def close(self) -> None:
        """End the iteration, from this side."""
        self._is_over = True
        if self._hold is not None:
            _close(self._hold.block)
