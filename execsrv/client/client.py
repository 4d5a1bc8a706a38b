"""The client: runs commands on one server, over one connection."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import cached_property, partial
from typing import Any, Literal, Unpack, overload

from execsrv._nursery import check_trio, open_helpers, started
from execsrv.client.connection import Connection, OpenChannel
from execsrv.client.file_calls import FileCalls
from execsrv.client.files import Files
from execsrv.client.given import Given, made
from execsrv.client.greeting_wishes import WISHES, Wishes
from execsrv.client.http import Http
from execsrv.client.inside import mirror_of
from execsrv.client.many import Results
from execsrv.client.parameters import (
    Data,
    Path,
    RunKeywords,
    StartKeywords,
    flag,
    seconds,
)
from execsrv.client.process import Process, collected
from execsrv.client.remote_changes import RemoteChanges
from execsrv.client.result import END_GRACE_SECONDS, Result, check_bound
from execsrv.client.sharing import Sharing
from execsrv.client.start_words import MAP_WORDS, START_WORDS, refused
from execsrv.client.starting import Starting, recorded_as
from execsrv.client.text import as_bytes, text_mode
from execsrv.client.tokens import ReadToken, no_token
from execsrv.errors import CommandError, InvalidParamsError
from execsrv.limits import ClientConfig
from execsrv.protocol import EnvironmentInfo


class Client(Sharing, Starting, metaclass=Given):
    """Runs commands on a server. Made by `connect_*` and `launch`; leaving their block ends all its commands."""

    _made_by = "a Client is made by `async with` and `connect`, `connect_in_process` or `launch`"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

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

    @property
    def server_ends_in(self) -> float | None:
        """Seconds until the server is gone at the latest, once it has said that it ends. None before.

        What runs may go on until then, where the server has a `drain_period`; nothing is started any more.
        """
        ends_at = self._connection.ends_at
        return None if ends_at is None else max(0.0, ends_at - time.monotonic())

    @cached_property
    def files(self) -> Files:
        """Files of the server's machine."""
        config = self._connection.config
        return Files(RemoteChanges(FileCalls(self._connection.calls), config))

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
        self,
        argv: Sequence[Path],
        *,
        input: Data | str | None = None,
        text: Literal[True] | None = None,
        encoding: None = None,
        errors: str,
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
        "\\n". Other keywords are those of `start`: `cwd`, `env`, `env_add`, `env_remove`, `secret_env`, `stdout`,
        `stderr`, `tty`, `size`, `modes`, `arg0`, `umask`, `nice`, `oom_score_adj`, `sandbox`, `limits`, `user`,
        `runner`, `shell_snapshot`, `idle_timeout`, `grace`, `overflow`, `prepared`, `pass_streams` and `record`.

        It ends with the process that was started. What that has started, and left behind, is collected from while it
        prints, then asked to end, and killed after `grace` (2 s): `Result.ended`. All that descends from the command is
        gone when this returns, or when it is cancelled.

        Each stream is kept up to `max_bytes` (64 MiB). More is an error, unless it may `truncate`: then the beginning
        and the end are kept.

        Raises `SpawnError`; `CommandTimeoutError` after `timeout` seconds, when the command was asked to end and then
        killed, and, with `check`, `CommandFailedError`; `OutputTruncatedError`; `InvalidParamsError`;
        `ConnectionLostError`. All but the first know what had arrived.
        """
        if not options.keys() <= START_WORDS:
            raise refused("run", options.keys() - START_WORDS)
        mode = text_mode(text, encoding, errors)
        data = as_bytes(input, mode)
        options["record"] = recorded_as(options.get("record"), mode)
        patience = seconds("timeout", timeout)
        check_bound(max_bytes)
        flag("check", check)
        flag("truncate", truncate)
        if data is None and options.get("tty"):
            data = b""  # a terminal gets its end-of-file character then
        grace = options.get("grace")
        async with self.start(argv, stdin=data is not None, end_with_leader=True, **options) as process:
            with collected(process, mode, max_bytes, truncate) as output:
                result = await output.run(
                    data,
                    patience,
                    END_GRACE_SECONDS if grace is None else grace,
                    self._connection.config.leave_timeout,
                )
        return result.check() if check else result

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 20,
        return_errors: Literal[False] = False,
        text: Literal[True],
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[RunKeywords],
    ) -> Results[Result[str]]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 20,
        return_errors: Literal[False] = False,
        text: Literal[True] | None = None,
        encoding: str,
        errors: str | None = None,
        **options: Unpack[RunKeywords],
    ) -> Results[Result[str]]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 20,
        return_errors: Literal[False] = False,
        text: Literal[False] | None = None,
        **options: Unpack[RunKeywords],
    ) -> Results[Result[bytes]]: ...

    @overload
    def map(
        self, commands: Iterable[Sequence[Path]], *, limit: int = 20, return_errors: bool, **options: Any
    ) -> Results[Result[Any] | CommandError]: ...

    def map(
        self, commands: Iterable[Sequence[Path]], *, limit: int = 20, return_errors: bool = False, **options: Any
    ) -> Results[Any]:
        """Run many commands, at most `limit` at a time, and iterate over their results in the order in which they end.

        `Result.argv` tells whose it is. Other keywords are those of `run`, without `input` and `record`. `commands` may
        be endless: the next is taken when there is room, and results that nobody takes hold up further starts.

        Leaving the loop early, by an error too, ends what still runs. An error of a command is a `CommandError` with
        its `argv`, whose cause is a `SpawnError` or another `RequestError` where it could not be run. It ends all
        others, unless `return_errors` has it among the results. Raises `ConnectionLostError`.
        """
        flag("return_errors", return_errors)
        if not options.keys() <= MAP_WORDS:
            raise refused("map", options.keys() - MAP_WORDS)
        connection, run = self._connection, partial(self.run, **options)
        return Results(connection.calls.check, connection.nursery, run, commands, limit, return_errors)

    @asynccontextmanager
    async def record(
        self,
        process: Process,
        path: Path,
        *,
        input: bool = False,
        title: str | None = None,
        idle_time_limit: float | None = None,
    ) -> AsyncIterator[None]:
        """Record, in this block, what a process prints from here on, as an asciicast v3 in a file on this machine.

        The new sizes of its terminal and its exit code are recorded too, and with `input` what is written to it:
        passwords are input. Players show `title`, and shorten a silence to `idle_time_limit` seconds.

        Readers of the process get the same as without, and a slow disk never slows it down: the recording leaves output
        out instead, with a marker there. Raises `OSError` where the file cannot be opened, and at the end of the block
        where it could not be written; it holds what had been written then.
        """
        from execsrv.client import recorder
        from execsrv.record import Recording

        if not isinstance(process, Process):
            raise TypeError(f"process must be a Process, got {type(process).__name__}")
        mirror = mirror_of(process)
        if mirror.reader.is_passed:
            message = f"process {process.id} was started with pass_streams, and cannot be recorded"
            raise InvalidParamsError(message, field="process")
        recording = recorder.recording(Recording(path, input, title, idle_time_limit), mirror.text)
        size = (await process.snapshot()).size
        async with recorder.recorded(mirror, recording, process.argv, size):
            yield


@asynccontextmanager
async def open_client(
    open_channel: OpenChannel,
    config: ClientConfig,
    reconnect: float = 0,
    wishes: Wishes = WISHES,
    read_token: ReadToken = no_token,
) -> AsyncIterator[Client]:
    """Open a client on channels of this kind, with the handshake done. Raises `ConnectionFailedError`."""
    check_trio()
    seconds("reconnect", reconnect, zero=True)
    async with open_helpers() as nursery:
        connection = Connection(config, nursery, read_token)
        await started(nursery, connection.stay, open_channel, wishes, reconnect)
        try:
            yield made(Client, connection)
        finally:
            connection.end()
