"""Threads for the file work of one channel, with its bounds and with errors for the wire.

A thread that hangs in the file system when the channel ends is left behind. A long work stops at its next step.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from execsrv._budget.allowance import Allowance
from execsrv._files import AnswersLeft
from execsrv._files.holding import holding
from execsrv._files.listings import error_text
from execsrv._files.roots import Place, Roots
from execsrv._files.rules import Rules, Use
from execsrv._threads import run_in_thread
from execsrv._wire.paths import path_from_wire
from execsrv.errors import BusyError, FileError, FileRefusedError, FilesDisabledError, NotFoundError
from execsrv.limits import KIB, ServerConfig
from execsrv.protocol import FileCall, FilePath, FileWalk, Nothing
from execsrv.protocol.sandbox import Sandbox

T = TypeVar("T")
Call = Coroutine[Any, Any, T]

RulesOf = Callable[[Sandbox], Callable[[], Rules] | None]
"""Function that returns what makes the rules of a call's policy, None for a policy without any.

Raises `SandboxUnavailableError`, as does what it returns."""

_THREAD_BYTES = 128 * KIB
"""The cost of a thread, with what it may hold without asking."""

_LARGE_ANSWERS = 4
"""Large files and listings that one connection reads at once; each is read when the answers before it have left."""


class Work:
    """File work of one channel: the configuration, the roots, and how much is under way, of what is allowed."""

    def __init__(
        self, config: ServerConfig, answers_left: AnswersLeft, allowance: Allowance, rules_of: RulesOf
    ) -> None:
        self.config = config
        self.allowance = allowance
        self.roots = Roots(config.file_roots)
        self._rules_of = rules_of
        self._answers_left = answers_left
        self._threads = trio.CapacityLimiter(config.file_threads)
        self._large = trio.Semaphore(_LARGE_ANSWERS)
        self._queued_bytes = 0

    def path(self, params: FilePath | FileWalk) -> str:
        """Return the absolute path of a call. Raises `InvalidParamsError` and `FilesDisabledError`."""
        return self.checked(params.path, "path")

    def checked(self, path: str, field: str) -> str:
        """Return a path or URI off the wire as an absolute path.

        Raises `InvalidParamsError`, naming the field, and `FilesDisabledError`.
        """
        self.check_allowed()
        return path_from_wire(path, field)

    def roots_of(self, params: FileCall) -> Roots:
        """Return the roots for a call, narrowed by its policy. Raises `SandboxUnavailableError`."""
        rules = None if params.sandbox is None else self._rules_of(params.sandbox)
        return self.roots if rules is None else self.roots.under(rules)

    def check_allowed(self) -> None:
        """Raise `FilesDisabledError` where file methods are switched off."""
        if not self.config.allow_files:
            raise FilesDisabledError("the file methods are switched off on this server")

    def check_queue(self, size: int) -> None:
        """Raise `BusyError` when writes are under way and these bytes would exceed `queued_file_bytes`.

        Raises `LimitExceededError` where too much was written in this hour.
        """
        self.check_allowed()
        bound = self.config.queued_file_bytes
        if self._queued_bytes and self._queued_bytes + size > bound:
            raise BusyError(f"queued_file_bytes ({bound}) are being written", limit="queued_file_bytes", value=bound)
        self.allowance.written.take(size)

    def write(self, size: int, write: Callable[[], Awaitable[None]]) -> Call[Nothing]:
        """Return a call that writes these bytes. They count as under way from now until it ends."""
        self._queued_bytes += size

        async def counted() -> Nothing:
            try:
                await write()
            finally:
                self._queued_bytes -= size
            return Nothing()

        return counted()

    @asynccontextmanager
    async def large_answer(self) -> AsyncIterator[None]:
        """Wait for a place for a large answer, and hold it until the block is left."""
        async with self._large:
            await self._answers_left()
            yield

    async def in_place(
        self, params: FilePath, work: Callable[[Place], T], *, follow_last: bool | None = None, use: Use = "read"
    ) -> T:
        """Find the place of a call's path, and return what `work` makes of it in a thread. Raises `RequestError`."""
        path, roots = self.path(params), self.roots_of(params)

        def find_and_work() -> T:
            with roots.at(path, follow=follows(params), follow_last=follow_last, use=use) as place:
                return work(place)

        return await self.in_thread(find_and_work)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Return what `work` returns in a thread. Raises `FileError` for its `OSError`, and `BusyError`.

        Cancelling leaves the thread behind, since it cannot be made to stop waiting. It ends at its next step.
        """
        try:
            with self.allowance.for_files.taken_for(_THREAD_BYTES), holding(self.allowance):
                return await run_in_thread(work, self._threads)
        except OSError as error:
            raise file_error(error) from error


def follows(params: FilePath) -> bool:
    """Return whether a call follows links, which it does unless it says no."""
    return params.follow_symlinks is not False


def file_error(error: OSError) -> FileError:
    """Return the error that answers an error of the system."""
    number = error.errno or 0
    if number == errno.ENOENT:
        kind: type[FileError] = NotFoundError
    elif number in (errno.EACCES, errno.EPERM, errno.EINVAL):
        kind = FileRefusedError
    else:
        kind = FileError
    return kind(error_text(error), errno=number)
