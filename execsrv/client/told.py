"""Notifications of a server about a process, as entries of its log. Pure: no I/O."""

from __future__ import annotations

from execsrv._log.entries import Closed, Entry, Exited, Gap
from execsrv._wire.codecs import decode_params
from execsrv.protocol import Chunk, Notification, ProcessClosed, ProcessExited, ProcessGap, ProcessOutput


def entry_of(told: Notification) -> tuple[str, Entry] | None:
    """Return the process that a notification is about, with the entry; None for one that tells something else.

    Raises `InvalidParamsError`.
    """
    match told.method:
        case "process/output":
            output = decode_params(told.params, ProcessOutput)
            return output.process_id, Chunk(output.seq, output.stream, output.chunk, output.at_ms)
        case "process/gap":
            gap = decode_params(told.params, ProcessGap)
            return gap.process_id, Gap(gap.from_seq, gap.seq, gap.omitted)
        case "process/exited":
            exited = decode_params(told.params, ProcessExited)
            return exited.process_id, exited_entry(exited)
        case "process/closed":
            closed = decode_params(told.params, ProcessClosed)
            return closed.process_id, closed_entry(closed)
    return None


def exited_entry(told: ProcessExited) -> Exited:
    """Return the end of the leader as an entry of the log."""
    return Exited(told.seq, told.exit_code, told.signal, told.reason, told.at_ms, told.denial or None)


def closed_entry(told: ProcessClosed) -> Closed:
    """Return the end of everything as an entry of the log."""
    return Closed(told.seq, told.totals, told.remaining, told.tree_empty, told.ended, told.at_ms, told.usage or None)
