"""The settings of a server for everything that its peers have together, and for the share of one principal."""

# No `from __future__ import annotations`: `dataclasses.fields` is to give the types themselves, not their text.

from typing import Annotated

from msgspec import Meta

from execsrv._setting_units import BUDGETS, GIB, MIB, Bytes, Count
from execsrv.limits.group import Settings, group


@group(frozen=True, kw_only=True)
class BudgetSettings(Settings):
    """A part of `ServerConfig`."""

    held_bytes: Annotated[
        Bytes,
        BUDGETS,
        Meta(
            ge=8 * MIB,
            description="Memory for everything that the server holds for its peers: output, input, messages, answers,"
            " bodies, sessions. When it is used up, retained output is forgotten, the oldest first; then the newest is"
            " refused.",
        ),
    ] = 1 * GIB

    principal_percent: Annotated[
        int,
        BUDGETS,
        Meta(ge=1, le=100, description="The part of each other setting in this group that one principal may have."),
    ] = 50

    max_sessions: Annotated[Count, BUDGETS, Meta(ge=1, description="Running sessions. One more is refused.")] = 4096

    max_file_handles: Annotated[
        Count,
        BUDGETS,
        Meta(
            ge=0,
            description="Files that are open by `fs/open`, and snapshots of login shells that are kept. One more is"
            " refused, and a snapshot not kept.",
        ),
    ] = 1024

    max_watches: Annotated[
        Count, BUDGETS, Meta(ge=0, description="Watches of files and directories. One more is refused.")
    ] = 512

    max_http_exchanges: Annotated[
        Count,
        BUDGETS,
        Meta(ge=0, description="HTTP requests under way, streamed bodies included. One more is refused."),
    ] = 512

    starts_per_second: Annotated[
        Count,
        BUDGETS,
        Meta(ge=1, description="Starts of commands, in the long run. What is not used is saved for ten seconds."),
    ] = 2000

    requests_per_second: Annotated[
        Count,
        BUDGETS,
        Meta(ge=1, description="Requests of any kind, in the long run. What is not used is saved for ten seconds."),
    ] = 100_000

    written_file_bytes_per_hour: Annotated[
        Bytes,
        BUDGETS,
        Meta(ge=1, description="What file methods write, copies included. As much may come at once."),
    ] = 1024 * GIB
