"""The client: runs commands on one server, over one connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any, Literal, Unpack, overload

from execsrv._nursery import check_trio, open_helpers
from execsrv.client.connection import Connection, OpenChannel
from execsrv.client.files import Files
from execsrv.client.http import Http
from execsrv.client.parameters import (
    PIPE,
    Data,
    Path,
    RunKeywords,
    StartKeywords,
    as_bytes,
    everything,
    flag,
    grace_milliseconds,
    milliseconds,
    names,
    seconds,
    stderr_place,
    stdin_pipe,
    stdout_place,
    string,
    terminal_size,
    variables,
    words,
)
from execsrv.client.process import Process
from execsrv.client.remote_changes import RemoteChanges
from execsrv.client.result import END_GRACE_SECONDS, Collected, Result, check_bound
from execsrv.client.starting import check_known, end, pid_of, place
from execsrv.client.text import text_mode
from execsrv.limits import ClientConfig
from execsrv.protocol import (
    EnvironmentInfo,
    ListedProcess,
    Nothing,
    OutputFile,
    ProcessList,
    ProcessStart,
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

    @cached_property
    def files(self) -> Files:
        """Files of the server's machine."""
        return Files(RemoteChanges(self._connection.calls, self._connection.config.leave_timeout))

    @cached_property
    def http(self) -> Http:
        """HTTP requests from the server's machine."""
        return Http(self._connection.calls, self._connection.config.leave_timeout)

    @overload
    async def run(
        self,
        argv: Sequence[Path],
        *,
        input: Data | str | None = None,
        text: Literal[True],
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[RunKeywords],
    ) -> Result[str]: ...

    @overload
    async def run(
        self,
        argv: Sequence[Path],
        *,
        input: Data | None = None,
        text: Literal[False] | None = None,
        **options: Unpack[RunKeywords],
    ) -> Result[bytes]: ...

    @overload
    async def run(
        self,
        argv: Sequence[Path],
        *,
        input: Data | str | None = None,
        text: Literal[True] | None = None,
        encoding: str,
        errors: str | None = None,
        **options: Unpack[RunKeywords],
    ) -> Result[str]: ...

    @overload
    async def run(
        self, argv: Sequence[Path], *, input: Data | str | None = None, text: bool, **options: Unpack[RunKeywords]
    ) -> Result[Any]: ...

    async def run(
        self,
        argv: Sequence[Path],
        *,
        input: Data | str | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the word of subprocess.run; it ends the command too
        check: bool = False,
        max_bytes: int | None = None,
        truncate: bool = False,
        **options: Unpack[StartKeywords],
    ) -> Result[Any]:
        """Run a command to its end and return its result. Its stdin is `input`, or empty.

        With `text`, or an `encoding` (UTF-8) or `errors` ("strict"), input and output are strings, and lines end with
        "\\n". Other keywords are those of `start`: `cwd`, `env`, `env_add`, `env_remove`, `stdout`, `stderr`,
        `tty`, `size`, `modes`, `arg0`, `umask`, `nice`, `oom_score_adj`, `idle_timeout`, `grace`, `overflow` and
        `prepared`.

        It ends with the process that was started. What that has started, and left behind, is collected from while it
        prints, then asked to end, and killed after `grace` (2 s): `Result.ended`. All that descends from the command is
        gone when this returns, or when it is cancelled.

        Each stream is kept up to `max_bytes` (64 MiB). More is an error, unless it may `truncate`: then the beginning
        and the end are kept.

        Raises `SpawnError`; `CommandTimeoutError` after `timeout` seconds, when the command was asked to end and then
        killed, and, with `check`, `CommandFailedError`; `OutputTruncatedError`; `InvalidParamsError`;
        `ConnectionLostError`. All but the first know what had arrived.
        """
        mode = text_mode(text, encoding, errors)
        data = as_bytes(input, mode and mode.encoding)
        patience = seconds("timeout", timeout)
        check_bound(max_bytes)
        flag("check", check)
        flag("truncate", truncate)
        if data is None and options.get("tty"):
            data = b""  # a terminal gets its end-of-file character then
        grace = options.get("grace")
        async with self.start(argv, stdin=data is not None, end_with_leader=True, **options) as process:
            result = await Collected(process, mode, max_bytes, truncate).run(
                data,
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
        env: Mapping[str, str] | None = None,
        env_add: Mapping[str, str] | None = None,
        env_remove: Collection[str] = (),
        stdin: bool | int = False,
        stdout: int | Path | OutputFile = PIPE,
        stderr: int | Path | OutputFile = PIPE,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
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
        server's environment, with it exactly that; `env_add` is laid on top, and the variables in `env_remove` are
        taken out. A `stdin` of `PIPE` gives it a pipe to write to. `stdout` and `stderr` are `PIPE`, `DEVNULL`, or a
        file on the server, by its absolute path or as an `OutputFile`; a `stderr` of `STDOUT` is one stream with
        stdout, in the order of writing. `tty` gives it a terminal instead of all of them, of `size`
        rows and columns (24, 80), and width and height in pixels where they are known, and with `modes` by their names
        in stty(1). `arg0` is what the program sees as its name. `umask`, `nice` and `oom_score_adj` are the server's
        unless they are given.

        `text`, `encoding` and `errors` are how its output is read as text (UTF-8, "strict"), and input may be a string.

        The server ends it `timeout` seconds after its start, and when it has neither printed nor been given anything
        for `idle_timeout` seconds; and, with `end_with_leader`, what lives on after the process that was started. It
        gives `grace` each time, by default as it is configured. With an `overflow` of "drop" a command never waits for
        a slow reader, who gets a `Gap`. A `prepared` command is run exactly as given: its program is an absolute path,
        and nothing is inherited.

        Raises `RequestError`, of which `SpawnError` and `InvalidParamsError` are kinds, and `ConnectionLostError`.
        Raises `TypeError` for an `argv` that is one string.
        """
        connection = self._connection
        flag("prepared", prepared)
        flag("end_with_leader", end_with_leader)
        leaving = LEAVE_GRACE_SECONDS if grace is None else seconds("grace", grace, zero=True)
        mode = text_mode(text, encoding, errors)
        pipe_stdin = stdin_pipe(stdin)
        with connection.new_mirror() as mirror:
            params = ProcessStart(
                argv=words(argv),
                cwd=place(connection, cwd, prepared),
                env=variables(env, env_add),
                env_remove=names("env_remove", env_remove),
                env_policy=everything(env is None and not prepared),
                tty=tty,
                process_id=mirror.id,
                pipe_stdin=pipe_stdin and not tty,
                stdout=stdout_place(stdout),
                stderr=stderr_place(stderr),
                times=connection.is_execsrv,
                arg0=None if arg0 is None else string("arg0", arg0),
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
            check_known(connection, params)
            try:
                mirror.start = await connection.calls.post("process/start", params)
                yield Process._made(mirror, params.argv, await pid_of(connection, mirror), overflow == "drop", mode)
            finally:
                await end(connection, mirror, leaving)

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
