"""The words of `process/*` for what happens to a session."""

from __future__ import annotations

from msgspec import UNSET

from execsrv._log.entries import Closed, Entry, Exited, Gap
from execsrv.protocol import Notification, ProcessClosed, ProcessExited, ProcessGap, ProcessOutput


def process_dialect(id: str, entry: Entry) -> Notification:
    """Say an entry of a log as `process/*` does."""
    match entry:
        case Exited():
            return Notification("process/exited", exited_notice(id, entry))
        case Closed():
            return Notification("process/closed", closed_notice(id, entry))
        case Gap():
            return Notification("process/gap", ProcessGap(id, entry.from_seq, entry.seq, entry.omitted))
        case _:
            return Notification("process/output", ProcessOutput(id, entry.seq, entry.stream, entry.chunk, entry.at_ms))


def exited_notice(id: str, entry: Exited) -> ProcessExited:
    denial = entry.denial
    return ProcessExited(
        id,
        entry.seq,
        entry.exit_code,
        denial is not None,
        entry.signal,
        entry.reason,
        entry.at_ms,
        UNSET if denial is None else denial,
    )


def closed_notice(id: str, entry: Closed) -> ProcessClosed:
    return ProcessClosed(
        id,
        entry.seq,
        entry.totals,
        entry.remaining,
        entry.tree_empty,
        entry.ended,
        entry.at_ms,
        UNSET if entry.usage is None else entry.usage,
    )
