"""A coroutine that begins when it is first waited for. Nobody is warned of one that is not."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Coroutine, Generator
from functools import cached_property
from typing import Any, TypeVar

T = TypeVar("T")


class Deferred(Coroutine[Any, Any, T]):
    """Is awaited, as often as wanted, or made a task of, once."""

    @abstractmethod
    async def _entered(self) -> T:
        """Do it, and return what it gives."""

    def __await__(self) -> Generator[Any, None, T]:
        return self._entered().__await__()

    @cached_property
    def _task(self) -> Coroutine[Any, Any, T]:
        return self._entered()

    def send(self, value: Any) -> Any:
        """Go on, as a task has it."""
        return self._task.send(value)

    def throw(self, *error: Any) -> Any:
        """Go on by an error."""
        return self._task.throw(*error)

    def close(self) -> None:
        """End it where it waits."""
        self._task.close()
