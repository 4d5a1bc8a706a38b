"""The words in which a setting is described: its unit, and the group that it belongs to."""

from typing import Annotated

from msgspec import Meta

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

IN_BYTES = Meta(extra={"unit": "bytes"})

Bytes = Annotated[int, IN_BYTES, Meta(le=1024 * GIB)]
Seconds = Annotated[float, Meta(le=365 * 86400, extra={"unit": "seconds"})]
Count = Annotated[int, Meta(le=1_000_000)]

Patterns = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...],
    Meta(extra={"items": "patterns of names", "metavar": "PATTERN"}),
]

# What belongs together where settings are listed.
CONNECTIONS = Meta(extra={"group": "Connections"})
MESSAGES = Meta(extra={"group": "Messages"})
STREAMS = Meta(extra={"group": "Output and input of one session"})
COMMANDS = Meta(extra={"group": "Commands"})
FILES = Meta(extra={"group": "Files"})
HTTP = Meta(extra={"group": "HTTP relay"})
ENDINGS = Meta(extra={"group": "Endings"})
