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
Uid = Annotated[int, Meta(ge=0, lt=2**32)]
FilePath = Annotated[str, Meta(pattern=r"\A[^\0]*\Z", extra={"unit": "file"})]

NEEDS_RESTART = Meta(extra={"needs_restart": True})
"""Of a setting that a running server cannot change: SIGHUP leaves it as it is, and says so."""

Patterns = Annotated[
    tuple[Annotated[str, Meta(pattern=r"\A[^=\0]{1,256}\Z")], ...],
    Meta(extra={"items": "patterns of names", "metavar": "PATTERN"}),
]

Runners = Annotated[
    tuple[Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,63}=[^\0\n]+\Z", max_length=4096)], ...],
    Meta(extra={"items": "runners as NAME=COMMAND", "metavar": "NAME=COMMAND", "separator": "\n"}),
]

# What belongs together where settings are listed.
CONNECTIONS = Meta(extra={"group": "Connections"})
DOORS = Meta(extra={"group": "Who may come in"})
MESSAGES = Meta(extra={"group": "Messages"})
STREAMS = Meta(extra={"group": "Output and input of one session"})
COMMANDS = Meta(extra={"group": "Commands"})
FILES = Meta(extra={"group": "Files"})
HTTP = Meta(extra={"group": "HTTP relay"})
ENDINGS = Meta(extra={"group": "Endings"})
OPERATIONS = Meta(extra={"group": "Operations"})
BUDGETS = Meta(extra={"group": "All peers together"})
