"""Answers of the tools of an agent, as values; each is text for a model too."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from execsrv._wire.quoting import quoted
from execsrv.protocol import InputWait, Member, Reason

_SHOWN_SESSIONS = 100
_SHOWN_CHARACTERS = 200

State = Literal["running", "background", "ended"]
"""The leader runs; it has ended, and something that it left behind has not; nothing of it lives."""


_LIMITS: dict[Reason | None, str] = {"oom": "memory", "cpu": "processor time", "file-size": "the length of files"}


class Facts(Struct, frozen=True, kw_only=True):
    """The state of a session. `exit_code`, `signal` and `reason` are the leader's, None while it runs.

    `background` is what lives on after it, as far as the server tells. `waiting` is the process of it that waits for
    input, with the system call that it sleeps in as the evidence; None where none is known to. `is_lost` is True where
    the connection to the server was lost, and nobody knows more.
    """

    session_id: int
    state: State
    exit_code: int | None = None
    signal: str | None = None
    reason: Reason | None = None
    background: list[Member] = []
    waiting: InputWait | None = None
    is_lost: bool = False

    @property
    def ending(self) -> str:
        """The state in one line."""
        if self.is_lost:
            return "Connection to the server lost: what became of the process is not known"
        if self.exit_code is None and self.state == "ended":
            return "Process ended"
        if self.exit_code is None:
            how = f"Process running with session ID {self.session_id}"
            if (at := self.waiting) is not None:
                how += (
                    f", waiting for input: {at.name} (pid {at.pid}) sleeps in {at.call} of descriptor {at.descriptor}"
                )
            return how
        how = f"Process exited with code {self.exit_code}"
        if self.signal is not None:
            how += f" ({self.signal})"
        if self.reason in _LIMITS:
            how += f", ended by its limit of {_LIMITS[self.reason]}"
        elif self.reason not in ("exited", "signaled", None):
            how += f", ended by the server: {self.reason}"
        if self.state == "background":
            names = ", ".join(f"{member.name} (pid {member.pid})" for member in self.background[:10])
            how += f"; session ID {self.session_id} goes on: {names or 'something still holds its output'}"
        return how


class Answer(Facts, frozen=True, kw_only=True):
    """A session after a window of time, with what it printed since the last answer.

    `output` has `omitted_bytes` of the `output_bytes` left out in its middle, where a line says so. `wall_time` is the
    length of the window in seconds. `offset` is where the output begins in what `read_output` gives.
    """

    output: str
    output_bytes: int
    omitted_bytes: int
    offset: int
    wall_time: float

    def __str__(self) -> str:
        lines = [f"Wall time: {self.wall_time:.4f} seconds", self.ending]
        if self.omitted_bytes:
            lines.append(
                f"Output of {self.output_bytes} bytes, {self.omitted_bytes} of them left out:"
                f" read_output of session ID {self.session_id} from offset {self.offset} has what is retained"
            )
        return "\n".join([*lines, "Output:", self.output])


class Piece(Facts, frozen=True, kw_only=True):
    """A part of what a session has printed since its start, which has `total_bytes`, from `offset` to `next_offset`.

    `forgotten_bytes` in front of it, behind the offset that was asked for, are not retained any more.
    """

    output: str
    offset: int
    next_offset: int
    total_bytes: int
    forgotten_bytes: int

    def __str__(self) -> str:
        lines = [self.ending, f"Bytes {self.offset} to {self.next_offset} of {self.total_bytes}"]
        if self.forgotten_bytes:
            lines.append(f"{self.forgotten_bytes} bytes in front of it are not retained any more")
        return "\n".join([*lines, "Output:", self.output])


class Listed(Facts, frozen=True, kw_only=True):
    """A session in a list. `age` is in seconds; `unread_bytes` is output that no answer had yet.

    `recording` is the file that it is recorded in, None where it is not.
    """

    command: str
    pid: int | None
    tty: bool
    age: float
    total_bytes: int
    unread_bytes: int
    recording: str | None = None

    def __str__(self) -> str:
        command = quoted(self.command, _SHOWN_CHARACTERS)
        named = "" if "session ID" in self.ending else f" in session ID {self.session_id}"
        return f"{self.ending}{named}: {command} ({self.age:.0f} s, {self.unread_bytes} bytes unread)"


class Sessions(Struct, frozen=True):
    """The sessions that are known, oldest first. The text has the newest of them, and the beginnings of commands."""

    sessions: list[Listed]

    def __str__(self) -> str:
        older = len(self.sessions) - _SHOWN_SESSIONS
        lines = [f"{older} older sessions are not shown."] if older > 0 else []
        return "\n".join([*lines, *map(str, self.sessions[-_SHOWN_SESSIONS:])]) or "There are no sessions."


class Picture(Facts, frozen=True, kw_only=True):
    """The screen of a session's terminal. `cursor` is its row and column from 0."""

    screen: str
    cursor: tuple[int, int]
    size: tuple[int, int]

    def __str__(self) -> str:
        row, column = self.cursor
        return f"{self.ending}\nCursor in row {row}, column {column}\nScreen:\n{self.screen}"
