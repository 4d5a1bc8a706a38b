"""Iteration that can be left early: nothing stays behind that wants to be closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Iteration(AsyncIterator[T]):
    """Iteration by a function that returns None at the end. It is no generator, so that it may be left early."""

    def __init__(self, take: Callable[[], Awaitable[T | None]]) -> None:
        self._take = take

    def __aiter__(self) -> Iteration[T]:
        return self

    async def __anext__(self) -> T:
        if (value := await self._take()) is None:
            raise StopAsyncIteration
        return value
