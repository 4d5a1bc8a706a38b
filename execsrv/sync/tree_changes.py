# Written by tests/facades.py from execsrv.client.tree_changes: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client in plain code. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

from typing import Self

from execsrv._portal.blocking import Held
from execsrv.client.tree_changes import Changes as TrioChanges
from execsrv.client.tree_changes import FileChanged


class Changes(Held, of=TrioChanges):
    """The changes of one watch, in their order: `for change in changes`. An interrupt loses none."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FileChanged:
        """Return the next change. Raises `NotFoundError` when the directory itself is gone, after saying so.

        `trio.ClosedResourceError` is for who asks after the block.
        """
        return self._next()
