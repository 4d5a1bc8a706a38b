"""The entries of a log: output, a gap in it, the end of the leader, the end of everything. Values only."""

from __future__ import annotations

from msgspec import UNSET, Struct

from execsrv.protocol import AtMs, Chunk, Layer, Member, Reason, Stream, seconds_since_start
from execsrv.protocol.process_limits import ProcessUsage
from execsrv.protocol.sandbox import Denial

ENTRY_BYTES = 256
"""The cost of an entry beside its content, so that many small ones are bounded as well as a few large ones."""


class Gap(Struct, frozen=True):
    """Entries `from_seq` to `seq` were left out for a slow reader: so many bytes of each stream."""

    from_seq: int
    seq: int
    omitted: dict[Stream, int]

    def and_then(self, seq: int, omitted: dict[Stream, int]) -> Gap:
        """Return this gap with what was left out behind it, up to entry `seq`."""
        total = {stream: self.omitted.get(stream, 0) + omitted.get(stream, 0) for stream in self.omitted | omitted}
        return Gap(self.from_seq, seq, total)


class Exited(Struct, frozen=True):
    """The leader ended. `exit_code` is 128+N after a death by signal N, whose name is in `signal`.

    `denial` is why its confinement is taken for the cause.
    """

    seq: int
    exit_code: int
    signal: str | None
    reason: Reason
    at_ms: AtMs = UNSET
    denial: Denial | None = None

    @property
    def at(self) -> float | None:
        """Seconds from the start of the command to this end, None where the server does not tell."""
        return seconds_since_start(self.at_ms)


class Closed(Struct, frozen=True):
    """Nothing more will come. `totals` is what each stream carried, `remaining` what descends from it and lives on.

    `tree_empty`, once it was made to end: by which layer the server knows that nothing does. `ended` is what was ended
    because the leader had. `usage` is what it has used, where it had limits.
    """

    seq: int
    totals: dict[Stream, int] = {}
    remaining: list[Member] = []
    tree_empty: Layer | None = None
    ended: list[Member] = []
    at_ms: AtMs = UNSET
    usage: ProcessUsage | None = None

    @property
    def at(self) -> float | None:
        """Seconds from the start of the command to this end, None where the server does not tell."""
        return seconds_since_start(self.at_ms)


Entry = Chunk | Gap | Exited | Closed


def add_printed(printed: dict[Stream, int], entry: Entry) -> None:
    """Add the bytes of each stream that an entry has, or that were left out in it."""
    if isinstance(entry, Chunk):
        printed[entry.stream] = printed.get(entry.stream, 0) + len(entry.chunk)
    elif isinstance(entry, Gap):
        for stream, size in entry.omitted.items():
            printed[stream] = printed.get(stream, 0) + size


def entry_bytes(entry: Entry) -> int:
    """Return the bytes that an entry counts against a bound or a window: an end and a gap count nothing."""
    return ENTRY_BYTES + len(entry.chunk) if isinstance(entry, Chunk) else 0


def first_seq(entry: Entry) -> int:
    """Return the number of an entry, the first one of a gap."""
    return entry.from_seq if isinstance(entry, Gap) else entry.seq
