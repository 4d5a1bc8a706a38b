"""Every bound of the server and the client, with its unit, its default and the reason for it.

Nothing in execsrv grows without one of these. Sizes are bytes and times are seconds, as the names say.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one server or client. Frozen: make another one with `dataclasses.replace`."""

    max_message_bytes: int = 64 * MIB
    """The largest message taken in. One above it ends the connection, since its id cannot be known."""

    max_handshake_head_bytes: int = 16 * KIB
    """The largest HTTP request head in front of a websocket."""

    handshake_timeout_seconds: float = 10.0
    """How long a websocket handshake, and a client's `initialize`, may take."""

    requests_in_flight: int = 256
    """Requests of one connection that may wait at once (for output, for a program that reads). One more that might
    have to is answered with `busy`."""

    queued_stdin_bytes: int = 8 * MIB
    """Input that one session holds for a program that does not read it. A write beyond is refused."""

    unsent_output_bytes: int = 256 * KIB
    """Output of one session that waits for a slow reader. Beyond it the session stops reading its pipe, and the
    program blocks as with any pipe. Four reads: enough to keep the writer busy while the pump waits its turn."""

    max_window_bytes: int = 16 * MIB
    """The largest window that a client may ask for. It is memory that the client can make us hold, per session."""

    retained_output_bytes: int = 1 * MIB
    """Output that one session keeps for `process/read` after it was sent; the oldest goes first."""

    retained_sessions: int = 256
    """Ended sessions that one connection keeps readable. The oldest goes first."""

    exited_retention_seconds: float = 80.0
    """How long an ended session stays readable."""

    drain_seconds: float = 1.0
    """After a session was killed: how long to wait for the end of its streams, should something still hold them."""

    error_text_characters: int = 1000
    """An error that quotes what was sent is cut to this, since errors wait for their reader too."""

    flush_seconds: float = 0.5
    """At a connection's end: how long its last answers may take to leave."""

    client_window_bytes: int = 1 * MIB
    """Client: output of one process that waits for its reader here. Beyond it that process blocks, and no other."""

    pipe_bytes: int = 1 * MIB
    """The width asked for each pipe (`F_SETPIPE_SZ`). Linux allows 1 MiB without rights; less is taken quietly."""

    read_bytes: int = 64 * KIB
    """The size of one read from a pipe, and so its largest chunk. More falls out of the cache and is slower."""

    terminal_read_bytes: int = 128 * KIB
    """The largest chunk of a terminal, which the kernel hands out in pieces of 4 KiB: joining them saves messages."""

    allow_files: bool = True
    """Whether the file methods (`fs/*`) answer at all."""

    file_roots: tuple[str, ...] | None = None
    """The directories, as absolute paths, that file methods reach, with no way out through links; None: everything."""

    file_threads: int = 16
    """File operations of one connection that run at once. More wait, so that a disk which hangs costs no more."""

    file_handles: int = 128
    """Files that one connection may hold open with `fs/open`."""

    file_block_bytes: int = 1 * MIB
    """The largest block that `fs/readBlock` and `fs/writeBlock` take, and the smallest file that counts as large."""

    max_file_bytes: int = 32 * MIB
    """The largest file that `fs/readFile` gives. In base64 it fits the default `max_message_bytes` of a client."""

    large_answers: int = 4
    """Large files and listings that one connection reads at once; each is read when the answers before it have left."""

    queued_file_bytes: int = 64 * MIB
    """What one connection may have under way to files. A write beyond is answered `busy`, but never the only one."""

    directory_entries: int = 50_000
    """The largest directory that `fs/readDirectory` lists, the most entries of `fs/walk`, and the most directories
    that `fs/copy` remembers. Each entry is memory."""

    walk_depth: int = 64
    """How deep `fs/walk` may be asked to go."""

    walk_directories: int = 10_000
    """How many directories `fs/walk` may be asked to read. With the depth and the entries the Codex exec-server's."""

    listing_bytes: int = 16 * MIB
    """The names in one listing, together. `fs/walk` says that it is truncated, `fs/readDirectory` refuses."""

    watched_paths: int = 256
    """Paths in one `fs/watchMissing`."""


DEFAULTS = Limits()
"""The bounds used where none are given."""
