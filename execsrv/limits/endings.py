"""The settings of a server for the time that ends take."""

# No `from __future__ import annotations`: `dataclasses.fields` is to give the types themselves, not their text.

from typing import Annotated

from msgspec import Meta

from execsrv._setting_units import ENDINGS, NEEDS_RESTART, Seconds
from execsrv.limits.group import Settings, group


@group(frozen=True, kw_only=True)
class EndingSettings(Settings):
    """A part of `ServerConfig`."""

    end_grace: Annotated[
        Seconds,
        ENDINGS,
        Meta(ge=0, description="At a deadline, or with the leader's end: how long what is left has after SIGTERM."),
    ] = 2.0

    hangup_grace: Annotated[
        Seconds,
        ENDINGS,
        Meta(ge=0, description="At a connection's end, however it came: how long its commands have after SIGTERM."),
    ] = 0.5

    max_grace: Annotated[
        Seconds,
        ENDINGS,
        Meta(ge=0, description="The longest time that a start may ask for in the place of these two (`graceMs`)."),
    ] = 60.0

    drain_period: Annotated[
        Seconds,
        ENDINGS,
        Meta(
            ge=0,
            description="At the server's end: how long those who are in may go on with what runs. Nothing is started"
            " meanwhile and nobody new is let in. It is over as soon as nothing runs.",
        ),
    ] = 0.0

    shutdown_grace_period: Annotated[
        Seconds,
        ENDINGS,
        Meta(ge=0, description="At the server's end, after that: how long commands have at most after SIGTERM."),
    ] = 1.0

    guardian_patience: Annotated[
        Seconds,
        ENDINGS,
        NEEDS_RESTART,
        Meta(
            ge=0, description="How long the server may stand still. Then its commands are killed; at 0 they never are."
        ),
    ] = 0.0
