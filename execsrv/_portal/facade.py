"""The objects that stand for those of trio, in either world: `blocking` and `awaiting` say how to wait for a call."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from inspect import isasyncgen
from typing import Any, ClassVar, Generic, Self, TypeVar

import trio

from execsrv._nursery import open_helpers
from execsrv._portal.calls import Block, Call
from execsrv._portal.thread import Portal
from execsrv.client.late import undo_if_late
from execsrv.client.line_batches import Lines
from execsrv.protocol import Chunk

T = TypeVar("T")

NOT_READING = frozenset(
    [
        *("write", "send", "sendline", "sendcontrol", "sendeof", "sendintr", "send_all", "close_stdin"),
        *("send_signal", "interrupt", "terminate", "kill", "resize"),
        *("wait", "wait_for", "waitnoecho", "snapshot", "screen"),
    ]
)
"""Methods that read nothing of a process's output: lines that were taken together stay with who has them."""

MOST_LINES = 4096


class Batch:
    """Lines that were taken together, and not given out yet. Who reads in another way has them given back first.

    A batch begins small, and grows as long as all of it is wanted.
    """

    def __init__(self, portal: Portal) -> None:
        self.size = 1
        self._portal = portal
        self._lock = threading.RLock()  # a signal handler may read too, in the midst of this
        self._lines: deque[tuple[str, Chunk]] = deque()
        self._source: Lines | None = None

    def pop(self) -> str | None:
        """Return the next line, None where there is none."""
        with self._lock:
            return self._lines.popleft()[0] if self._lines else None

    def fill(self, source: Lines, lines: list[tuple[str, Chunk]]) -> None:
        """Take in what was taken."""
        with self._lock:
            self._source = source
            self._lines.extend(lines)
            self.size = min(2 * self.size, MOST_LINES)

    @property
    def chunks(self) -> list[Chunk]:
        """Bytes of the lines that were not given out."""
        with self._lock:
            return [chunk for _, chunk in self._lines]

    def give_back(self) -> None:
        """Let the lines be the next for whoever reads: before anything that is posted to the portal after this."""
        with self._lock:
            if self._lines and self._source is not None:
                self._portal.post(partial(self._source.give_back, [chunk for _, chunk in self._lines]))
                self._lines.clear()
                self.size = 1


class Hold:
    """Keeps a block open, for all objects that came out of it. One that is lost is left soon, with a warning."""

    def __init__(self, block: Block, parent: Hold | None, *, warns: bool) -> None:
        self.block = block
        self.batches: dict[str, Batch] = {}
        self._parent = parent
        self._warns = warns

    def settle(self, own: Batch | None = None) -> None:
        """Have lines given back that were taken and not given out, before something else reads."""
        for batch in [*self.batches.values()] if self.batches else ():
            if batch is not own:
                batch.give_back()

    def __del__(self) -> None:
        if "block" not in vars(self):
            return  # interrupted before it had one
        if not self.block.is_left and not self.block.portal.is_forked:
            self.block.abandon()
            if self._warns:
                warnings.warn(f"{self.block} was not closed", ResourceWarning, source=self, stacklevel=2)


class Facade:
    """Stands for an object that lives in the portal's thread."""

    _kinds: ClassVar[dict[type, type[Facade]]]
    """The facade for each class, in this world."""

    _inner: Any
    _hold: Hold
    _parts: dict[str, tuple[Any, Any]]
    """Its own facades: for each attribute what stands for what."""

    def __init_subclass__(cls, of: type | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if of is not None:
            cls._kinds[of] = cls

    def __init__(self) -> None:
        raise TypeError(f"a {type(self).__name__} is not made, but comes out of `launch`, `connect` or a client")

    @classmethod
    def _of(cls, inner: Any, hold: Hold) -> Any:
        return cls._made(inner, hold)

    @classmethod
    def _made(cls, inner: Any, hold: Hold) -> Self:
        facade = cls.__new__(cls)
        facade._stand_for(inner, hold)
        return facade

    def _stand_for(self, inner: Any, hold: Hold) -> None:
        self._inner, self._hold, self._parts = inner, hold, {}

    def __repr__(self) -> str:
        return repr(self._inner)

    def __reduce_ex__(self, protocol: object) -> Any:
        raise unmovable(self)

    def _wrap(self, value: Any) -> Any:
        """Return a value of the portal's thread with its objects as they are here."""
        if (kind := self._kinds.get(type(value))) is not None:
            return kind._of(value, self._hold)
        if type(value) is list or type(value) is tuple:
            return type(value)(self._wrap(each) for each in value)
        return value

    def _function(self, method: str | Callable[..., Any]) -> Callable[..., Any]:
        """Return a method of what it stands for, by its name, or a function that is given that."""
        if not isinstance(method, str):
            self._hold.settle()
            return method
        if method not in NOT_READING:
            self._hold.settle()
        return getattr(self._inner, method)  # type: ignore[no-any-return]

    def _get(self, name: str) -> Any:
        """Return an attribute, as it is here: the same facade each time."""
        batches = self._hold.batches
        if name == "buffer" and batches:
            from execsrv.client.expect import unread

            return unread(self._inner, [chunk for batch in [*batches.values()] for chunk in batch.chunks])
        value = getattr(self._inner, name)
        if type(value) not in self._kinds:
            return self._wrap(value)
        part, facade = self._parts.get(name, (None, None))
        if part is not value:
            facade = self._wrap(value)
            self._parts[name] = value, facade
        return facade

    def _plain(self, method: str, *args: Any, **options: Any) -> Any:
        """Call what waits for nothing."""
        args, options = unwrapped(args, options)
        return self._wrap(getattr(self._inner, method)(*args, **options))


def unmovable(thing: object) -> TypeError:
    """Return the error of who pickles or copies a thing that stands for another: that cannot be in two places."""
    return TypeError(f"cannot pickle or copy {type(thing).__name__}: open a client of its own in the other process")


def unwrapped(args: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments with the objects of the portal's thread for those that stand for them."""
    return tuple(map(_unwrapped, args)), {name: _unwrapped(value) for name, value in options.items()}


def _unwrapped(value: Any) -> Any:
    return value._inner if isinstance(value, Facade) else value


def check_no_trio(name: str) -> None:
    """Raise `RuntimeError` where a wait would hold up trio: in a program of trio, and in a callback."""
    if trio.lowlevel.in_trio_run():
        raise RuntimeError(
            f"execsrv.{name} cannot wait where trio runs: a trio program has execsrv itself, and a callback must return"
        )


def close_soon(block: Block, close: Callable[[], Awaitable[Any]]) -> None:
    """Close a thing within a block, without waiting for it."""
    if not block.is_left and not block.portal.is_forked:
        block.portal.post(Call(close, block, block.within, lambda: None).begin)


# -- iteration: what is a generator has a task of its own, since its scopes must not wander from task to task --


def needs_task(items: AsyncIterator[Any]) -> bool:
    """Return True where iteration has to stay in one task."""
    return isasyncgen(items)


class Items(Generic[T]):
    """Iterates over what comes from the portal's thread. `key` names the call, for lines that were taken together."""

    def __init__(self, facade: Facade, items: AsyncIterator[T], key: str) -> None:
        self._facade = facade
        self._items = items
        self._is_over = False
        self._hold: Hold | None = None
        self._next: Callable[[], Awaitable[T]] | None = None if needs_task(items) else items.__anext__
        self._batch: Batch | None = None
        if isinstance(items, Lines):
            self._batch = facade._hold.batches.setdefault(key, Batch(facade._hold.block.portal))

    def __reduce_ex__(self, protocol: object) -> Any:
        raise unmovable(self)


@asynccontextmanager
async def pumped(items: Any) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Iterate over a generator in one task, and give the function that returns the next item, from any task.

    The generator is begun when an item is asked for: whoever is interrupted before comes again with it.
    """
    is_asked = trio.Event()
    send, receive = trio.open_memory_channel[tuple[Any, BaseException | None]](0)
    returned: list[tuple[Any, BaseException | None]] = []

    async def pump() -> None:
        with send:
            await is_asked.wait()
            try:
                async with aclosing(items):
                    async for item in items:
                        await send.send((item, None))
            except Exception as error:
                await send.send((None, error))

    async def take() -> Any:
        is_asked.set()
        try:
            taken = returned.pop() if returned else await receive.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        undo_if_late(partial(returned.append, taken))
        item, error = taken
        if error is None:
            return item
        try:
            raise error
        finally:
            del error, taken  # its traceback holds this frame

    async with open_helpers() as nursery:
        nursery.start_soon(pump)
        yield take
