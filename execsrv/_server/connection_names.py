"""The connections of one server as their peers know them: by a number, and by a name of their owner's choice."""

from __future__ import annotations

import math
import re
from itertools import count

import trio

from execsrv._doors.principal import Principal
from execsrv._server.looks import Round
from execsrv._server.sessions import Sessions
from execsrv._server.sharing import Shared, Terms, unknown
from execsrv._server.visits import Visits
from execsrv._wire.quoting import quoted
from execsrv.errors import InvalidParamsError, LimitExceededError, NameTakenError
from execsrv.limits import ServerConfig
from execsrv.protocol.roles import Role
from execsrv.protocol.sharing import MOST_NAME_CHARACTERS

_NAME = r"[A-Za-z][A-Za-z0-9._-]*"


class Directory:
    """All connections that there are."""

    def __init__(self) -> None:
        self._by_id: dict[str, Shared] = {}
        self._numbers = count(1)
        self.round = Round()
        """Of the looks of all those who wait for something."""

    def __repr__(self) -> str:
        return f"<Directory {len(self._by_id)}>"

    @property
    def count(self) -> int:
        """All that there are."""
        return len(self._by_id)

    @property
    def kept(self) -> int:
        """Connections that may go on without a channel."""
        return sum(1 for shared in self._by_id.values() if shared.terms.keep is not None)

    def count_of(self, principal: Principal) -> int:
        """Return how many are somebody's."""
        return len(self._of(principal))

    def kept_of(self, principal: Principal) -> int:
        """Return how many of somebody's may go on without a channel."""
        return sum(1 for shared in self._of(principal) if shared.terms.keep is not None)

    def _of(self, principal: Principal) -> list[Shared]:
        return [shared for shared in self._by_id.values() if shared.principal.name == principal.name]

    def add(
        self, principal: Principal, sessions: Sessions, visits: Visits, terms: Terms, life: trio.CancelScope
    ) -> Shared:
        """Enter a connection. `remove` must follow."""
        shared = Shared(str(next(self._numbers)), self, principal, sessions, visits, terms, life)
        self._by_id[shared.id] = shared
        return shared

    def remove(self, shared: Shared) -> None:
        """Forget a connection, and tell everybody there that it has ended."""
        if self._by_id.pop(shared.id, None) is not None:
            shared.close()

    def check(self, principal: Principal, terms: Terms, config: ServerConfig) -> None:
        """Refuse terms that a connection cannot have here.

        Raises `ForbiddenError`, `InvalidParamsError`, `NameTakenError` and `LimitExceededError`.
        """
        if terms.name is not None or terms.keep is not None:
            principal.check(Role.VIEWER, "`initialize` with `name` or `keep`")
        if (name := terms.name) is not None:
            if len(name) > MOST_NAME_CHARACTERS or not re.fullmatch(_NAME, name):
                text = (
                    f"name: {quoted(name)} is not a name: it takes a letter, then letters, digits and `._-`,"
                    f" {MOST_NAME_CHARACTERS} in all"
                )
                raise InvalidParamsError(text, field="name")
            if self.named(name, principal) is not None:
                raise NameTakenError(f"a connection with the name {quoted(name)} is there already", name=name)
        if terms.keep is None:
            return
        if config.max_keep == 0 or (terms.keep != "untilIdle" and terms.keep > config.max_keep):
            message = f"keep is {terms.keep}: max_keep ({config.max_keep:g} s) would be exceeded"
            raise LimitExceededError(message, limit="max_keep", value=config.max_keep)
        if self.kept >= (bound := config.max_kept):
            message = f"max_kept ({bound}) are there"
            raise LimitExceededError(message, limit="max_kept", value=bound)
        if self.kept_of(principal) >= (share := kept_by_one(config)):
            message = f"max_kept ({share} for one principal) are there"
            raise LimitExceededError(message, limit="max_kept", value=share)

    def named(self, name: str, principal: Principal) -> Shared | None:
        """Return the connection of somebody with that name, unless it is ending."""
        for shared in self._by_id.values():
            if shared.terms.name == name and shared.principal.name == principal.name and not shared.is_ending:
                return shared
        return None

    def find(self, ref: str, visits: Visits, secret: str | None = None) -> Shared:
        """Return a connection that somebody may see, by its number or, of his own, its name.

        Raises `UnknownConnectionError`, for one that he may not see too.
        """
        shared = self._by_id.get(ref) or self.named(ref, visits.principal)
        if shared is None or shared.role_of(visits, secret)[0] is None:
            raise unknown(quoted(ref))
        return shared

    def seen_by(self, visits: Visits) -> list[Shared]:
        """Return all connections that somebody may join, or has joined, oldest first."""
        return [shared for shared in self._by_id.values() if shared.role_of(visits)[0] is not None]


def kept_by_one(config: ServerConfig) -> int:
    """Return how many connections of one principal may be there that are kept."""
    return math.ceil(config.max_kept * config.principal_percent / 100)
