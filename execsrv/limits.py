"""Every bound and every setting of the server and the client, with its unit, its default and the reason for it.

A bound that nobody has a reason to change is no setting: it is a constant, beside the code that keeps to it. A size
has `bytes` in its name; every time is in seconds. The meaning of a field and the values that it takes stand in its
type, and nowhere else: validation, the options of `execsrv serve`, the tables of the documentation and a JSON schema
are made from it. Nothing is validated here: `execsrv serve` does that with its options, and a program that makes its
own `ServerConfig` has its type checker.
"""

# No `from __future__ import annotations`: `dataclasses.fields` is to give the types themselves, not their text.

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from execsrv._setting_units import COMMANDS, CONNECTIONS, ENDINGS, FILES, HTTP, MESSAGES, STREAMS, Bytes, Count, Seconds
from execsrv._setting_units import GIB as GIB
from execsrv._setting_units import KIB as KIB
from execsrv._setting_units import MIB as MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds that either side of a channel has. Use `ClientConfig` or `ServerConfig`."""

    handshake_timeout: Annotated[
        Seconds,
        CONNECTIONS,
        Meta(gt=0, description="How long connecting, a websocket's handshake, and `initialize` may take, each."),
    ] = 10.0

    max_message_bytes: Annotated[
        Bytes,
        MESSAGES,
        Meta(ge=KIB, description="The largest message taken in. A larger one closes the channel: its id is not known."),
    ] = 64 * MIB

    flush_timeout: Annotated[
        Seconds,
        ENDINGS,
        Meta(ge=0, description="At a channel's end: how long the last messages may take to leave."),
    ] = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig(Limits):
    """All that can be set of a client. Frozen: make another one with `dataclasses.replace`."""

    window_bytes: Annotated[
        Bytes,
        STREAMS,
        Meta(
            ge=1,
            description="Output of one session that waits for its reader in the client. Beyond it that session blocks,"
            " and no other.",
        ),
    ] = 1 * MIB

    ping_interval: Annotated[
        Seconds, CONNECTIONS, Meta(gt=0, description="How often a websocket's server is asked for a sign of life.")
    ] = 10.0

    ping_timeout: Annotated[
        Seconds,
        CONNECTIONS,
        Meta(gt=0, description="How long the server may leave that unanswered. Then the connection is lost."),
    ] = 10.0

    leave_timeout: Annotated[
        Seconds,
        ENDINGS,
        Meta(ge=0, description="On leaving the block of a session: how long its end is waited for."),
    ] = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig(Limits):
    """All that can be set of a server. Frozen: make another one with `dataclasses.replace`."""

    max_connections: Annotated[
        Count, CONNECTIONS, Meta(ge=1, description="Connections that the server keeps at once. One more is refused.")
    ] = 256

    requests_in_flight: Annotated[
        Count,
        CONNECTIONS,
        Meta(
            ge=1,
            description="Requests of one connection that may wait at once (for output, for a program that reads). One"
            " more that might have to is answered `busy`.",
        ),
    ] = 256

    ping_interval: Annotated[
        Seconds, CONNECTIONS, Meta(gt=0, description="How often a websocket's client is asked for a sign of life.")
    ] = 20.0

    ping_timeout: Annotated[
        Seconds,
        CONNECTIONS,
        Meta(gt=0, description="How long the client may leave that unanswered. Then its channel ends."),
    ] = 20.0

    resume_grace: Annotated[
        Seconds,
        CONNECTIONS,
        Meta(
            ge=0,
            description="How long a connection waits for a new channel when it has lost its own, with all its sessions"
            " running. At 0, hanging up is cancelling.",
        ),
    ] = 0.0

    unsent_output_bytes: Annotated[
        Bytes,
        STREAMS,
        Meta(
            ge=1,
            description="Output that waits for a slow reader. Beyond it the session stops reading its pipe, and the"
            " program blocks as with any pipe. Four reads keep the writer busy while the pump waits its turn.",
        ),
    ] = 256 * KIB

    max_window_bytes: Annotated[
        Bytes,
        STREAMS,
        Meta(ge=1, description="The largest window that a client may ask for: the server may have to hold as much."),
    ] = 16 * MIB

    retained_output_bytes_per_session: Annotated[
        Bytes,
        STREAMS,
        Meta(ge=0, description="Output kept for `process/read` after it was sent. The oldest goes first."),
    ] = 1 * MIB

    queued_stdin_bytes: Annotated[
        Bytes,
        STREAMS,
        Meta(ge=0, description="Input held for a program that does not read it. A write beyond is refused."),
    ] = 8 * MIB

    max_sessions_per_connection: Annotated[
        Count, COMMANDS, Meta(ge=1, description="Running sessions of one connection. One more is refused.")
    ] = 1024

    retained_sessions: Annotated[
        Count,
        COMMANDS,
        Meta(ge=0, description="Ended sessions that one connection keeps readable. The oldest goes first."),
    ] = 256

    exited_retention: Annotated[
        Seconds, COMMANDS, Meta(ge=0, description="How long an ended session stays readable.")
    ] = 80.0

    allow_direct_exec: Annotated[
        bool,
        COMMANDS,
        Meta(description='Whether requests of kind "direct" run: the server may look up the program in `PATH`.'),
    ] = True

    allow_prepared_exec: Annotated[
        bool, COMMANDS, Meta(description='Whether requests of kind "prepared" run: exactly what was sent.')
    ] = True

    cgroup: Annotated[
        bool,
        COMMANDS,
        Meta(description="Whether the server and its commands move into a control group of their own, if any."),
    ] = True

    allow_files: Annotated[bool, FILES, Meta(description="Whether the file methods (`fs/*`) answer at all.")] = True

    file_roots: Annotated[
        tuple[Annotated[str, Meta(pattern=r"\A/[^\0]*\Z")], ...],
        FILES,
        Meta(min_length=1, description="The directories that file methods reach, with no way out through links."),
    ] = ("/",)

    file_threads: Annotated[
        int,
        FILES,
        Meta(ge=1, le=1024, description="File operations of one connection that run at once. More wait."),
    ] = 16

    file_handles: Annotated[
        Count, FILES, Meta(ge=0, description="Files that one connection may hold open with `fs/open`.")
    ] = 128

    file_block_bytes: Annotated[
        Bytes,
        FILES,
        Meta(ge=1, description="The largest block of `fs/readBlock` and `fs/writeBlock`, and the smallest large file."),
    ] = 1 * MIB

    max_file_bytes: Annotated[
        Bytes,
        FILES,
        Meta(ge=0, description="The largest file of `fs/readFile`. In base64 it fits a client's `max_message_bytes`."),
    ] = 32 * MIB

    queued_file_bytes: Annotated[
        Bytes,
        FILES,
        Meta(
            ge=0,
            description="What one connection may have under way to files. A write beyond is answered `busy`, but"
            " never the only one.",
        ),
    ] = 64 * MIB

    directory_entries: Annotated[
        Count,
        FILES,
        Meta(
            ge=1,
            description="The largest directory that `fs/readDirectory` lists, the most entries of `fs/walk`, and the"
            " most directories that `fs/copy` remembers. Each entry is memory.",
        ),
    ] = 50_000

    listing_bytes: Annotated[
        Bytes,
        FILES,
        Meta(ge=0, description="The names in one listing, together. `fs/walk` stops there, others refuse."),
    ] = 16 * MIB

    allow_http: Annotated[
        bool,
        HTTP,
        Meta(
            description="Whether `http/request` is served. It reaches what this machine reaches, its loopback and its"
            " metadata services among it. Commands can do the same, unless something outside of execsrv confines them."
        ),
    ] = True

    http_exchanges: Annotated[
        Count,
        HTTP,
        Meta(
            ge=1,
            description="HTTP requests of one connection that are under way at once, streamed bodies included. One more"
            " is answered `busy`. Each may hold one chunk (at most 164 KiB) for a peer that does not read.",
        ),
    ] = 64

    buffered_http_bytes: Annotated[
        Bytes,
        HTTP,
        Meta(
            ge=0,
            description="Bodies of unstreamed HTTP responses that one connection holds until they are answered. In"
            " base64 the largest still fits the largest message.",
        ),
    ] = 40 * MIB

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

    shutdown_grace_period: Annotated[
        Seconds,
        ENDINGS,
        Meta(ge=0, description="At the server's end: how long commands have at most after SIGTERM."),
    ] = 1.0

    guardian_patience: Annotated[
        Seconds,
        ENDINGS,
        Meta(
            ge=0, description="How long the server may stand still. Then its commands are killed; at 0 they never are."
        ),
    ] = 0.0


DEFAULTS = ServerConfig()
"""The settings of a server that is given none."""

CLIENT_DEFAULTS = ClientConfig()
"""The settings of a client that is given none."""
