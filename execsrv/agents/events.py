"""Events of an agent's commands for whoever shows them: begin, output, what was typed, end.

They are those of Codex's unified exec. A user interface gets the bytes as they are, whatever the model is given.
"""

from __future__ import annotations

from msgspec import Struct

from execsrv.protocol import Reason, Stream


class Began(Struct, frozen=True, tag_field="type", tag="exec_command_begin"):
    """A command was started."""

    session_id: int
    argv: list[str]
    cwd: str | None
    tty: bool
    pid: int | None


class Output(Struct, frozen=True, tag_field="type", tag="exec_command_output_delta"):
    """A piece of what it has printed."""

    session_id: int
    stream: Stream
    chunk: bytes


class Typed(Struct, frozen=True, tag_field="type", tag="terminal_interaction"):
    """Something was written to it, or nothing, when an agent only looked."""

    session_id: int
    chars: str


class Ended(Struct, frozen=True, tag_field="type", tag="exec_command_end"):
    """Nothing of it goes on. `duration` is in seconds, `total_bytes` what it printed."""

    session_id: int
    exit_code: int
    signal: str | None
    reason: Reason
    duration: float
    total_bytes: int


AgentEvent = Began | Output | Typed | Ended
