"""One connection to a server, from the side that asks for commands."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count

import trio

from execsrv._background import open_background
from execsrv._codec import decode_params
from execsrv._output import Closed, Exited
from execsrv._transports import MessageChannel
from execsrv.client._calls import Calls
from execsrv.client._process import MAX_COLLECTED_BYTES, Collected, Event, Process, Result
from execsrv.errors import CommandTimeout, ConnectionFailed, ConnectionLost, InvalidParams, RequestError
from execsrv.limits import Limits
from execsrv.protocol import (
    PROTOCOL_VERSION,
    Chunk,
    EnvironmentInfo,
    EnvPolicy,
    Failure,
    Initialize,
    Initialized,
    Notification,
    ProcessClosed,
    ProcessExited,
    ProcessOutput,
    ProcessStart,
    ProcessStarted,
    Size,
)

_EVERYTHING = EnvPolicy(inherit="all", ignore_default_excludes=True, exclude=[], set={}, include_only=[])


class Client:
    """Runs commands on a server. Made by `connect_*` and `launch`; leaving their block ends all its commands.

    `info` tells of the server's machine; `session_id` names the connection.
    """

    info: EnvironmentInfo
    session_id: str

    def __init__(self, channel: MessageChannel, limits: Limits) -> None:
        self._limits = limits
        self._calls = Calls(channel, self._heard)
        self._processes: dict[str, Process] = {}
        self._ids = count(1)
        self._acknowledges = False

    def __repr__(self) -> str:
        state = "connected" if self._calls.lost is None else "lost"
        return f"<Client {state} processes={len(self._processes)}>"

    async def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        input: bytes | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the word of subprocess.run; it ends the command too
        check: bool = False,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        max_bytes: int = MAX_COLLECTED_BYTES,
    ) -> Result:
        """Run a command to its end and return what came of it. Its stdin is `input`, or empty.

        Its process group is gone when this returns, or when it is cancelled. `cwd` and `env` are those of `start`. Each
        stream is kept up to `max_bytes`, beginning and end.

        Raises `SpawnError`; `CommandTimeout` after `timeout` seconds and, with `check`, `CommandFailed`, which both
        know the output; `ConnectionLost`, which knows what had arrived.
        """
        collected = Collected(max_bytes)
        result: Result | None = None
        async with self.start(argv, cwd=cwd, env=env, stdin=input is not None) as process:
            with trio.move_on_after(math.inf if timeout is None else timeout):
                result = await collected.communicate(process, input)
        if result is None:
            message = f"command did not end within {timeout} s: {argv[0]}"
            raise CommandTimeout(message, collected.stdout, collected.stderr)
        return result.check() if check else result

    @asynccontextmanager
    async def start(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        inherit_env: bool | None = None,
        stdin: bool = False,
        tty: bool = False,
        size: tuple[int, int] | None = None,
        arg0: str | None = None,
    ) -> AsyncIterator[Process]:
        """Start a command; leaving the block kills its whole process group.

        `cwd` is a path on the server's machine, by default where the server runs. Without `env` the command has the
        server's environment; with it exactly that, or that on top of the server's with `inherit_env`. `stdin` gives
        it a pipe to write to; `tty` a terminal of `size` rows and columns (24, 80) instead of pipes. `arg0` is what the
        program sees as its name.

        Raises `RequestError`, of which `SpawnError` and `InvalidParams` are kinds, and `ConnectionLost`.
        """
        window = self._limits.client_window_bytes
        process = Process(f"p{next(self._ids)}", self._calls, window, self._acknowledges)
        params = ProcessStart(
            argv=[_text(f"argv[{i}]", argument) for i, argument in enumerate(argv)],
            cwd=_text("cwd", cwd) if cwd is not None else self.info.cwd,
            env={_text("env", name): _text(f"env[{name!r}]", value) for name, value in (env or {}).items()},
            env_policy=_EVERYTHING if (env is None if inherit_env is None else inherit_env) else None,
            tty=tty,
            process_id=process.id,
            pipe_stdin=stdin and not tty,
            arg0=arg0,
            size=None if size is None else decode_params({"rows": size[0], "cols": size[1]}, Size),
            window_bytes=window if self._acknowledges else None,
        )
        self._processes[process.id] = process
        try:
            process.start = await self._calls.post("process/start", params)
            await self._calls.answer_to(process.start, ProcessStarted)
            yield process
        finally:
            # Cancelled before the answer, it may have started all the same.
            if process.start is not None and not isinstance(process.start.answer, Failure):
                with trio.move_on_after(2 * self._limits.drain_timeout, shield=True):
                    await process.end()
            del self._processes[process.id]

    async def _heard(self, told: Notification) -> None:
        """Put what the server tells into the log of the process that it is about."""
        entry: Event
        match told.method:
            case "process/output":
                output = decode_params(told.params, ProcessOutput)
                id, entry = output.process_id, Chunk(output.seq, output.stream, output.chunk)
            case "process/exited":
                exited = decode_params(told.params, ProcessExited)
                id = exited.process_id
                entry = Exited(exited.seq, exited.exit_code, exited.signal, exited.reason)
            case "process/closed":
                closed = decode_params(told.params, ProcessClosed)
                id, entry = closed.process_id, Closed(closed.seq)
            case _:
                return  # a newer server may tell more
        if (process := self._processes.get(id)) is not None:
            await process.arrived(entry)

    async def _run(self) -> None:
        try:
            await self._calls.run()
        finally:
            for process in self._processes.values():
                process.connection_lost()

    async def _greet(self, name: str) -> None:
        greeting = await self._calls.call("initialize", Initialize(name), Initialized)
        self.info, self.session_id = greeting.environment_info, greeting.session_id
        self._acknowledges = greeting.protocol_version == PROTOCOL_VERSION
        await self._calls.tell("initialized")


def _text(field: str, value: str | os.PathLike[str]) -> str:
    """A string that can be sent. Raises `TypeError` for another type, `InvalidParams` for what has no UTF-8."""
    text = os.fspath(value)
    if not isinstance(text, str):
        raise TypeError(f"{field} must be a string or a path of one, got {type(value).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidParams(f"{field}: {text!r} cannot be sent as UTF-8", field=field) from None
    return text


@asynccontextmanager
async def open_client(channel: MessageChannel, limits: Limits, name: str = "execsrv") -> AsyncIterator[Client]:
    """A client on a channel, which it takes ownership of, with the handshake done. Raises `ConnectionFailed`."""
    client = Client(channel, limits)
    try:
        async with open_background() as nursery:
            nursery.start_soon(client._run)
            try:
                with trio.fail_after(limits.handshake_timeout):
                    await client._greet(name)
            except (trio.TooSlowError, RequestError, ConnectionLost) as error:
                what = str(error) or f"no answer within {limits.handshake_timeout} s"
                raise ConnectionFailed(f"handshake failed: {what}") from error
            yield client
    finally:
        with trio.move_on_after(limits.flush_timeout, shield=True):
            await channel.aclose()
