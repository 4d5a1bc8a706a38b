# Written by tests/facades.py from execsrv.client.many: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client under asyncio. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

from typing import Generic, Self

from execsrv._portal.awaiting import Facade
from execsrv.client.many import R_co
from execsrv.client.many import Results as TrioResults


class Results(Facade, Generic[R_co], of=TrioResults):
    """The results of many commands, as they end. Made by `Client.map` and `Pool.map`.

    No command runs before the first is asked for. When this is not used any more, what still runs is made to end.
    """

    async def close(self) -> None:
        """End what still runs, and wait for that. There are no further results."""
        return await self._wait("aclose")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R_co:
        """Return the next result. Raises the error of a command, a `CommandError`, and then ends all others.

        `ConnectionLostError` is raised too. Cancelling loses nothing.
        """
        return await self._take("__anext__")
