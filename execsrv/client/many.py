"""Many commands, some of them at a time, and their results as they end.

The commands run in a task of the client, which holds nothing of the iterator: when that is left early, by a break, an
error or a cancel, it is gone, and with it what still runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import trio

from execsrv._nursery import happened
from execsrv.client.late import undo_if_late
from execsrv.client.parameters import Path, count
from execsrv.errors import BadAnswerError, CommandError, ConnectionLostError, NoServerError, RequestError

R_co = TypeVar("R_co", covariant=True)

Run = Callable[[Sequence[Path]], Awaitable[Any]]
"""Runs one command."""

Errors = type[Exception] | tuple[type[Exception], ...]

_REFUSALS = (RequestError, NoServerError, BadAnswerError)
"""Errors of one command alone, whatever becomes of others."""


class Results(AsyncIterator[R_co], Generic[R_co]):
    """The results of many commands, as they end. Made by `Client.map` and `Pool.map`.

    No command runs before the first is asked for. When this is not used any more, what still runs is made to end.
    """

    def __init__(
        self,
        check: Callable[[], None],
        nursery: trio.Nursery,
        run: Run,
        commands: Iterable[Sequence[Path]],
        limit: int,
        return_errors: bool,
    ) -> None:
        """`check` raises an error where nothing can be run any more."""
        count("limit", limit)
        if isinstance(commands, str | bytes) or not isinstance(commands, Iterable):
            raise TypeError(f"commands must be lists of words, got {type(commands).__name__}")
        self._check = check
        self._nursery = nursery
        self._token: trio.lowlevel.TrioToken | None = None
        self._batch = _Batch(run, iter(commands), limit, _REFUSALS if return_errors else RequestError)
        self._return_errors = return_errors
        self._is_started = False
        self._given_back: list[Any] = []

    def __aiter__(self) -> Results[R_co]:
        return self

    async def __anext__(self) -> R_co:
        """Return the next result. Raises the error of a command, a `CommandError`, and then ends all others.

        `ConnectionLostError` is raised too. Cancelling loses nothing.
        """
        if not self._is_started:
            self._check()
            self._token = trio.lowlevel.current_trio_token()
            self._nursery.start_soon(self._batch.go)
            self._is_started = True
        try:
            ended = self._given_back.pop() if self._given_back else await self._batch.ended.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            if self._batch.is_whole:
                raise StopAsyncIteration from None
            raise ConnectionLostError("the client has ended before its commands") from None
        undo_if_late(partial(self._given_back.append, ended))
        if isinstance(ended, BaseException) and not (self._return_errors and isinstance(ended, CommandError)):
            await self.aclose()
            raise ended
        return ended  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """End what still runs, and wait for that. There are no further results."""
        self._batch.is_whole = True
        self._batch.scope.cancel()
        self._batch.ended.close()
        if self._is_started:
            with trio.CancelScope(shield=True):
                await happened(self._batch.over)
        await trio.lowlevel.checkpoint()

    def __del__(self) -> None:
        batch: _Batch | None = getattr(self, "_batch", None)
        if batch is not None and self._token is not None and not batch.over.is_set():
            try:
                self._token.run_sync_soon(batch.scope.cancel)
            except trio.RunFinishedError:
                return


class _Batch:
    """The commands under way: each of a few tasks runs one after the other."""

    def __init__(self, run: Run, commands: Iterator[Sequence[Path]], limit: int, refusals: Errors) -> None:
        """Each of the `refusals` is a `CommandError`."""
        self._run = run
        self._refusals = refusals
        self._commands = commands
        self._free = limit  # so many more tasks there may be
        self._tell, self.ended = trio.open_memory_channel[Any](0)
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        self.is_whole = False
        """True when no result is missing."""

    async def go(self) -> None:
        """Run all commands."""
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._work, nursery)
                self.is_whole = True
        finally:
            self._tell.close()
            self.over.set()

    async def _work(self, nursery: trio.Nursery) -> None:
        """Run a command, and the next one when its result was taken. Have another task begin, if it found one."""
        is_first = True
        self._free -= 1
        while True:
            try:
                argv = next(self._commands)
            except StopIteration:
                self._free = 0
                return
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # of the user's own iterator: an exit too is for who iterates
                self._commands, self._free = iter(()), 0
                await self._tell.send(error)
                return
            if is_first and self._free > 0:
                nursery.start_soon(self._work, nursery)
            is_first = False
            await self._tell.send(await self._end_of(argv))

    async def _end_of(self, argv: Sequence[Path]) -> Any:
        """Run one command, and return its result or its error."""
        try:
            return await self._run(argv)
        except self._refusals as error:
            ended = CommandError([str(word) for word in argv], f"could not be run: {error}")
            ended.__cause__, ended.server = error, getattr(error, "server", None)
            return ended
        except Exception as error:
            return error
