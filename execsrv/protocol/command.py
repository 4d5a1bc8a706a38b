"""`command/exec*`: commands as `exec-server.v0` has them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from execsrv.protocol.bounds import Id, PathText, Variables, Word, Words
from execsrv.protocol.messages import Wire
from execsrv.protocol.sandbox import Sandbox


class CommandExec(Wire, frozen=True):
    """Start a command whose stdin is closed, or a terminal."""

    argv: Words
    cwd: PathText
    env: Variables
    tty: bool
    arg0: Word | None = None
    sandbox: Sandbox | None = None
    """Only null, or a policy that asks for no confinement, is accepted."""


class CommandId(Wire, frozen=True):
    """Names one command of this connection; the server assigns the ids, `session-1` first."""

    session_id: Id


class CommandWrite(Wire, frozen=True):
    """Input for a terminal."""

    session_id: Id
    chunk: bytes


class Accepted(Wire, frozen=True):
    """The input was handed to the operating system."""

    accepted: bool = True


class CommandOutputDelta(Struct, frozen=True, rename="camel", gc=False):
    """<- a piece of output; a terminal's is "stdout"."""

    session_id: str
    stream: Literal["stdout", "stderr"]
    chunk: bytes


class CommandExited(Wire, frozen=True):
    """<- the command has ended, and all that it wrote came before."""

    session_id: str
    exit_code: int
