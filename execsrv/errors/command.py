"""Errors of a command that was run to its end. Their text tells what it takes to understand them in a log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from execsrv.errors.base import ExecsrvError

_COMMAND_CHARACTERS = 200
"""A command that an error quotes is cut to this."""

_LINE_CHARACTERS = 200
"""The last line of output that an error quotes is cut to this."""


class CommandError(ExecsrvError):
    """A command did not do what was asked of it.

    `argv` is the command. `exit_code`, `signal` and `reason` say how it ended, each None while that is not known;
    `stdout` and `stderr` are the output so far, as text where that was asked for. The text of the error has the
    command, how it ended, and the last line of stderr, or of stdout where stderr has none: as on a terminal.
    `server` is the URL of the server, where a pool has chosen it.
    """

    server: str | None = None
    _quotes_stdout = True

    def __init__(
        self,
        argv: Sequence[str],
        how: str,
        *,
        exit_code: int | None = None,
        signal: str | None = None,
        reason: str | None = None,
        stdout: Any = b"",
        stderr: Any = b"",
    ) -> None:
        last_words = _last_line(stderr) or (_last_line(stdout) if self._quotes_stdout else "")
        super().__init__(f"command `{_quoted(argv)}` {how}" + (f": {last_words}" if last_words else ""))
        self.argv = list(argv)
        self.exit_code = exit_code
        self.signal = signal
        self.reason = reason
        self.stdout = stdout
        self.stderr = stderr


class CommandFailedError(CommandError):
    """A command that was to succeed has failed: its exit code is not 0."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        exit_code: int,
        signal: str | None = None,
        reason: str = "exited",
        stdout: Any = b"",
        stderr: Any = b"",
    ) -> None:
        how = f"died of {signal}" if signal else f"ended with exit code {exit_code}"
        if reason not in ("exited", "signaled"):
            how += f" ({reason})"
        super().__init__(argv, how, exit_code=exit_code, signal=signal, reason=reason, stdout=stdout, stderr=stderr)


class CommandTimeoutError(CommandError, TimeoutError):
    """A command did not end within `timeout` seconds, and was ended: asked first, then killed.

    What it printed while it ended is in the output too.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        exit_code: int | None = None,
        signal: str | None = None,
        reason: str | None = None,
        stdout: Any = b"",
        stderr: Any = b"",
    ) -> None:
        how = f"did not end within {timeout:g} s and was ended"
        super().__init__(argv, how, exit_code=exit_code, signal=signal, reason=reason, stdout=stdout, stderr=stderr)
        self.timeout = timeout


class ProcessEndedError(CommandError):
    """A process is over, and what was waited for did not happen. `stdout` and `stderr` are the last of its output."""


class WaitTimeoutError(CommandError, TimeoutError):
    """Nothing that was waited for happened in time. The process goes on; the error has its last output."""


class OutputTruncatedError(CommandError):
    """The output of a command is not complete, and nobody had allowed that. `stdout` and `stderr` are what there is."""

    _quotes_stdout = False


class OutputNotTextError(CommandError, UnicodeError):
    """The output of a command does not decode, and text was asked for. The command has ended: `exit_code`.

    `stdout` and `stderr` are text, with what does not decode replaced. The cause is the `UnicodeDecodeError`.
    """

    _quotes_stdout = False


class Unknown(CommandError):  # it is an outcome, which `Pool.map` gives in place of a result
    """The server of a command was lost for good, or its answers are invalid. The command may have run to its end, to
    some point, or not at all.

    `server` is the URL of that server, and `process` the id that the command had there. `stdout` and `stderr` are what
    had arrived. Where the server is gone, so is all that the command had started.
    """

    def __init__(
        self, argv: Sequence[str], *, server: str, process: str, why: str, stdout: Any = b"", stderr: Any = b""
    ) -> None:
        super().__init__(argv, f"has an unknown end: {server} {why}", stdout=stdout, stderr=stderr)
        self.server = server
        self.process = process


def _quoted(argv: Sequence[str]) -> str:
    """Return a command as a shell would take it, in one line of bounded length."""
    from shlex import quote  # which a server does without

    words: list[str] = []
    room = _COMMAND_CHARACTERS
    for word in argv:
        words.append(quote(word[: room + 1]))
        room -= len(words[-1]) + 1
        if room < 0:
            break
    return shown(" ".join(words), _COMMAND_CHARACTERS)


def _last_line(output: bytes | str) -> str:
    """Return the last line that is not blank, within a bound."""
    end = output[-4 * _LINE_CHARACTERS - 1024 :].rstrip()
    lines = (end if isinstance(end, str) else end.decode(errors="replace")).splitlines()
    return shown(lines[-1].strip(), _LINE_CHARACTERS) if lines else ""


def shown(text: str, bound: int) -> str:
    """Return text that is fit for a terminal and one line: no control characters, and cut to the bound."""
    cut = text if len(text) <= bound else text[:bound] + "..."
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "\ufffd" for letter in cut)
