"""The settings of a server for the output and the input of one session."""

# No `from __future__ import annotations`: `dataclasses.fields` is to give the types themselves, not their text.

from typing import Annotated

from msgspec import Meta

from execsrv._setting_units import KIB, MIB, STREAMS, Bytes
from execsrv.limits.group import Settings, group


@group(frozen=True, kw_only=True)
class StreamSettings(Settings):
    """A part of `ServerConfig`."""

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

    viewed_bytes_per_second: Annotated[
        Bytes,
        STREAMS,
        Meta(
            ge=1,
            description="Output of one session that all its viewers together get, in the long run. Beyond it they fall"
            " back, and may get gaps: whose session it is comes first. What is not used is saved for a second.",
        ),
    ] = 8 * MIB

    unread_answer_bytes: Annotated[
        Bytes,
        STREAMS,
        Meta(
            ge=1,
            description="Answers of one connection that wait for its peer to read, with the text that they become."
            " Beyond it no further request is read.",
        ),
    ] = 8 * MIB

    queued_stdin_bytes: Annotated[
        Bytes,
        STREAMS,
        Meta(ge=0, description="Input held for a program that does not read it. A write beyond is refused."),
    ] = 8 * MIB
