"""The settings of a server for its file methods."""

# No `from __future__ import annotations`: `dataclasses.fields` is to give the types themselves, not their text.

from typing import Annotated

from msgspec import Meta

from execsrv._setting_units import FILES, MIB, Bytes, Count
from execsrv.limits.group import Settings, group


@group(frozen=True, kw_only=True)
class FileSettings(Settings):
    """A part of `ServerConfig`."""

    allow_files: Annotated[bool, FILES, Meta(description="Whether the file methods (`fs/*`) answer at all.")] = True

    file_roots: Annotated[
        tuple[Annotated[str, Meta(pattern=r"\A/[^\0]*\Z")], ...],
        FILES,
        Meta(min_length=1, extra={"items": "absolute paths", "metavar": "DIR"}),
        Meta(description="The directories that file methods reach, with no way out through links."),
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
