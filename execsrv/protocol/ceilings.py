"""`server/limits`: the ceilings of a server, with what is in use of each."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from execsrv.protocol.bounds import Name
from execsrv.protocol.messages import Told, Wire

CeilingScope = Literal["server", "principal", "connection", "session", "each"]


class CeilingsAsked(Wire, frozen=True):
    """Ask for the ceilings of these settings. None: for all."""

    settings: Annotated[list[Name], Meta(max_length=256)] | None = None


class Ceiling(Wire, frozen=True):
    """One ceiling: `setting` names what sets it, `value` is what that is set to.

    `most` is how much there may be for the `scope`: all peers of the server, all of the asker's principal, any one
    connection, any one session, or each message, file or wait by itself.
    """

    setting: str
    value: int | float
    unit: str
    """"bytes", "seconds", or empty for what is counted."""
    scope: Told[CeilingScope]
    most: int | float
    used: int | None = None
    """How much is in use now. A bound for each connection or session has that of the one that uses most, among those
    that the asker may see. None where it is not counted, or not told to this role."""
    refused: int | None = None
    """So often somebody was refused for it, where that is counted."""


class Ceilings(Wire, frozen=True):
    """All of them, those that are counted first."""

    limits: list[Ceiling]
