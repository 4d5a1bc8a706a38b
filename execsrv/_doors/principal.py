"""Who speaks over a channel: all that the service knows of a peer. Pure: finding it is `doorkeeper.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from execsrv.errors import ForbiddenError, UnauthorizedError
from execsrv.protocol.roles import Role


class Principal(NamedTuple):
    """Somebody who was let in. Two channels are of the same one if the names are equal."""

    name: str
    role: Role
    credential: str = ""
    """What let them in, where that is read again: the hash of a token of a file, or a mark of what has signed it."""

    def __str__(self) -> str:
        return f"{self.name} ({self.role.word})"

    def check(self, needed: Role, what: str) -> None:
        """Raise `ForbiddenError` where the role does not suffice for something, the subject of the error's sentence."""
        if self.role < needed:
            text = f"{what} needs the role {needed.word}, and this is a {self.role.word}"
            raise ForbiddenError(text, role=self.role.word, needed=needed.word)


Identify = Callable[[str | None], Principal]
"""Tells of a channel who speaks over it, given the token in `initialize`. Raises `UnauthorizedError`."""

Shown = Callable[[], Principal | None]
"""Tells whose certificate was shown, None for nobody's. Raises `UnauthorizedError` for one that is not enough."""


def nothing_shown() -> None:
    """Return nobody: there is no certificate to be shown."""


OWNER = Principal("owner", Role.OWNER)
"""Whoever has started the server, or runs it inside a program: no other can reach such a channel."""

TOKEN = "token "
"""Begins the name of whoever came in by a token of a file."""

BEARER = "bearer "
"""Begins the name of whoever came in by a signed token."""

NO_TOKENS = "invalid websocket bearer token: this server has no tokens"
"""Where a token is presented to a server that takes none."""


def owner(token: str | None) -> Principal:
    """Return the owner: nobody else holds the other end. Raises `UnauthorizedError` for a token: none is known here.

    Somebody who presents one believes in it, and is told rather than let in whatever it is.
    """
    if token is not None:
        raise UnauthorizedError(NO_TOKENS)
    return OWNER
