"""The settings of a server for who is let in, and by which proof."""

# No `from __future__ import annotations`: `dataclasses.fields` is to give the types themselves, not their text.

from typing import Annotated

from msgspec import Meta

from execsrv._setting_units import DOORS, FilePath, Seconds, Uid
from execsrv.limits.group import Settings, group

_USERS = Meta(extra={"items": "numbers of users", "metavar": "UID"})
_NAMES = Meta(extra={"items": "names of hosts", "metavar": "HOST", "separator": ","})
_ORIGINS = Meta(extra={"items": "origins, such as `https://tools.example`", "metavar": "ORIGIN", "separator": ","})


@group(frozen=True, kw_only=True)
class IdentitySettings(Settings):
    """A part of `ServerConfig`."""

    allow_same_user: Annotated[
        bool,
        DOORS,
        Meta(
            description="Whether the server's own user, and root, need no token: on a unix socket, and on the loopback"
            " address. A command of the server always needs one."
        ),
    ] = True

    allow_uids: Annotated[
        tuple[Uid, ...],
        DOORS,
        _USERS,
        Meta(description="Users of this machine that need no token either. They act as the server's user."),
    ] = ()

    token_file: Annotated[
        FilePath,
        DOORS,
        Meta(
            description="The tokens that are taken, each with its name and its role, written by `execsrv token`. Read"
            " again at SIGHUP.",
            extra={"variable": "EXECSRV_SERVER_TOKEN_FILE"},
        ),
    ] = ""

    bearer_secret_file: Annotated[
        FilePath,
        DOORS,
        Meta(
            description="The secret of signed tokens (JWT, HS256) that are taken, 32 bytes or more. Needs"
            " `execsrv[jwt]`. Read again at SIGHUP."
        ),
    ] = ""

    bearer_issuer: Annotated[
        str, DOORS, Meta(description="The `iss` that a signed token must have. Default: any, or none.")
    ] = ""

    bearer_audience: Annotated[
        str, DOORS, Meta(description="The `aud` that a signed token must have. Default: it must have none.")
    ] = ""

    bearer_clock_skew: Annotated[
        Seconds,
        DOORS,
        Meta(ge=0, description="How far the clock of an issuer may be off: `exp` and `nbf` are taken so much wider."),
    ] = 30.0

    allowed_hosts: Annotated[
        tuple[Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.-]+\Z")], ...],
        DOORS,
        _NAMES,
        Meta(
            description="Names under which a websocket of ours is reached. An address, `localhost` and the name of this"
            " machine always are: any other name may be that of a page in a browser that had it lead here."
        ),
    ] = ()

    allowed_origins: Annotated[
        tuple[Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9+.-]*://[^/\s,]+\Z")], ...],
        DOORS,
        _ORIGINS,
        Meta(
            description="Origins of web pages that may open a websocket. They act as whoever has the browser, if that"
            " one needs no token."
        ),
    ] = ()
