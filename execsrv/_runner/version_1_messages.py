"""The messages of version 1, which is the founding protocol: one command, and then the runner ends with its code. Pure.

Any of them may come from either side; who has no use for one passes it over. Members that are not known are ignored.
What the founding protocol says for another operating system (`cap_sids`, `codex_home`, `real_codex_home`) is not read.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from execsrv.protocol.bounds import PathText, Variables, Word, Words

FAILED = 1
"""The exit status of a runner whose command did not start, or whose server has gone."""

TIMED_OUT = 192
"""The exit code of a command whose time was over: 128 + 64."""

TERMINATED = 1
"""The exit code of a command that was ended by `terminate`."""

OUTPUT_BYTES = 8192
"""The most that one `output` carries."""


class SpawnRequest(Struct, frozen=True):
    """To the runner, first and once: the command. `policy_json_or_preset` confines it."""

    command: Words
    cwd: PathText
    env: Variables
    policy_json_or_preset: Word
    sandbox_policy_cwd: PathText
    """The directory that the policy counts from."""
    tty: bool
    timeout_ms: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    stdin_open: bool = False


class SpawnReady(Struct, frozen=True):
    """From the runner, once: the command runs."""

    process_id: Annotated[int, Meta(ge=0, le=2**32 - 1)]


class Output(Struct, frozen=True):
    """From the runner: what the command has printed. A terminal has `stdout` alone."""

    data_b64: bytes
    stream: Literal["stdout", "stderr"]


class Stdin(Struct, frozen=True):
    """To the runner: input, as text in base64. What is no base64 is passed over."""

    data_b64: str


class Terminate(Struct, frozen=True):
    """To the runner: end the command, with everything that descends from it."""


class Exit(Struct, frozen=True):
    """From the runner, last: behind all output."""

    exit_code: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
    timed_out: bool


class Error(Struct, frozen=True):
    """From the runner, last: the command could not be started, or the runner cannot go on with it."""

    message: str
    code: str


MESSAGES: dict[str, type[Struct]] = {
    "spawn_request": SpawnRequest,
    "spawn_ready": SpawnReady,
    "output": Output,
    "stdin": Stdin,
    "terminate": Terminate,
    "exit": Exit,
    "error": Error,
}
