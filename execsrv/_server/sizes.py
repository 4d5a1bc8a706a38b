"""The sizes of terminals that several people look at: whose it is, as the owner of the connection chose."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from execsrv._server.session import Session
from execsrv.protocol import Size, SizePolicy

if TYPE_CHECKING:
    from execsrv._server.visits import Visits


class Sizes:
    """The sizes that those who look at the terminals of one connection have asked for."""

    def __init__(self, policy: SizePolicy) -> None:
        self._policy = policy
        self._asked: WeakKeyDictionary[Session, dict[Visits, Size]] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<Sizes {self._policy}>"

    def ask(self, session: Session, who: Visits, owner: Visits | None, size: Size) -> None:
        """Note that somebody has a terminal of that size, and give the session's its own. `owner` is there, or None."""
        if self._policy == "owner" and owner is not None and who is not owner:
            return
        if self._policy != "smallest":
            session.resize(size)
            return
        asked = self._asked.setdefault(session, {})
        if not asked and owner is not None and session.size is not None:
            asked[owner] = session.size  # it had this from its start
        asked[who] = size
        self._apply(session, asked)

    def leave(self, session: Session, who: Visits) -> None:
        """Note that somebody does not look at a terminal any more."""
        asked = self._asked.get(session)
        if asked and asked.pop(who, None) is not None and asked:
            self._apply(session, asked)

    def leave_all(self, who: Visits) -> None:
        """Note that somebody looks at none of them any more."""
        for session in list(self._asked):
            self.leave(session, who)

    @staticmethod
    def _apply(session: Session, asked: dict[Visits, Size]) -> None:
        """Give a terminal the size that all can see whole. Pixels are those of nobody."""
        sizes = list(asked.values())
        if len(sizes) == 1:
            session.resize(sizes[0])
        else:
            session.resize(Size(min(size.rows for size in sizes), min(size.cols for size in sizes)))
