"""The audit: one line of JSON for each start and each end, appended to a file.

A thread writes it, so that a disk holds nobody up. What finds no room within the bound, because the disk is too slow,
is dropped and counted, and a line says so. The file may be moved away while the server runs: it is opened again when
the server is told to reload.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from execsrv._doors.journal import End, Silent, Start
from execsrv._outlet import Outlet
from execsrv._wire.quoting import in_utf8
from execsrv.errors import InvalidConfigError, RequestError
from execsrv.limits import MIB

logger = logging.getLogger(__name__)

_QUEUED_BYTES = 4 * MIB
_WARNING_SECONDS = 60.0
"""For so long a file that cannot be written to is not named again in the server's log."""

_ARGUMENT_CHARACTERS = 4096
_ARGUMENTS_CHARACTERS = 16384
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Audit(Silent):
    """A reader of the journal that writes what it is told."""

    def __init__(self, path: str, descriptor: int, outlet: Outlet) -> None:
        self._path = path
        self._descriptor = descriptor
        self._outlet = outlet

    def __repr__(self) -> str:
        return f"<Audit {self._path}>"

    def started(self, start: Start) -> None:
        """Write a line about a command that runs."""
        self._write("start", start, {})

    def failed(self, start: Start, error: Exception) -> None:
        """Write a line about one that could not be started. The text of an error may quote it, and is left out."""
        facts: dict[str, Any] = {"kind": error.kind} if isinstance(error, RequestError) else {"kind": "internal-error"}
        if isinstance(error, RequestError):
            facts |= {name: error.facts[name] for name in ("stage", "errno") if name in error.facts}
        self._write("failed", start, {"error": facts})

    def ended(self, start: Start, end: End) -> None:
        """Write a line about an end."""
        facts: dict[str, Any] = {
            "reason": end.reason,
            "exitCode": end.exit_code,
            "signal": end.signal,
            "seconds": round(end.seconds, 3),
            "bytes": end.totals,
        }
        if end.usage is not None:
            facts["usage"] = {
                "userSeconds": round(end.usage.user_seconds, 3),
                "systemSeconds": round(end.usage.system_seconds, 3),
            }
        self._write("end", start, facts)

    def _write(self, event: str, start: Start, facts: dict[str, Any]) -> None:
        page = start.page
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "event": event,
            "identity": in_utf8(page.principal.name),
            "role": page.principal.role.word,
            "from": in_utf8(page.origin),
            "connection": page.number,
            "process": in_utf8(start.id),
            "program": in_utf8(start.program),
            "pid": start.pid or None,
            "tty": start.is_terminal,
        }
        if start.argv and event != "end":
            line["argv"] = _bounded(start.argv)
        self._outlet.put(msgspec.json.encode(line | facts))

    def reopen(self) -> None:
        """Open the file again, under its name: the one before may have been moved away. Raises `OSError`."""
        fresh = os.open(self._path, _FLAGS, 0o600)
        try:
            os.dup2(fresh, self._descriptor, inheritable=False)
        finally:
            os.close(fresh)


@contextmanager
def open_audit(path: str) -> Iterator[Audit]:
    """Append to a file. One that is not there is made, for this user alone. Raises `InvalidConfigError`.

    One that is there stays whose it is, with its mode: the operator may have given it to who reads it.
    """
    silent_until = 0.0

    def failed(error: OSError) -> None:
        nonlocal silent_until
        if (now := time.monotonic()) >= silent_until:
            silent_until = now + _WARNING_SECONDS
            why = error.strerror or error
            logger.warning("cannot write to the audit log `%s`: %s; what it misses is counted there", path, why)

    try:
        descriptor = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        why = "it is a link, and links are not followed" if os.path.islink(path) else error.strerror
        raise InvalidConfigError(f"cannot open the audit log `{path}`: {why}") from error
    try:
        outlet = Outlet(descriptor, failed, max_queued_bytes=_QUEUED_BYTES, dropped=_dropped)
        try:
            yield Audit(path, descriptor, outlet)
        finally:
            outlet.close()
    finally:
        os.close(descriptor)


def _dropped(count: int) -> bytes:
    return msgspec.json.encode({"event": "dropped", "lines": count}) + b"\n"


def _bounded(argv: Sequence[str]) -> list[str]:
    """Return arguments of which no one is long, and all together are not."""
    told: list[str] = []
    left = _ARGUMENTS_CHARACTERS
    for argument in argv:
        if left <= 0:
            told.append("...")
            break
        most = min(_ARGUMENT_CHARACTERS, left)
        told.append(in_utf8(argument[:most]) + "..." * (len(argument) > most))
        left -= len(argument) + 16
    return told
