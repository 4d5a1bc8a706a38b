"""A connection as others see it: its name, how long it is kept, who has joined it and by which right.

Nothing here belongs to a channel. Who has joined is a `Member`, and hears of whoever comes and goes; so does the owner
of a connection that has a name or is kept.
"""

from __future__ import annotations

import math
import time
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

import trio
from msgspec import UNSET, UnsetType

from execsrv._doors.principal import Principal
from execsrv._nursery import owned
from execsrv._server.looks import Looks
from execsrv._server.sessions import Sessions
from execsrv._server.sizes import Sizes
from execsrv._server.start_keys import Keys
from execsrv.errors import ForbiddenError, LimitExceededError, UnknownConnectionError
from execsrv.protocol import (
    ConnectionPresence,
    JoinedMember,
    JoinRole,
    Keep,
    ListedConnection,
    Notification,
    SizePolicy,
)
from execsrv.protocol.roles import Role

if TYPE_CHECKING:
    from execsrv._server.connection_names import Directory
    from execsrv._server.visits import Visits

MOST_MEMBERS = 64
"""So many may have joined one connection."""

MOST_GRANTS = 64
"""So many grants of one connection may be open."""

ROLES: dict[JoinRole, Role] = {"viewer": Role.VIEWER, "writer": Role.WRITER, "owner": Role.OWNER}
WORDS: dict[Role, JoinRole] = {role: word for word, role in ROLES.items()}


class Terms(NamedTuple):
    """What a client asks for its connection in `initialize`."""

    client_name: str = ""
    name: str | None = None
    keep: Keep | None = None
    size_policy: SizePolicy = "owner"


NO_TERMS = Terms()


class Grant(NamedTuple):
    """The right to join. `principal` is whose it is; where that is None, it is of whoever knows the secret."""

    id: str
    role: JoinRole
    principal: str | None
    secret: str
    expires_at: float
    expiring: trio.CancelScope

    def admits(self, principal: Principal, secret: str | None) -> bool:
        """Return whether somebody may come in by it now."""
        if trio.current_time() >= self.expires_at:
            return False
        if self.principal is not None:
            return self.principal == principal.name
        import hmac  # which brings in OpenSSL

        return secret is not None and hmac.compare_digest(self.secret.encode(), secret.encode(errors="replace"))


class Member:
    """Somebody who has joined a connection."""

    def __init__(self, id: str, shared: Shared, visits: Visits, role: JoinRole, grant: Grant | None) -> None:
        """`id` is its name in that connection."""
        self.id = id
        self.shared = shared
        self.visits = visits
        self.role = role
        self.grant = grant

    def __repr__(self) -> str:
        return f"<Member {self.id} {self.role}>"

    def listed(self) -> JoinedMember:
        """Return what is told of it."""
        return JoinedMember(self.id, self.visits.principal.name, self.visits.client_name, self.role)


class Shared:
    """A connection as others see it. Its owner, on whatever channel, is `owner`."""

    def __init__(
        self,
        id: str,
        directory: Directory,
        principal: Principal,
        sessions: Sessions,
        visits: Visits,
        terms: Terms,
        life: trio.CancelScope,
    ) -> None:
        """`life` is what is cancelled to end it, with all that runs. `visits` are what it has joined itself."""
        self.id = id
        self.directory = directory
        self.principal = principal
        self.sessions = sessions
        self.visits = visits
        self.terms = terms
        self._life = life
        self.owner: Visits | None = None
        """The channel of its owner, as far as it can be told something."""
        self.ends_at = math.inf
        self.ends_with_channel = False
        """True once its owner has said that nobody comes back for it."""
        self.keys = Keys(sessions)
        self.sizes = Sizes(terms.size_policy)
        self.looks = Looks(directory.round)
        self.nursery: trio.Nursery | None = None
        """In which grants expire, as long as the connection lasts."""
        self.members: dict[str, Member] = {}
        self.grants: dict[str, Grant] = {}
        self._numbers = count(1)
        self._opened_at = time.monotonic()

    def __repr__(self) -> str:
        return f"<Shared {self.id} members={len(self.members)}>"

    def end(self) -> None:
        """End the connection, with all that runs. Its name is free at once."""
        self._life.cancel()

    @property
    def is_ending(self) -> bool:
        """True once it was told to end, or nobody has come back for it in time."""
        return self._life.cancel_called

    @property
    def is_open(self) -> bool:
        """True where its owner is told who comes and goes."""
        return self.terms.name is not None or self.terms.keep is not None or bool(self.grants)

    @property
    def public_id(self) -> str | UnsetType:
        """Its number, where its client asked for something that others see."""
        return self.id if self.is_open else UNSET

    # -- who may come in --

    def role_of(self, visits: Visits, secret: str | None = None) -> tuple[JoinRole | None, Grant | None]:
        """Return the most that somebody may be here, None where nothing, and the grant that it takes.

        Who has come in by a secret needs it no more, until he leaves.
        """
        principal, member = visits.principal, visits.members.get(self.id)
        if principal.name == self.principal.name:
            return WORDS.get(principal.role), None
        known = None if member is None or member.grant is None else member.grant.secret
        best: tuple[JoinRole | None, Grant | None] = None, None
        for grant in self.grants.values():
            admits = grant.admits(principal, secret) or grant.admits(principal, known)
            if admits and (best[0] is None or ROLES[best[0]] < ROLES[grant.role]):
                best = WORDS.get(min(ROLES[grant.role], principal.role)), grant
        return best

    def check(self, visits: Visits, needed: JoinRole) -> None:
        """Raise `ForbiddenError` unless somebody may be that here."""
        role, _ = self.role_of(visits)
        if role is None:
            raise unknown(self.id)
        if ROLES[role] < ROLES[needed]:
            text = f"connection {self.id} may be joined as {role}, and this takes the role {needed}"
            raise ForbiddenError(text, role=role, needed=needed)

    def join(self, visits: Visits, role: JoinRole, secret: str | None) -> Member:
        """Let somebody in, or change the role of who is in. Raises `ForbiddenError`, `UnknownConnectionError`."""
        most, grant = self.role_of(visits, secret)
        if most is None:
            raise unknown(self.id)
        if ROLES[most] < ROLES[role]:
            raise ForbiddenError(f"connection {self.id} may be joined as {most}, not as {role}", role=most, needed=role)
        member = next((member for member in self.members.values() if member.visits is visits), None)
        if member is None:
            if len(self.members) >= MOST_MEMBERS:
                text = f"{MOST_MEMBERS} have joined connection {self.id}, and no more may"
                raise LimitExceededError(text, limit="members", value=MOST_MEMBERS)
            member = Member(f"m{next(self._numbers)}", self, visits, role, grant)
            self.members[member.id] = member
        else:
            member.role, member.grant = role, grant
        self.tell("joined", member)
        return member

    def leave(self, member: Member, *, revoked: bool = False) -> None:
        """Let somebody go, who hears of it where it was not asked for."""
        if self.members.pop(member.id, None) is None:
            return
        self.tell("revoked" if revoked else "left", member)
        if revoked:
            member.visits.tell(self._presence("revoked", member))

    # -- grants --

    def grant(self, role: JoinRole, principal: str | None, seconds: float) -> Grant:
        """Let somebody come in from now on, for so many seconds. Raises `LimitExceededError`."""
        now = trio.current_time()
        if len(self.grants) >= MOST_GRANTS:
            text = f"{MOST_GRANTS} grants of connection {self.id} are open, and no more may be"
            raise LimitExceededError(text, limit="grants", value=MOST_GRANTS)
        import secrets  # which brings in OpenSSL

        secret = "" if principal is not None else secrets.token_urlsafe(24)
        grant = Grant(f"g{next(self._numbers)}", role, principal, secret, now + seconds, trio.CancelScope())
        self.grants[grant.id] = grant
        if seconds < math.inf and self.nursery is not None:
            self.nursery.start_soon(owned, self._expire, grant)
        return grant

    async def _expire(self, grant: Grant) -> None:
        with grant.expiring:
            await trio.sleep_until(grant.expires_at)
            self.revoke(grant)

    def revoke(self, grant: Grant) -> int:
        """Take a grant back. Return how many have to leave."""
        self.grants.pop(grant.id, None)
        grant.expiring.cancel()
        gone = [member for member in self.members.values() if member.grant is not None and member.grant.id == grant.id]
        for member in gone:
            member.visits.put_out(member)
        return len(gone)

    # -- what is told --

    def tell(self, happened: str, member: Member | None = None) -> None:
        """Tell the owner, and all that have joined, who came or went."""
        presence = self._presence(happened, member)
        if self.owner is not None and self.is_open:
            self.owner.tell(presence)
        for other in list(self.members.values()):
            other.visits.tell(presence)

    def _presence(self, happened: str, member: Member | None) -> Notification:
        told = None if member is None else member.listed()
        return Notification("connection/presence", ConnectionPresence(self.id, happened, told))  # type: ignore[arg-type]

    def listed(self, asker: Visits, own: bool) -> ListedConnection:
        """Return what is told of it to somebody who may join it."""
        now = trio.current_time()
        running = sum(1 for session in self.sessions if session.log.closed is None)
        return ListedConnection(
            connection_id=self.id,
            name=self.terms.name,
            principal=self.principal.name,
            client_name=self.terms.client_name,
            role=self.role_of(asker)[0] or "viewer",
            is_own=own,
            attached=self.owner is not None,
            keep=self.terms.keep,
            age_ms=int((time.monotonic() - self._opened_at) * 1000),
            ends_in_ms=None if self.ends_at == math.inf else max(0, int((self.ends_at - now) * 1000)),
            running=running + len(self.sessions.being_started()),
            ended=len(self.sessions) - running,
            members=[member.listed() for member in self.members.values()],
        )

    def close(self) -> None:
        """Tell that it has ended, and let everybody go. What they hear of its sessions comes to its end."""
        self.tell("ended")
        for member in list(self.members.values()):
            member.visits.lost(member)
        self.members.clear()
        self.grants.clear()
        self.owner = self.nursery = None


def unknown(ref: str) -> UnknownConnectionError:
    """Return the error of somebody who names a connection that is not there, or not his to see."""
    return UnknownConnectionError(f"unknown connection {ref}")
