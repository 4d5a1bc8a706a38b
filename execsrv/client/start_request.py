"""The parts of a request to start that depend on the server, such as its directory, and what it would pass over."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from execsrv.client.connection import Connection
from execsrv.client.file_paths import sent_path
from execsrv.client.parameters import Path, string
from execsrv.errors import InvalidParamsError
from execsrv.protocol import ProcessStart
from execsrv.protocol.login_shells import LoginShell, ShellSnapshot
from execsrv.protocol.process_limits import ProcessLimits


def place(connection: Connection, cwd: Path | None, prepared: bool) -> str | None:
    """Return a directory as it is sent. None is the server's own, which a prepared command has to name."""
    if cwd is not None:
        return sent_path("cwd", cwd)
    if connection.directory is not None:
        return connection.directory
    return None if connection.is_execsrv and not prepared else connection.greeting.environment_info.cwd


def passing(value: bool | Literal["kept"]) -> bool:
    """Return whether streams are to be passed. Raises `InvalidParamsError` for what says neither."""
    if value != "kept" and not isinstance(value, bool):
        raise InvalidParamsError(f"pass_streams must be True, False or 'kept', got {value!r}", field="pass_streams")
    return bool(value)


def limits_of(limits: ProcessLimits) -> ProcessLimits:
    """Return limits as they are sent. Raises `TypeError` for what is something else."""
    if not isinstance(limits, ProcessLimits):
        raise TypeError(f"limits must be a ProcessLimits, got {type(limits).__name__}")
    return limits


def snapshot_of(scope: str | None, command: Sequence[str]) -> ShellSnapshot | None:
    """Return the wish for a shell whose login files are run once in a scope, as it is sent."""
    if scope is None:
        return None
    program = command[0] if command else ""
    return ShellSnapshot(string("shell_snapshot", scope), LoginShell(os.path.basename(program), program))


def check_known(connection: Connection, params: ProcessStart) -> None:
    """Raise `InvalidParamsError` for what a server that is not execsrv would pass over, and do something else."""
    if connection.is_execsrv:
        return
    for field in ("secret_env", "user", "limits", "runner"):
        if getattr(params, field):
            raise InvalidParamsError(f"{field}: this server has no such thing", field=field)
    if params.sandbox is not None:
        raise InvalidParamsError("sandbox: this server confines in other ways", field="sandbox")
    for field, value in (("stdout", params.stdout), ("stderr", params.stderr)):
        if value != "pipe":
            raise InvalidParamsError(f"{field}: this server knows nothing but pipes", field=field)
