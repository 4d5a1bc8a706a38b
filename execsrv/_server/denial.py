"""Failures of confined commands that look like the work of their confinement.

It is imported by the first confined command that ends.
"""

from __future__ import annotations

from execsrv._log.log import OutputLog
from execsrv._processes.leader import ExitStatus
from execsrv.protocol.sandbox import Denial

_WORDS = (
    "operation not permitted",
    "permission denied",
    "read-only file system",
    "seccomp",
    "sandbox",
    "landlock",
    "failed to write file",
)
_KILLED_FOR_A_CALL = 159
_LOOKED_AT_BYTES = 64 * 1024


def denial_of(status: ExitStatus, log: OutputLog) -> Denial | None:
    """Return why a failure of a confined command looks like the work of its confinement, None if it does not.

    It goes by the rule of the Codex exec-server.
    """
    if status.code == _KILLED_FOR_A_CALL:
        return Denial("signal", "SIGSYS")
    if status.code == 0:
        return None
    for ends in log.streams.values():
        printed = (bytes(ends.head)[:_LOOKED_AT_BYTES] + b"\n" + bytes(ends.tail)[-_LOOKED_AT_BYTES:]).lower()
        for word in _WORDS:
            if word.encode() in printed:
                return Denial("output", word)
    return None
