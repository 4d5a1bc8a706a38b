"""Every bound and every setting of the server and the client, with its unit, its default and the reason for it.

Nothing in execsrv grows without one of these. A size has `bytes` in its name; every time is in seconds. What a field
means and which values it takes stands in its type, and nowhere else: validation, the options of `execsrv serve`, the
tables of the documentation and a JSON schema are made from it. Nothing is validated here: `execsrv serve` does that
with what it is told, and a program that makes its own `ServerConfig` has its type checker.
"""

# No `from __future__ import annotations`: `dataclasses.fields` is to give the types themselves, not their text.

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_IN_BYTES = Meta(extra={"unit": "bytes"})

Bytes = Annotated[int, _IN_BYTES, Meta(le=1024 * GIB)]
Seconds = Annotated[float, Meta(le=365 * 86400, extra={"unit": "seconds"})]
Count = Annotated[int, Meta(le=1_000_000)]

# What belongs together where settings are listed.
_CONNECTIONS = Meta(extra={"group": "Connections"})
_MESSAGES = Meta(extra={"group": "Messages"})
_STREAMS = Meta(extra={"group": "Output and input of one session"})
_COMMANDS = Meta(extra={"group": "Commands"})
_FILES = Meta(extra={"group": "Files"})
_HTTP = Meta(extra={"group": "HTTP relay"})
_ENDINGS = Meta(extra={"group": "Endings"})
_CLIENT = Meta(extra={"group": "Client"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of a client, which a server has too. Frozen: make another one with `dataclasses.replace`."""

    handshake_timeout: Annotated[
        Seconds,
        _CONNECTIONS,
        Meta(gt=0, description="How long a websocket handshake, and a client's `initialize`, may take."),
    ] = 10.0

    max_message_bytes: Annotated[
        Bytes,
        _MESSAGES,
        Meta(
            ge=KIB, description="The largest message taken in. A larger one ends the connection: its id is not known."
        ),
    ] = 64 * MIB

    drain_timeout: Annotated[
        Seconds,
        _ENDINGS,
        Meta(
            ge=0,
            description="After a session was killed: how long to wait for the end of its streams, should something"
            " still hold them.",
        ),
    ] = 1.0

    flush_timeout: Annotated[
        Seconds,
        _ENDINGS,
        Meta(ge=0, description="At a connection's end: how long its last answers may take to leave."),
    ] = 0.5

    client_window_bytes: Annotated[
        Bytes,
        _CLIENT,
        Meta(
            ge=1,
            description="Output of one process that waits for its reader in the client. Beyond it that process blocks,"
            " and no other.",
        ),
    ] = 1 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig(Limits):
    """All that can be set of a server. Frozen: make another one with `dataclasses.replace`."""

    max_connections: Annotated[
        Count, _CONNECTIONS, Meta(ge=1, description="Connections that the server keeps at once. One more is refused.")
    ] = 256

    requests_in_flight: Annotated[
        Count,
        _CONNECTIONS,
        Meta(
            ge=1,
            description="Requests of one connection that may wait at once (for output, for a program that reads). One"
            " more that might have to is answered `busy`. As many answers may wait for the peer to read them.",
        ),
    ] = 256

    queued_notifications: Annotated[
        Count,
        _CONNECTIONS,
        Meta(
            ge=1,
            description="Single notifications of one connection (pieces of HTTP bodies, news of files) that wait to"
            " be sent. Beyond it whoever has one waits.",
        ),
    ] = 16

    ping_interval: Annotated[
        Seconds, _CONNECTIONS, Meta(gt=0, description="How often a websocket's peer is asked for a sign of life.")
    ] = 20.0

    ping_timeout: Annotated[
        Seconds, _CONNECTIONS, Meta(gt=0, description="How long it may leave that unanswered. Then its channel ends.")
    ] = 20.0

    resume_grace: Annotated[
        Seconds,
        _CONNECTIONS,
        Meta(
            ge=0,
            description="How long a connection waits for a new channel when it has lost its own, with all its sessions"
            " running. At 0, hanging up is cancelling.",
        ),
    ] = 0.0

    max_handshake_head_bytes: Annotated[
        Bytes,
        _MESSAGES,
        Meta(
            ge=KIB, description="The largest HTTP request head in front of a websocket. A larger one is answered 431."
        ),
    ] = 16 * KIB

    error_text_characters: Annotated[
        Count,
        _MESSAGES,
        Meta(
            ge=100,
            description="An error that quotes what was sent is cut to this, since errors wait for their reader too.",
        ),
    ] = 1000

    unsent_output_bytes: Annotated[
        Bytes,
        _STREAMS,
        Meta(
            ge=1,
            description="Output that waits for a slow reader. Beyond it the session stops reading its pipe, and the"
            " program blocks as with any pipe. Four reads keep the writer busy while the pump waits its turn.",
        ),
    ] = 256 * KIB

    max_window_bytes: Annotated[
        Bytes,
        _STREAMS,
        Meta(
            ge=1,
            description="The largest window that a client may ask for. It is memory that the client can make the server"
            " hold.",
        ),
    ] = 16 * MIB

    retained_output_bytes_per_process: Annotated[
        Bytes,
        _STREAMS,
        Meta(ge=0, description="Output kept for `process/read` after it was sent. The oldest goes first."),
    ] = 1 * MIB

    queued_stdin_bytes: Annotated[
        Bytes,
        _STREAMS,
        Meta(ge=0, description="Input held for a program that does not read it. A write beyond is refused."),
    ] = 8 * MIB

    read_bytes: Annotated[
        int,
        _IN_BYTES,
        _STREAMS,
        Meta(
            ge=1,
            le=16 * MIB,
            description="The size of one read from a pipe, and so its largest chunk. More falls out of the processor's"
            " cache and is slower.",
        ),
    ] = 64 * KIB

    terminal_read_bytes: Annotated[
        int,
        _IN_BYTES,
        _STREAMS,
        Meta(
            ge=1,
            le=16 * MIB,
            description="The largest chunk of a terminal, which the kernel hands out in pieces of 4 KiB: joining them"
            " saves messages.",
        ),
    ] = 128 * KIB

    pipe_bytes: Annotated[
        int,
        _IN_BYTES,
        _STREAMS,
        Meta(
            ge=4 * KIB,
            le=GIB,
            description="The width asked for a pipe that is busy (`F_SETPIPE_SZ`). Linux allows 1 MiB without rights;"
            " where it does not, the pipe stays as it was.",
        ),
    ] = 1 * MIB

    max_processes_per_connection: Annotated[
        Count, _COMMANDS, Meta(ge=1, description="Running sessions of one connection. One more is refused.")
    ] = 1024

    retained_sessions: Annotated[
        Count,
        _COMMANDS,
        Meta(ge=0, description="Ended sessions that one connection keeps readable. The oldest goes first."),
    ] = 256

    exited_retention: Annotated[
        Seconds, _COMMANDS, Meta(ge=0, description="How long an ended session stays readable.")
    ] = 80.0

    allow_direct_exec: Annotated[
        bool,
        _COMMANDS,
        Meta(description='Whether requests of kind "direct" run: the server may look up the program in `PATH`.'),
    ] = True

    allow_prepared_exec: Annotated[
        bool, _COMMANDS, Meta(description='Whether requests of kind "prepared" run: exactly what was sent.')
    ] = True

    cgroup: Annotated[
        bool,
        _COMMANDS,
        Meta(
            description="Whether the server and its commands move into a control group of their own, if there is one."
        ),
    ] = True

    allow_files: Annotated[bool, _FILES, Meta(description="Whether the file methods (`fs/*`) answer at all.")] = True

    file_roots: Annotated[
        tuple[Annotated[str, Meta(pattern=r"\A/[^\0]*\Z")], ...],
        _FILES,
        Meta(min_length=1, description="The directories that file methods reach, with no way out through links."),
    ] = ("/",)

    file_threads: Annotated[
        int,
        _FILES,
        Meta(
            ge=1,
            le=1024,
            description="File operations of one connection that run at once. More wait, so that a disk which hangs"
            " costs no more.",
        ),
    ] = 16

    file_handles: Annotated[
        Count, _FILES, Meta(ge=0, description="Files that one connection may hold open with `fs/open`.")
    ] = 128

    file_block_bytes: Annotated[
        Bytes,
        _FILES,
        Meta(
            ge=1,
            description="The largest block that `fs/readBlock` and `fs/writeBlock` take, and the smallest file that"
            " counts as large.",
        ),
    ] = 1 * MIB

    max_file_bytes: Annotated[
        Bytes,
        _FILES,
        Meta(
            ge=0,
            description="The largest file that `fs/readFile` gives. In base64 it fits the default `max_message_bytes`"
            " of a client.",
        ),
    ] = 32 * MIB

    large_answers: Annotated[
        Count,
        _FILES,
        Meta(
            ge=1,
            description="Large files and listings that one connection reads at once; each is read when the answers"
            " before it have left.",
        ),
    ] = 4

    queued_file_bytes: Annotated[
        Bytes,
        _FILES,
        Meta(
            ge=0,
            description="What one connection may have under way to files. A write beyond is answered `busy`, but"
            " never the only one.",
        ),
    ] = 64 * MIB

    directory_entries: Annotated[
        Count,
        _FILES,
        Meta(
            ge=1,
            description="The largest directory that `fs/readDirectory` lists, the most entries of `fs/walk`, and the"
            " most directories that `fs/copy` remembers. Each entry is memory.",
        ),
    ] = 50_000

    walk_depth: Annotated[Count, _FILES, Meta(ge=0, description="How deep `fs/walk` may be asked to go.")] = 64

    walk_directories: Annotated[
        Count,
        _FILES,
        Meta(
            ge=1,
            description="How many directories `fs/walk` may be asked to read. With the depth and the entries the"
            " Codex exec-server's.",
        ),
    ] = 10_000

    listing_bytes: Annotated[
        Bytes,
        _FILES,
        Meta(
            ge=0,
            description="The names in one listing, together. `fs/walk` says that it is truncated, `fs/readDirectory`"
            " refuses.",
        ),
    ] = 16 * MIB

    watched_paths: Annotated[Count, _FILES, Meta(ge=0, description="Paths in one `fs/watchMissing`.")] = 256

    allow_http: Annotated[
        bool,
        _HTTP,
        Meta(
            description="Whether `http/request` is served. It reaches what this machine reaches, its loopback and its"
            " metadata services among it. Commands can do the same, unless something outside of execsrv confines them."
        ),
    ] = True

    http_exchanges: Annotated[
        Count,
        _HTTP,
        Meta(
            ge=1,
            description="HTTP requests of one connection that are under way at once, streamed bodies included. One more"
            " is answered `busy`. Each may hold one chunk (at most 164 KiB) for a peer that does not read.",
        ),
    ] = 64

    buffered_http_bytes: Annotated[
        Bytes,
        _HTTP,
        Meta(
            ge=0,
            description="Bodies of unstreamed HTTP responses that one connection holds until they are answered. In"
            " base64 the largest still fits the largest message.",
        ),
    ] = 40 * MIB

    shutdown_grace_period: Annotated[
        Seconds,
        _ENDINGS,
        Meta(
            ge=0,
            description="At the server's end: how long its commands may take to end after SIGTERM. What is left then is"
            " killed.",
        ),
    ] = 1.0


DEFAULTS = ServerConfig()
"""What holds where nothing else is given, on either side."""
