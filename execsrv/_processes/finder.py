"""The contract between a session's tree and whoever knows which processes belong to it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

import trio

from execsrv._processes.proc import Steps
from execsrv.protocol import Layer

if TYPE_CHECKING:
    from execsrv._processes.tree import ProcessTree
    from execsrv._threads import ThreadSlots


class Finder(Protocol):
    """A way of knowing who belongs to a session."""

    layer: Layer
    """The layer of docs/survival.md that it goes by, and so what an empty answer proves."""

    turn: trio.Lock
    """Held by whoever looks for long."""

    looks: ThreadSlots
    """The threads for looks that may hang in the kernel."""

    def spare(self) -> AbstractContextManager[None]:
        """Leave descriptors to a block that were kept for a time when there are no others. It must not await."""

    def find(self, tree: ProcessTree) -> Steps[dict[int, int]]:
        """Find the living processes of a session, its leader included: each with its parent, 0 where it has a mark.

        Nobody is the answer only when nobody was there. Who comes and goes too fast may be named and have ended.
        """

    def belongs(self, tree: ProcessTree, pid: int) -> bool:
        """Tell whether that number is, now, a process of the session."""

    def ending(self, tree: ProcessTree) -> None:
        """Hear that the session is being ended."""

    def ended(self, tree: ProcessTree) -> None:
        """Hear that the session is over. Its leader may still have to be reaped, when a debugger has let go of it."""
