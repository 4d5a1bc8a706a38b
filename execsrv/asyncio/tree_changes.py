# Written by tests/facades.py from execsrv.client.tree_changes: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client under asyncio. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

from typing import Self

from execsrv._portal.awaiting import Held
from execsrv.client.tree_changes import Changes as TrioChanges
from execsrv.client.tree_changes import FileChanged


class Changes(Held, of=TrioChanges):
    """The changes of one watch, in their order: `async for change in changes`. Cancelling loses none."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FileChanged:
        """Return the next change. Raises `NotFoundError` when the directory itself is gone, after saying so.

        `trio.ClosedResourceError` is for who asks after the block.
        """
        return await self._take("__anext__")
