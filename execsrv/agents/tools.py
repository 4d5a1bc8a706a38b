"""The tools by which an agent runs commands: it starts one, has what came within a window of time, and goes on later.

    open_tools
    └─ a task for each session: `_live`, from the start until nothing of the command lives, or somebody ends it

A session belongs to the block of `open_tools`, not to the call that started it. Leaving the block ends all of them.
"""

from __future__ import annotations

import errno
import logging
import os
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from typing import Any, Unpack

import trio

from execsrv._nursery import happened, open_helpers, started
from execsrv.agents.answers import Answer, Picture, Piece, Sessions
from execsrv.agents.asking import added, command_argv, confined, joined
from execsrv.agents.bookkeeping import Book
from execsrv.agents.events import AgentEvent, Began, Typed
from execsrv.agents.looking import input_now
from execsrv.agents.session import EventSink, Session
from execsrv.agents.settings import ToolSettings
from execsrv.client import STDOUT, Client
from execsrv.client.inside import connection_of
from execsrv.client.keywords import StartKeywords
from execsrv.client.late import undo_if_late
from execsrv.client.parameters import Path, string
from execsrv.errors import ConnectionLostError, InvalidParamsError, ProcessEndedError, RequestError, SpawnError
from execsrv.protocol import InputWait

logger = logging.getLogger(__name__)

KILL_GRACE_SECONDS = 2.0
"""Time after SIGTERM that `kill_session` gives, unless it is asked for another."""


class Tools:
    """The tools of one agent. Made by `open_tools`."""

    def __init__(
        self,
        client: Client,
        settings: ToolSettings,
        on_event: EventSink,
        options: Mapping[str, Any],
        tree: trio.Nursery,
        book: Book,
        recordings: str | None,
    ) -> None:
        self._client = client
        self._settings = settings
        self._tell = on_event
        self._options = options
        self._tree = tree
        self._recordings = recordings
        self._book = book

    def __repr__(self) -> str:
        return f"<Tools {len(self._book.sessions)} sessions>"

    @property
    def settings(self) -> ToolSettings:
        """Bounds of these tools."""
        return self._settings

    async def exec_command(
        self,
        cmd: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        tty: bool = False,
        shell: str | None = None,
        login: bool = False,
        yield_time_ms: int | None = None,
        max_output_tokens: int | None = None,
        max_output_bytes: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the server's to keep
    ) -> Answer:
        """Start a command, and return what came of it until it ended or the window was over.

        The window ends sooner when a command on a terminal waits for input: `Answer.waiting` names the process, and how
        that is known. `cmd` is a line for the `shell`, by default that of the server's user, with `login` as a login
        shell; or a list of words, which no shell sees. A relative `cwd` counts from that of the tools, or the server's.
        `env` is laid on top of the environment; in a `sandbox` it has no TMPDIR. A command with a `tty` can be written
        to; one without has an empty stdin, and its stdout and stderr are one, in the order of writing. The server ends
        it after `timeout` seconds. A start that hangs is given up when the window is over, or the default one where
        that is longer.

        Cancelling ends the command: nobody would know of it. Raises `SpawnError` and other kinds of `RequestError`,
        `LimitExceededError` when too many go on, `ConnectionLostError`, and `trio.ClosedResourceError` after the block.
        """
        window = self._settings.window(yield_time_ms, self._settings.exec_yield_ms)
        most = self._settings.answered_bytes(max_output_tokens, max_output_bytes)
        argv = command_argv(cmd, self._client.info.shell.path if shell is None else shell, login)
        command = cmd if isinstance(cmd, str) else shlex.join(argv)
        options: dict[str, Any] = dict(self._options)
        options |= {"tty": tty, "timeout": timeout, "env_add": added(self._options, env)}
        if cwd is not None:
            options["cwd"] = joined(self._options.get("cwd") or self._client.info.cwd, cwd)
        if not tty and connection_of(self._client).is_execsrv:
            options["stderr"] = STDOUT
        since = trio.current_time()
        with self._book.room() as number:
            if self._recordings is not None:
                options["record"] = os.path.join(self._recordings, f"session-{number}.cast")
            patience = max(window, self._settings.window(None, self._settings.exec_yield_ms))
            try:
                with trio.fail_at(since + patience):
                    session: Session = await started(self._tree, self._live, number, argv, command, options)
            except trio.TooSlowError:
                why = f"cannot start: given up, as it had not begun within {patience:g} s"
                raise SpawnError(why, stage="resources", errno=errno.ETIMEDOUT) from None
        undo_if_late(session.scope.cancel)
        try:
            return await self._window(session, since, window, most)
        except BaseException:  # whatever a cancel looks like that has met with several tasks
            session.scope.cancel()
            raise

    async def write_stdin(
        self,
        session_id: int,
        chars: str = "",
        *,
        until: str = "",
        yield_time_ms: int | None = None,
        max_output_tokens: int | None = None,
        max_output_bytes: int | None = None,
    ) -> Answer:
        """Write to a session's terminal, and return what came until it ended or the window was over.

        Without `chars` it only looks. The window ends sooner when the text `until` is in the new output, and when the
        session waits for input. Where there is no terminal, Ctrl-C and Ctrl-\\ are their signals, and everything else
        raises `StdinClosedError`.

        Cancelling loses nothing that is printed: the session goes on, and the next answer has it. Raises
        `UnknownSessionError`, `ProcessEndedError` for input that comes too late, `WaitTimeoutError` for a part of it
        that was not typed, as the command does not read, and `ConnectionLostError`.
        """
        session = self._book.session(session_id)
        default = self._settings.write_yield_ms if chars else self._settings.poll_yield_ms
        window = self._settings.window(yield_time_ms, default)
        most = self._settings.answered_bytes(max_output_tokens, max_output_bytes)
        since = trio.current_time()
        self._tell(Typed(session.number, string("chars", chars)))
        before = None
        if chars:
            if self._sees_input(session):
                before = await input_now(session.process)
            await session.write(chars, window)
        return await self._window(session, since, window, most, string("until", until), before)

    async def _window(
        self, session: Session, since: float, window: float, most: int, until: str = "", before: InputWait | None = None
    ) -> Answer:
        with trio.move_on_at(since + window):
            async with open_helpers() as helpers:
                if self._sees_input(session):
                    helpers.start_soon(session.watch_input, before)
                await session.wait(until)
        session.check_reachable()
        return session.answer(since, most)

    def _sees_input(self, session: Session) -> bool:
        """Return whether it can be seen that a session waits for input: on a terminal, by execsrv."""
        return session.tty and session.state == "running" and connection_of(self._client).is_execsrv

    def list_sessions(self) -> Sessions:
        """Return the sessions that are known, oldest first."""
        return Sessions([session.listed() for session in list(self._book.sessions.values())])

    async def kill_session(self, session_id: int, *, grace: float = KILL_GRACE_SECONDS) -> Answer:
        """End everything of a session, by force after `grace` seconds, and return its last output and its end.

        Cancelling loses nothing: the next answer has the output. Raises `UnknownSessionError` and
        `ConnectionLostError`.
        """
        session = self._book.session(session_id)
        since = trio.current_time()
        if session.state != "ended":
            await session.process.terminate(grace)
            await happened(session.over)
        session.check_reachable()
        return session.answer(since, self._settings.answered_bytes(None, None))

    def read_output(
        self,
        session_id: int,
        offset: int = 0,
        *,
        max_output_tokens: int | None = None,
        max_output_bytes: int | None = None,
    ) -> Piece:
        """Return what a session has printed from a byte on, whatever answers had of it. A negative one is from the end.

        Raises `UnknownSessionError`.
        """
        most = self._settings.answered_bytes(max_output_tokens, max_output_bytes)
        if not isinstance(offset, int) or isinstance(offset, bool):
            raise InvalidParamsError(f"offset must be a number of bytes, got {offset!r}", field="offset")
        return self._book.session(session_id).read(offset, most)

    async def read_screen(self, session_id: int) -> Picture:
        """Return what a person would see on a session's terminal. Needs `execsrv[screen]`.

        Raises `UnknownSessionError`, and `ProcessEndedError` when it has ended and its screen with it.
        """
        session = self._book.session(session_id)
        if session.state == "ended":
            how = f"has ended, and its screen with it; read_output of session ID {session.number} has what it printed"
            raise ProcessEndedError(session.process.argv, how, exit_code=session.process.exit_code)
        screen = await session.process.screen()
        return Picture(**session.facts(), screen=screen.text, cursor=screen.cursor, size=screen.size)

    def recording_of(self, session_id: int) -> str | None:
        """Return the file that a session is recorded in, None where it is not. Raises `UnknownSessionError`."""
        return self._book.session(session_id).recording

    # -- a session's task --

    async def _live(
        self,
        number: int,
        argv: list[str],
        command: str,
        options: dict[str, Any],
        *,
        task_status: trio.TaskStatus[Session],
    ) -> None:
        """Start a command and read it to its end, and on until nothing of it lives."""
        session: Session | None = None
        lost: ConnectionLostError | None = None
        has_lived = False
        try:
            async with self._client.start(argv, **options) as process:
                session = Session(number, process, command, options["tty"], self._settings, self._tell)
                session.recording = options.get("record")
                self._book.sessions[number] = session
                self._tell(Began(number, argv, options.get("cwd"), session.tty, process.pid))
                task_status.started(session)
                with session.scope:
                    await session.live()
                has_lived = True
        except ConnectionLostError as error:
            if session is None:
                raise
            lost = error
        except (OSError, RequestError) as error:
            is_answer = isinstance(error, RequestError) and error.method is not None
            if session is None or not (has_lived or is_answer):  # it is that of a start, or of `on_event`
                raise
            what = "could not be followed or ended" if is_answer else "is not wholly recorded"
            logger.warning("session ID %d %s: %s", number, what, error)
        finally:
            if session is not None:
                session.finish(lost)


@asynccontextmanager
async def open_tools(
    client: Client,
    settings: ToolSettings | None = None,
    *,
    on_event: EventSink | None = None,
    recordings: Path | None = None,
    **options: Unpack[StartKeywords],
) -> AsyncIterator[Tools]:
    """Give an agent its tools for the length of a block; leaving it ends all that they have started.

    Each `AgentEvent` is passed to `on_event` as it happens, which must not wait; its errors end the tools. `recordings`
    is a directory on this machine in which each session is recorded as `session-N.cast`; a recording that cannot be
    written on ends alone, and a line of the log says so. Other keywords are those of `Client.start`, for every command:
    `cwd`, `env`, `env_remove`, `size` and so on. A `sandbox` that lets the command's directory be written lets that of
    the tools, whichever one a call names.
    """
    for name in ("tty", "record", "stdin", "stdout", "stderr", "grace", "timeout", "id", "key", "text"):
        if name in options:
            raise TypeError(f"open_tools() takes no {name}: it belongs to one command")
    folder = None if recordings is None else os.fspath(recordings)
    settled = confined(options, client.info.cwd, folder)
    bounds = settings or ToolSettings()
    async with open_helpers() as tree:
        with closing(Book(bounds.max_sessions, bounds.remembered_ends)) as book:
            yield Tools(client, bounds, on_event or _nothing, settled, tree, book, folder)


def _nothing(event: AgentEvent) -> None:
    """Take an event that nobody wants."""
