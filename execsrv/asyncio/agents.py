# Written by tests/facades.py from execsrv.agents: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client under asyncio. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from execsrv._portal.awaiting import Held, Opening
from execsrv.agents.answers import Answer, Picture, Piece, Sessions
from execsrv.agents.functions import call as trio_call
from execsrv.agents.session import EventSink
from execsrv.agents.settings import ToolSettings
from execsrv.agents.tools import KILL_GRACE_SECONDS
from execsrv.agents.tools import Tools as TrioTools
from execsrv.agents.tools import open_tools as trio_open_tools
from execsrv.client.keywords import StartKeywords
from execsrv.client.parameters import Path

if TYPE_CHECKING:
    from execsrv.asyncio.client import Client


class Tools(Held, of=TrioTools):
    """The tools of one agent. Made by `open_tools`."""

    @property
    def settings(self) -> ToolSettings:
        """Bounds of these tools."""
        return self._get("settings")

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
        timeout: float | None = None,
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
        return await self._take(
            "exec_command",
            cmd,
            cwd=cwd,
            env=env,
            tty=tty,
            shell=shell,
            login=login,
            yield_time_ms=yield_time_ms,
            max_output_tokens=max_output_tokens,
            max_output_bytes=max_output_bytes,
            timeout=timeout,
        )

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
        r"""Write to a session's terminal, and return what came until it ended or the window was over.

        Without `chars` it only looks. The window ends sooner when the text `until` is in the new output, and when the
        session waits for input. Where there is no terminal, Ctrl-C and Ctrl-\ are their signals, and everything else
        raises `StdinClosedError`.

        Cancelling loses nothing that is printed: the session goes on, and the next answer has it. Raises
        `UnknownSessionError`, `ProcessEndedError` for input that comes too late, `WaitTimeoutError` for a part of it
        that was not typed, as the command does not read, and `ConnectionLostError`.
        """
        return await self._take(
            "write_stdin",
            session_id,
            chars,
            until=until,
            yield_time_ms=yield_time_ms,
            max_output_tokens=max_output_tokens,
            max_output_bytes=max_output_bytes,
        )

    def list_sessions(self) -> Sessions:
        """Return the sessions that are known, oldest first."""
        return self._plain("list_sessions")

    async def kill_session(self, session_id: int, *, grace: float = KILL_GRACE_SECONDS) -> Answer:
        """End everything of a session, by force after `grace` seconds, and return its last output and its end.

        Cancelling loses nothing: the next answer has the output. Raises `UnknownSessionError` and
        `ConnectionLostError`.
        """
        return await self._take("kill_session", session_id, grace=grace)

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
        return self._plain(
            "read_output", session_id, offset, max_output_tokens=max_output_tokens, max_output_bytes=max_output_bytes
        )

    async def read_screen(self, session_id: int) -> Picture:
        """Return what a person would see on a session's terminal. Needs `execsrv[screen]`.

        Raises `UnknownSessionError`, and `ProcessEndedError` when it has ended and its screen with it.
        """
        return await self._wait("read_screen", session_id)

    def recording_of(self, session_id: int) -> str | None:
        """Return the file that a session is recorded in, None where it is not. Raises `UnknownSessionError`."""
        return self._plain("recording_of", session_id)


def open_tools(
    client: Client,
    settings: ToolSettings | None = None,
    *,
    on_event: EventSink | None = None,
    recordings: Path | None = None,
    **options: Unpack[StartKeywords],
) -> Opening[Tools]:
    """Give an agent its tools for the length of a block; leaving it ends all that they have started.

    Each `AgentEvent` is passed to `on_event` as it happens, which must not wait; its errors end the tools. `recordings`
    is a directory on this machine in which each session is recorded as `session-N.cast`; a recording that cannot be
    written on ends alone, and a line of the log says so. Other keywords are those of `Client.start`, for every command:
    `cwd`, `env`, `env_remove`, `size` and so on. A `sandbox` that lets the command's directory be written lets that of
    the tools, whichever one a call names.
    """
    return client._enter(trio_open_tools, client, settings, on_event=on_event, recordings=recordings, **options)


async def call(tools: Tools, name: str, arguments: Any) -> Answer | Piece | Picture | Sessions:
    """Do what a model asks for: `arguments` are an object, or JSON of one. `str` of the result is text for the model.

    Raises `InvalidParamsError` for a function or arguments that there are not, and as the function does: the text of
    every `ExecsrvError` may be given to the model. Cancelling is that of the function.
    """
    return await tools._take(trio_call, tools, name, arguments)
