"""One connection to a server, from the side that asks for commands."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import count
from typing import Literal

import trio

from execsrv._log.log import Gap
from execsrv._nursery import open_helpers
from execsrv._wire.channel import MessageChannel
from execsrv._wire.codecs import decode_params
from execsrv.client.calls import Calls
from execsrv.client.process import (
    MAX_COLLECTED_BYTES,
    Collected,
    Event,
    Process,
    Result,
    closed_entry,
    exited_entry,
)
from execsrv.errors import (
    AlreadyAttachedError,
    CommandTimeoutError,
    ConnectionFailedError,
    ConnectionLostError,
    ExecsrvError,
    InvalidParamsError,
    ProcessExistsError,
    RequestError,
    UnknownProcessError,
)
from execsrv.limits import ClientConfig
from execsrv.protocol import (
    PROTOCOL_VERSION,
    Chunk,
    EnvironmentInfo,
    EnvPolicy,
    Failure,
    Initialize,
    Initialized,
    ListedProcess,
    Nothing,
    Notification,
    ProcessClosed,
    ProcessExited,
    ProcessGap,
    ProcessList,
    ProcessOutput,
    ProcessOutputRead,
    ProcessRead,
    ProcessStart,
    ProcessStarted,
    Size,
)

OpenChannel = Callable[[], AbstractAsyncContextManager[MessageChannel]]
"""Opens a channel to the server. Raises `ConnectionFailedError`."""

_RETRY_SECONDS = 0.1
_EVERYTHING = EnvPolicy(inherit="all", ignore_default_excludes=True, exclude=[], set={}, include_only=[])


class Client:
    """Runs commands on a server. Made by `connect_*` and `launch`; leaving their block ends all its commands.

    `info` tells of the server's machine; `session_id` names the connection.
    """

    info: EnvironmentInfo
    session_id: str

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._calls = Calls(self._heard)
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

        All that descends from it is gone when this returns, or when it is cancelled; see `start`, whose `cwd` and `env`
        are those here. Each stream is kept up to `max_bytes`, beginning and end.

        Raises `SpawnError`; `CommandTimeoutError` after `timeout` seconds and, with `check`, `CommandFailedError`,
        which both know the output; `ConnectionLostError`, which knows what had arrived.
        """
        collected = Collected(max_bytes)
        result: Result | None = None
        async with self.start(argv, cwd=cwd, env=env, stdin=input is not None) as process:
            with trio.move_on_after(math.inf if timeout is None else timeout):
                result = await collected.communicate(process, input)
        if result is None:
            message = f"command did not end within {timeout} s: {argv[0]}"
            raise CommandTimeoutError(message, collected.stdout, collected.stderr)
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
        timeout: float | None = None,  # noqa: ASYNC109  # the server's to keep
        idle_timeout: float | None = None,
        overflow: Literal["block", "drop"] = "block",
        prepared: bool = False,
    ) -> AsyncIterator[Process]:
        """Start a command; leaving the block kills everything that descends from it.

        Leaving waits until that is done, for a moment at most: an interrupted connection, or a process that the kernel
        is busy with, does not hold it up, and the kill follows.

        `cwd` is a path on the server's machine, by default where the server runs. Without `env` the command has the
        server's environment; with it exactly that, or that on top of the server's with `inherit_env`. `stdin` gives
        it a pipe to write to; `tty` a terminal of `size` rows and columns (24, 80) instead of pipes. `arg0` is what the
        program sees as its name.

        The server ends it `timeout` seconds after its start, and when it has neither printed nor been given anything
        for `idle_timeout` seconds. With an `overflow` of "drop" it never waits for a slow reader, who gets a `Gap`.
        A `prepared` command is run exactly as given: its program is an absolute path, and nothing is inherited.

        Raises `RequestError`, of which `SpawnError` and `InvalidParamsError` are kinds, and `ConnectionLostError`.
        """
        window = self._config.window_bytes
        process = Process(f"p{next(self._ids)}", self._calls, window, self._acknowledges)
        params = ProcessStart(
            argv=[_text(f"argv[{i}]", argument) for i, argument in enumerate(argv)],
            cwd=_text("cwd", cwd) if cwd is not None else self.info.cwd,
            env={_text("env", name): _text(f"env[{name!r}]", value) for name, value in (env or {}).items()},
            env_policy=_EVERYTHING if (env is None and not prepared if inherit_env is None else inherit_env) else None,
            tty=tty,
            process_id=process.id,
            pipe_stdin=stdin and not tty,
            arg0=arg0,
            size=None if size is None else decode_params({"rows": size[0], "cols": size[1]}, Size),
            window_bytes=window if self._acknowledges else None,
            timeout_ms=_milliseconds(timeout),
            idle_timeout_ms=_milliseconds(idle_timeout),
            overflow=overflow,
            kind="prepared" if prepared else "direct",
        )
        self._processes[process.id] = process
        try:
            process.start = await self._calls.post("process/start", params)
            try:
                await self._calls.answer_to(process.start, ProcessStarted)
            except ProcessExistsError:
                if not process.start.repeated:
                    raise
                # It had started before the connection was interrupted.
                process.started = True
            yield process
        finally:
            # Cancelled before the answer, it may have started all the same.
            if process.start is not None and (process.started or not isinstance(process.start.answer, Failure)):
                with trio.move_on_after(self._config.leave_timeout, shield=True) as patience:
                    await process.end()
                if patience.cancelled_caught:
                    process.end_when_back()
            del self._processes[process.id]

    async def processes(self) -> list[ListedProcess]:
        """Every process of this connection that the server still knows, oldest first."""
        return (await self._calls.call("process/list", Nothing(), ProcessList)).processes

    async def _heard(self, told: Notification) -> None:
        """Put what the server tells into the log of the process that it is about."""
        entry: Event
        match told.method:
            case "process/output":
                output = decode_params(told.params, ProcessOutput)
                id, entry = output.process_id, Chunk(output.seq, output.stream, output.chunk)
            case "process/gap":
                gap = decode_params(told.params, ProcessGap)
                id, entry = gap.process_id, Gap(gap.from_seq, gap.seq, gap.omitted)
            case "process/exited":
                exited = decode_params(told.params, ProcessExited)
                id, entry = exited.process_id, exited_entry(exited)
            case "process/closed":
                closed = decode_params(told.params, ProcessClosed)
                id, entry = closed.process_id, closed_entry(closed)
            case _:
                return  # a newer server may tell more
        if (process := self._processes.get(id)) is not None:
            await process.arrived(entry)

    # -- the connection --

    async def _stay_connected(
        self, open_channel: OpenChannel, name: str, reconnect: float, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Speak over one channel and, as long as that may take, over its successors. Raises `ConnectionFailedError`."""
        why = "the connection is closed"
        try:
            why = await self._speak(open_channel, partial(self._greet, name, task_status))
            if not hasattr(self, "info"):
                raise ConnectionFailedError(f"handshake failed: {why}")
            while reconnect > 0 and self._acknowledges:
                self._calls.interrupted()
                for process in self._processes.values():
                    process.interrupted()
                why = await self._resume(open_channel, name, reconnect)
        except _Ended as error:
            why = f"{why}; {error}"
        finally:
            self._calls.end(why)
            for process in self._processes.values():
                process.lose(ConnectionLostError(why))

    async def _resume(self, open_channel: OpenChannel, name: str, reconnect: float) -> str:
        """Speak over a new channel, as soon as there is one; why it ended. Raises `_Ended` when none comes in time."""
        greeted = trio.Event()
        deadline = trio.current_time() + reconnect
        while True:
            why = ""
            with trio.CancelScope(deadline=deadline) as scope:
                try:
                    why = await self._speak(open_channel, partial(self._greet_again, name, greeted, scope))
                except (ConnectionFailedError, AlreadyAttachedError) as error:
                    why = str(error)
            if greeted.is_set():
                return why
            if scope.cancelled_caught or trio.current_time() >= deadline:
                raise _Ended(f"no way back within {reconnect} s: {why or 'no answer'}")
            await trio.sleep(_RETRY_SECONDS)

    async def _speak(self, open_channel: OpenChannel, greet: Callable[[], Awaitable[None]]) -> str:
        """Speak over a new channel until it ends, and return why it did.

        Raises `ConnectionFailedError`, and what `greet` raises.
        """
        async with open_channel() as channel:
            try:
                config = self._config
                return await self._calls.run(channel, greet, config.ping_interval, config.ping_timeout)
            finally:
                with trio.move_on_after(self._config.flush_timeout, shield=True):
                    await channel.aclose()

    async def _greet(self, name: str, task_status: trio.TaskStatus[None]) -> None:
        try:
            with trio.fail_after(self._config.handshake_timeout):
                greeting = await self._calls.ask_first("initialize", Initialize(name), Initialized)
                await self._calls.tell("initialized")
        except (trio.TooSlowError, RequestError, ConnectionLostError, trio.BrokenResourceError) as error:
            what = str(error) or f"no answer within {self._config.handshake_timeout} s"
            raise ConnectionFailedError(f"handshake failed: {what}") from error
        self.info, self.session_id = greeting.environment_info, greeting.session_id
        self._acknowledges = greeting.protocol_version == PROTOCOL_VERSION
        task_status.started()

    async def _greet_again(self, name: str, greeted: trio.Event, scope: trio.CancelScope) -> None:
        """Take the connection over, and catch up with every process."""
        try:
            await self._calls.ask_first("initialize", Initialize(name, self.session_id), Initialized)
            await self._calls.tell("initialized")
            for process in list(self._processes.values()):
                try:
                    read = await self._calls.ask_first(
                        "process/read", ProcessRead(process.id, process.last_seq), ProcessOutputRead
                    )
                except UnknownProcessError as error:
                    process.not_there(str(error))
                else:
                    process.resumed(read)
        except trio.BrokenResourceError as error:
            raise ConnectionFailedError("the connection was lost again") from error
        except AlreadyAttachedError:
            raise
        except ExecsrvError as error:
            raise _Ended(str(error)) from error
        scope.deadline = math.inf
        greeted.set()


class _Ended(Exception):
    """There is nothing to come back to."""


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, round(seconds * 1000))


def _text(field: str, value: str | os.PathLike[str]) -> str:
    """A string that can be sent. Raises `TypeError` for another type, `InvalidParamsError` for what has no UTF-8."""
    text = os.fspath(value)
    if not isinstance(text, str):
        raise TypeError(f"{field} must be a string or a path of one, got {type(value).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidParamsError(f"{field}: {text!r} cannot be sent as UTF-8", field=field) from None
    return text


@asynccontextmanager
async def open_client(
    open_channel: OpenChannel, config: ClientConfig, reconnect: float = 0, name: str = "execsrv"
) -> AsyncIterator[Client]:
    """A client on channels of this kind, with the handshake done. Raises `ConnectionFailedError`."""
    client = Client(config)
    async with open_helpers() as nursery:
        await nursery.start(client._stay_connected, open_channel, name, reconnect)
        yield client
