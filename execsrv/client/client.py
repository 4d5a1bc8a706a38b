"""The client: runs commands on one server, over one connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Literal, Unpack

import trio

from execsrv._nursery import check_trio, open_helpers
from execsrv.client.connection import Connection, OpenChannel
from execsrv.client.mirror import Mirror
from execsrv.client.parameters import (
    Data,
    Path,
    StartKeywords,
    check_input,
    everything,
    flag,
    grace_milliseconds,
    milliseconds,
    seconds,
    terminal_size,
    text,
    variables,
    words,
)
from execsrv.client.process import Process
from execsrv.client.result import END_GRACE_SECONDS, Collected, Result, check_bound
from execsrv.errors import BadAnswerError, ProcessExistsError
from execsrv.limits import ClientConfig
from execsrv.protocol import (
    EnvironmentInfo,
    Failure,
    ListedProcess,
    Nothing,
    ProcessList,
    ProcessStart,
    ProcessStarted,
)

LEAVE_GRACE_SECONDS = 0.5
"""Time that a command has after SIGTERM when its block is left, unless its user says otherwise: as when a client hangs
up."""


class Client:
    """Runs commands on a server. Made by `connect_*` and `launch`; leaving their block ends all its commands."""

    _connection: Connection

    def __init__(self) -> None:
        raise TypeError("a Client is made by `async with` and `connect`, `connect_in_process` or `launch`")

    @classmethod
    def _made(cls, connection: Connection) -> Client:
        client = cls.__new__(cls)
        client._connection = connection
        return client

    def __repr__(self) -> str:
        state = "connected" if self._connection.calls.lost is None else "lost"
        return f"<Client {state} processes={len(self._connection.mirrors)}>"

    @property
    def info(self) -> EnvironmentInfo:
        """Facts of the server's machine: its shell, directories and system."""
        return self._connection.greeting.environment_info

    @property
    def connection_id(self) -> str:
        """Name that the server gave to this connection."""
        return self._connection.greeting.session_id

    async def run(
        self,
        argv: Sequence[Path],
        *,
        input: Data | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the word of subprocess.run; it ends the command too
        check: bool = False,
        max_bytes: int | None = None,
        **options: Unpack[StartKeywords],
    ) -> Result:
        """Run a command to its end and return its result. Its stdin is `input`, or empty.

        Other keywords are those of `start`: `cwd`, `env`, `inherit_env`, `tty`, `size`, `modes`, `arg0`, `umask`,
        `nice`, `oom_score_adj`, `idle_timeout`, `grace`, `overflow` and `prepared`.

        It ends with the process that was started. What that has started, and left behind, is collected from while it
        prints, then asked to end, and killed after `grace` (2 s): `Result.ended`. All that descends from the command is
        gone when this returns, or when it is cancelled.

        Each stream is kept up to `max_bytes`, beginning and end. Without it, more than 64 MiB is an error.

        Raises `SpawnError`; `CommandTimeoutError` after `timeout` seconds, when the command was asked to end and then
        killed, and, with `check`, `CommandFailedError`; `OutputTruncatedError`; `InvalidParamsError`;
        `ConnectionLostError`. All but the first know what had arrived.
        """
        check_input(input)
        patience = seconds("timeout", timeout)
        check_bound(max_bytes)
        if input is None and options.get("tty"):
            input = b""  # a terminal gets its end-of-file character then
        grace = options.get("grace")
        async with self.start(argv, stdin=input is not None, end_with_leader=True, **options) as process:
            collected = Collected(process, max_bytes)
            result = await collected.run(
                input,
                patience,
                END_GRACE_SECONDS if grace is None else grace,
                self._connection.config.leave_timeout,
            )
        return result.check() if check else result

    @asynccontextmanager
    async def start(
        self,
        argv: Sequence[Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        inherit_env: bool | None = None,
        stdin: bool = False,
        tty: bool = False,
        size: tuple[int, int] | tuple[int, int, int, int] | None = None,
        modes: Mapping[str, bool | int] | None = None,
        arg0: str | None = None,
        umask: int | None = None,
        nice: int | None = None,
        oom_score_adj: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the server's to keep
        idle_timeout: float | None = None,
        grace: float | None = None,
        end_with_leader: bool = False,
        overflow: Literal["block", "drop"] = "block",
        prepared: bool = False,
    ) -> AsyncIterator[Process]:
        """Start a command; leaving the block ends everything that descends from it.

        What still runs then is asked to end, and killed after `grace` seconds (0.5 s). Leaving waits until that is
        done, for a moment longer at most: an interrupted connection, or a process that the kernel is busy with, does
        not hold it up, and the kill follows.

        `cwd` is a path on the server's machine, by default where the server runs. Without `env` the command has the
        server's environment; with it exactly that, or that on top of the server's with `inherit_env`, without the
        variables whose value is None. `stdin` gives it a pipe to write to; `tty` a terminal instead of pipes, of `size`
        rows and columns (24, 80), and width and height in pixels where they are known, and with `modes` by their names
        in stty(1). `arg0` is what the program sees as its name. `umask`, `nice` and `oom_score_adj` are the server's
        unless they are given.

        The server ends it `timeout` seconds after its start, and when it has neither printed nor been given anything
        for `idle_timeout` seconds; and, with `end_with_leader`, what lives on after the process that was started. It
        gives `grace` each time, by default as it is configured. With an `overflow` of "drop" a command never waits for
        a slow reader, who gets a `Gap`. A `prepared` command is run exactly as given: its program is an absolute path,
        and nothing is inherited.

        Raises `RequestError`, of which `SpawnError` and `InvalidParamsError` are kinds, and `ConnectionLostError`.
        Raises `TypeError` for an `argv` that is one string.
        """
        connection = self._connection
        flag("stdin", stdin)
        flag("prepared", prepared)
        if inherit_env is not None:
            flag("inherit_env", inherit_env)
        flag("end_with_leader", end_with_leader)
        leaving = LEAVE_GRACE_SECONDS if grace is None else seconds("grace", grace, zero=True)
        given, removed = variables(env)
        with connection.new_mirror() as mirror:
            params = ProcessStart(
                argv=words(argv),
                cwd=self._place(cwd, prepared),
                env=given,
                env_remove=removed,
                env_policy=everything(env is None and not prepared if inherit_env is None else inherit_env),
                tty=tty,
                process_id=mirror.id,
                pipe_stdin=stdin and not tty,
                arg0=None if arg0 is None else text("arg0", arg0),
                size=terminal_size(size),
                modes=dict(modes or {}),
                umask=umask,
                nice=nice,
                oom_score_adj=oom_score_adj,
                window_bytes=connection.config.window_bytes if connection.is_execsrv else None,
                timeout_ms=milliseconds("timeout", timeout),
                idle_timeout_ms=milliseconds("idle_timeout", idle_timeout),
                grace_ms=None if grace is None else grace_milliseconds(leaving),
                end_with_leader=end_with_leader,
                overflow=overflow,
                kind="prepared" if prepared else "direct",
            )
            try:
                mirror.start = await connection.calls.post("process/start", params)
                yield Process._made(mirror, params.argv, await self._pid_of(mirror), overflow == "drop")
            finally:
                await self._end(mirror, leaving)

    def _place(self, cwd: Path | None, prepared: bool) -> str | None:
        """Return a directory as it is sent. The server's own needs no name, but for who has everything prepared."""
        if cwd is not None:
            return text("cwd", cwd)
        return None if self._connection.is_execsrv and not prepared else self.info.cwd

    async def _pid_of(self, mirror: Mirror) -> int | None:
        """Wait for the answer to a start. Raises the server's error."""
        assert mirror.start is not None
        try:
            answer = await self._connection.calls.answer_to(mirror.start, ProcessStarted)
        except ProcessExistsError:
            if not mirror.start.repeated:
                raise
            # It had started before the connection was interrupted.
            mirror.started = True
            return next((listed.pid for listed in await self.processes() if listed.process_id == mirror.id), None)
        except BadAnswerError:
            mirror.is_unsure = True
            raise
        mirror.started = True
        return answer.pid

    async def _end(self, mirror: Mirror, grace: float) -> None:
        """End what may run of a process. Cancelled before the answer, it may have started all the same."""
        if mirror.start is None or (isinstance(mirror.start.answer, Failure) and not mirror.started):
            return
        with trio.move_on_after(grace + self._connection.config.leave_timeout, shield=True) as patience:
            await mirror.end(grace)
        if patience.cancelled_caught:
            mirror.end_when_back()

    async def processes(self) -> list[ListedProcess]:
        """Return every process of this connection that the server still knows, oldest first."""
        return (await self._connection.calls.call("process/list", Nothing(), ProcessList)).processes


@asynccontextmanager
async def open_client(
    open_channel: OpenChannel, config: ClientConfig, reconnect: float = 0, name: str = "execsrv"
) -> AsyncIterator[Client]:
    """Open a client on channels of this kind, with the handshake done. Raises `ConnectionFailedError`."""
    check_trio()
    seconds("reconnect", reconnect, zero=True)
    async with open_helpers() as nursery:
        connection = Connection(config, nursery)
        await nursery.start(connection.stay, open_channel, name, reconnect)
        yield Client._made(connection)
