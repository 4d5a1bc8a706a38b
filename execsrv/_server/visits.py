"""The visits of one connection to others: what it has joined, and what it hears of their sessions.

They last as long as the connection does, over all of its channels. A session of another connection is called by the
name under which it was attached, in everything that is asked and told of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import trio

from execsrv._budget.budget import Budget
from execsrv._budget.pace import Pace
from execsrv._doors.principal import Principal
from execsrv._server.feed import Dialect
from execsrv._server.outbox import Outbox
from execsrv._server.session import Session
from execsrv._server.sharing import ROLES, Member, Shared
from execsrv.errors import ForbiddenError, LimitExceededError, NotReadyError, ProcessExistsError, UnknownProcessError
from execsrv.limits import KIB
from execsrv.protocol import JoinRole, Notification
from execsrv.protocol.roles import Role

if TYPE_CHECKING:
    from execsrv._server.view import View

MEMBER_BYTES = 4 * KIB
"""The cost of having joined a connection."""

_MOST_VIEWS = 256
"""So many sessions of others one connection may be attached to."""

_MOST_UNREAD = 64 * KIB
"""Who has so much unread in its outbox is not told who comes and goes: `connection/list` has it."""


class Visit(NamedTuple):
    """A session of another connection, under a name of the visitor's."""

    session: Session
    view: View
    member: Member


class Visits:
    """What one connection has joined."""

    def __init__(self, principal: Principal, client_name: str, held: Budget) -> None:
        """What they cost is taken from the budget of who visits."""
        self.principal = principal
        self.client_name = client_name
        self.members: dict[str, Member] = {}
        """By the id of the connection that was joined."""
        self.by_id: dict[str, Visit] = {}
        """The sessions of others, by the names that they have here."""
        self._held = held
        self._outbox: Outbox | None = None

    def __repr__(self) -> str:
        return f"<Visits joined={len(self.members)} attached={len(self.by_id)}>"

    # -- joining --

    def join(self, shared: Shared, role: JoinRole, secret: str | None) -> Member:
        """Join a connection. Raises `ForbiddenError`, `LimitExceededError` and `UnknownConnectionError`."""
        if shared.id in self.members:
            return shared.join(self, role, secret)
        self._held.take(MEMBER_BYTES)
        try:
            member = shared.join(self, role, secret)
        except BaseException:
            self._held.give(MEMBER_BYTES)
            raise
        self.members[shared.id] = member
        return member

    def leave(self, member: Member, *, revoked: bool = False) -> None:
        """Leave a connection, and hear no more of its sessions."""
        for id, visit in list(self.by_id.items()):
            if visit.member is member:
                self.detach(id)
        self.lost(member)
        member.shared.leave(member, revoked=revoked)

    def put_out(self, member: Member) -> None:
        """Leave a connection because it was said so there."""
        self.leave(member, revoked=True)

    def lost(self, member: Member) -> None:
        """Note that a connection has ended. What is still to be heard of its sessions is heard."""
        if self.members.pop(member.shared.id, None) is not None:
            self._held.give(MEMBER_BYTES)

    # -- sessions of others --

    def attach_to(
        self,
        member: Member,
        session: Session,
        id: str,
        after_seq: int,
        window: int | None,
        dialect: Dialect,
        per_second: int,
    ) -> View:
        """Hear of a session of a connection that was joined. Nothing is told before `View.begin`.

        All views of the session together get so many bytes `per_second`.

        Attached to again under the same name, it is heard anew: whoever asks again may not have had the answer. Raises
        `ProcessExistsError` for the name of another one, and `LimitExceededError`.
        """
        if (before := self.by_id.get(id)) is not None:
            if before.session is not session or before.member is not member:
                raise ProcessExistsError(f"process ID already exists: `{id}`", processId=id)
            del self.by_id[id]
            before.view.close()
        if len(self.by_id) >= _MOST_VIEWS:
            text = f"{_MOST_VIEWS} processes are attached to, and no more may be"
            raise LimitExceededError(text, limit="attached", value=_MOST_VIEWS)
        from execsrv._log.viewer import Viewer  # `process/attach` loads both
        from execsrv._server.view import View

        viewer = Viewer(session.log, after_seq, window)
        pace = session.feed.pace = session.feed.pace or Pace(per_second, trio.current_time())
        view = View(id, session.log, session.feed, dialect, viewer, self._outbox, self._held, pace)
        self.by_id[id] = Visit(session, view, member)
        return view

    def detach(self, id: str) -> None:
        """Hear no more of a session. Raises `UnknownProcessError`."""
        if (visit := self.by_id.pop(id, None)) is None:
            raise UnknownProcessError(f"unknown process id {id}")
        visit.view.close()
        if all(other.session is not visit.session for other in self.by_id.values()):
            visit.member.shared.sizes.leave(visit.session, self)

    def check(self, id: str, needed: Role) -> None:
        """Raise `ForbiddenError` where an id is a session of others, and the role there does not suffice."""
        visit = self.by_id.get(id)
        if visit is not None and (role := ROLES[visit.member.role]) < needed:
            text = f"process {id} is attached to as {visit.member.role}, and this takes the role {needed.word}"
            raise ForbiddenError(text, role=role.word, needed=needed.word)

    def member_of(self, shared: Shared) -> Member:
        """Return the membership in a connection. Raises `NotReadyError` where it was not joined."""
        if (member := self.members.get(shared.id)) is None:
            raise NotReadyError(f"join connection {shared.id} before attaching to its processes")
        return member

    # -- its channel --

    def attach(self, outbox: Outbox) -> None:
        """Hear there from now on. Of each session, once its log is read again."""
        self._outbox = outbox
        for visit in self.by_id.values():
            visit.view.attach(outbox)

    def detach_all(self) -> None:
        """Hear nothing until there is a channel again."""
        self._outbox = None
        for visit in self.by_id.values():
            visit.view.detach()

    def tell(self, notification: Notification) -> None:
        """Tell of somebody who came or went, as far as what was told before is read."""
        if self._outbox is not None and self._outbox.waiting_bytes < _MOST_UNREAD:
            self._outbox.put(notification)

    def close(self) -> None:
        """Leave everything."""
        self._outbox = None
        for member in list(self.members.values()):
            self.leave(member)
        for id in list(self.by_id):
            self.detach(id)
