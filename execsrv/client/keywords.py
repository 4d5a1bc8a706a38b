"""Keywords that calls pass on to one another, as type checkers are told of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypedDict

from execsrv.client.parameters import Path
from execsrv.protocol import OutputFile
from execsrv.protocol.process_limits import ProcessLimits

if TYPE_CHECKING:
    from execsrv.client.policy import Policy
    from execsrv.record import Recording


class CommandKeywords(TypedDict, total=False):
    """Keywords of `Client.start` that many commands may have alike, where they are explained."""

    cwd: Path | None
    env: Mapping[str, str] | None
    env_add: Mapping[str, str] | None
    env_remove: Collection[str]
    secret_env: Mapping[str, Path] | None
    stdout: int | Path | OutputFile
    stderr: int | Path | OutputFile
    tty: bool
    size: tuple[int, int] | tuple[int, int, int, int] | None
    modes: Mapping[str, bool | int] | None
    arg0: str | None
    umask: int | None
    nice: int | None
    oom_score_adj: int | None
    sandbox: Policy | None
    limits: ProcessLimits | None
    user: str | None
    runner: str | Sequence[str] | None
    shell_snapshot: str | None
    idle_timeout: float | None
    grace: float | None
    overflow: Literal["block", "drop"]
    prepared: bool
    pass_streams: bool | Literal["kept"]


class StartKeywords(CommandKeywords, total=False):
    """Keywords that `Client.run` passes on to `Client.start`, where they are explained."""

    record: Path | Recording | None


class MapKeywords(CommandKeywords, total=False):
    """Keywords of `Client.map` beside its own and those of text: those of `Client.run`, where they are explained."""

    timeout: float | None
    check: bool
    max_bytes: int | None
    truncate: bool


class RunKeywords(MapKeywords, total=False):
    """Keywords of `Client.run` beside `input` and those of text, where they are explained."""

    record: Path | Recording | None
