"""The report of `execsrv run --junit`: one test case, in the form that CI systems read.

It is written before the command starts, as a failure, and again at its end. So a run that is killed has not passed.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import socket
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from xml.sax.saxutils import escape, quoteattr

from execsrv._cli.job import TIMED_OUT, Ended

_MOST_OUTPUT_BYTES = 256 * 1024
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MOST_NAME = 200


class JUnitReport:
    """A report on one command: takes its output, and writes how it ended."""

    def __init__(self, path: str, argv: Sequence[str]) -> None:
        """Write the report of a command that has not ended. Raises `OSError`, also in place of a device or a pipe."""
        self._path = os.path.realpath(path)
        if os.path.exists(self._path) and not os.path.isfile(self._path):
            raise OSError(errno.EINVAL, "not a regular file", path)
        name = shlex.join(argv)
        self._name = name if len(name) <= _MOST_NAME else f"{name[:_MOST_NAME]}..."
        self._began = time.monotonic()
        self._date = datetime.now(UTC).isoformat(timespec="seconds")
        self._output = bytearray()
        self._left_out = 0
        self._write("error", "unfinished", "did not come to its end: execsrv was killed")

    def output(self, target: int, data: bytes) -> None:
        """Keep the end of what it prints, on both streams in the order in which that comes."""
        self._output += data
        if (over := len(self._output) - _MOST_OUTPUT_BYTES) > 0:
            self._left_out += over
            del self._output[:over]

    def write(self, ended: Ended) -> None:
        """Write the report of a command that has ended, which may have removed its directory. Raises `OSError`."""
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        if ended.why:
            kind = "timeout" if ended.code == TIMED_OUT else "execsrv"
            self._write("failure" if kind == "timeout" else "error", kind, ended.why)
        elif ended.signal is not None:
            self._write("failure", "signal", f"died of {ended.signal}")
        elif ended.code:
            self._write("failure", "exit", f"ended with exit status {ended.code}")
        else:
            self._write(None, "", "")

    def _write(self, element: str | None, kind: str, message: str) -> None:
        seconds = f"{time.monotonic() - self._began:.3f}"
        counts = {"tests": 1, "failures": int(element == "failure"), "errors": int(element == "error"), "skipped": 0}
        suite = _attributes(
            name="execsrv run", time=seconds, timestamp=self._date, hostname=socket.gethostname(), **counts
        )
        lines = [
            '<?xml version="1.0" encoding="utf-8"?>',
            f"<testsuites><testsuite {suite}>",
            f"<testcase {_attributes(classname='execsrv.run', name=self._name, time=seconds)}>",
        ]
        if element is not None:
            lines.append(f"<{element} {_attributes(type=kind, message=message)}/>")
        if self._output:
            left_out = f"[{self._left_out} bytes before this are left out]\n" if self._left_out else ""
            said = left_out + self._output.decode(errors="replace")
            lines.append(f"<system-out>{escape(_printable(said))}</system-out>")
        lines += ["</testcase></testsuite></testsuites>", ""]
        with tempfile.NamedTemporaryFile("wb", dir=os.path.dirname(self._path), prefix=".junit-", delete=False) as file:
            try:
                file.write("\n".join(lines).encode())
                file.flush()
                os.fchmod(file.fileno(), 0o666 & ~_umask())
                os.replace(file.name, self._path)
            except BaseException:
                os.unlink(file.name)
                raise


def _attributes(**values: object) -> str:
    return " ".join(f"{name}={quoteattr(_printable(str(value)))}" for name, value in values.items())


def _printable(text: str) -> str:
    """Return a text without what XML cannot hold: most control characters, and halves of surrogate pairs."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
