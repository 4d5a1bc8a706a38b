"""Who comes to connections and leaves them, for one who listens."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import get_args

import trio

from execsrv.client.iteration import Iteration
from execsrv.client.late import undo_if_late
from execsrv.protocol import ConnectionPresence
from execsrv.protocol.sharing import Coming

_MOST_UNREAD = 256


class Presence(Iteration[ConnectionPresence]):
    """What was told and not read yet. The oldest of too much is let go."""

    def __init__(self) -> None:
        super().__init__(self._next)
        self._told: deque[ConnectionPresence] = deque(maxlen=_MOST_UNREAD)
        self._news = trio.lowlevel.ParkingLot()
        self._is_over = False

    def tell(self, presence: ConnectionPresence) -> None:
        """Add what happened. A newer server may tell of what nobody here knows: that is passed over."""
        if presence.happened not in get_args(Coming):
            return
        self._told.append(presence)
        self._news.unpark_all()

    def end(self) -> None:
        """End the iteration behind what was told."""
        self._is_over = True
        self._news.unpark_all()

    async def _next(self) -> ConnectionPresence | None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._told and not self._is_over:
            await self._news.park()
        if not self._told:
            return None
        presence = self._told.popleft()
        undo_if_late(partial(self._give_back, presence))
        return presence

    def _give_back(self, presence: ConnectionPresence) -> None:
        if len(self._told) < _MOST_UNREAD:
            self._told.appendleft(presence)
