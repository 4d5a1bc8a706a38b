"""A runtime of SWE-ReX whose commands run on execsrv. Its calls may come from one event loop after the other.

A session is a bash on a terminal of its own. Its prompt tells which command it follows, and the exit code of that: what
a command that took too long prints at last is not taken for the next one's output.
"""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import os
import posixpath
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from pexpect import TIMEOUT
from swerex import exceptions as errors
from swerex.runtime import abstract as rex
from swerex.utils.log import get_logger

import execsrv
from execsrv.asyncio import Client, Process
from execsrv.client.bash_words import quoted
from execsrv.errors import FileError, NotFoundError, SpawnError, StdinClosedError

_BASH = ["/usr/bin/env", "bash"]
_TEXT: dict[str, Any] = {"text": True, "errors": "backslashreplace"}
_TERMINAL: dict[str, Any] = {"tty": True, "modes": {"echo": False, "onlcr": False}, **_TEXT}

_CONTROLS = re.compile(r"\x1b[@-_][0-?]*[ -/]*[@-~]")
_EXIT_CODE_SECONDS = 1
"""Time that a command has to end once it has printed what was expected of it."""


class _Session:
    """A bash that shows nothing of what is typed. Its commands wait for each other."""

    def __init__(self, process: Process, mark: str) -> None:
        self.process = process
        self._mark = mark
        self._any_prompt = rf"<{mark}:\d+:\d+>"
        self._number = 0
        self._turn = asyncio.Lock()

    async def run(self, action: Any) -> Any:
        async with self._turn:
            if isinstance(action, rex.BashInterruptAction):
                return await self._interrupt(action)
            if action.is_interactive_command or action.is_interactive_quit:
                return await self._type(action)
            return await self.perform(action)

    async def perform(self, action: Any) -> Any:
        self._number += 1
        prompt = rf"<{self._mark}:{self._number}:(\d+)>"
        # The command may have set a prompt. With the `\[\]`, which is not shown, a `set -x` prints none.
        shown = rf'PS1="<{self._mark}\[\]:{self._number}:$?>" PS2= PS0=; unset PROMPT_COMMAND'
        line = f"eval {quoted(action.command.encode())}; {{ {shown}; }} 2>/dev/null"
        expected = await self._ask(line, [*action.expect, prompt], action)
        output, is_over = self._output(), expected == prompt
        if not is_over and action.check != "ignore":
            patterns = self.process.compile_pattern_list([prompt, TIMEOUT])
            if is_over := await self.process.expect_list(patterns, _EXIT_CODE_SECONDS) == 0:
                output += self._output()
        exit_code = int(self.process.match[1]) if is_over and action.check != "ignore" else None
        if action.check == "raise" and exit_code != 0:
            kind = errors.NoExitCodeError if exit_code is None else errors.NonZeroExitCodeError
            raise kind(_failed(action, f"with exit code {exit_code}, and printed {output!r}"))
        return rex.BashObservation(output=output, exit_code=exit_code, expect_string=expected)

    async def _type(self, action: Any) -> Any:
        """Type a line for whichever program reads it. That has no exit code, which SWE-ReX gives as 0."""
        expected = await self._ask(action.command, [*action.expect, self._any_prompt], action)
        output = self._output()
        if action.is_interactive_quit:  # of a program that may have left the terminal showing what is typed
            await self.perform(rex.BashAction(command="stty -echo", timeout=_EXIT_CODE_SECONDS))
        else:
            output = output.lstrip().removeprefix(action.command).strip()
        return rex.BashObservation(output=output, exit_code=0, expect_string=expected)

    async def _interrupt(self, action: Any) -> Any:
        """Type Ctrl-C; what it does not end is suspended and killed, as SWE-ReX does it.

        The key has no effect where the terminal is full of what nobody reads: then the signal is sent. That drops
        nothing of what was typed, and bash goes on with it: so it counts as interrupted once bash has answered.
        """
        patterns, output = [*action.expect, self._any_prompt], ""
        for left in reversed(range(action.n_retry + 1)):
            by_key = left == action.n_retry > 0 and await self._type_interrupt(action.timeout)
            if not by_key:
                # The last one is a signal that bash itself ignores.
                await self.process.send_signal("INT" if left else "TSTP", "foreground")
            try:
                expected = await self._expect(patterns, action, action.timeout)
                output += self._output()
                if not left or (expected == self._any_prompt and not by_key):
                    for command in [":"] if left else [":", "kill -9 %%"]:
                        await self.perform(rex.BashAction(command=command, timeout=action.timeout, check="ignore"))
                        output += self._output()
                return rex.BashObservation(output=output.strip(), exit_code=0, expect_string=expected)
            except errors.CommandTimeoutError:
                pass
        raise TIMEOUT("cannot interrupt the session: its command ignores Ctrl-C, and is not suspended")

    async def _type_interrupt(self, seconds: float) -> bool:
        """Type Ctrl-C. Return False where the terminal had no room for it in that time."""
        try:
            async with asyncio.timeout(seconds):
                await self.process.sendintr()
        except TimeoutError:
            return False
        return True

    async def _ask(self, line: str, patterns: list[str], action: Any) -> str:
        """Type a line, and return the pattern that matched. Raises as `_expect` does, also for want of room."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(action.timeout):
                await self.process.sendline(line)
        except StdinClosedError as error:
            raise errors.SessionNotInitializedError("the bash of the session has ended") from error
        except TimeoutError as error:
            raise _timed_out(action) from error
        left = None if action.timeout is None else max(0, begun + action.timeout - time.monotonic())
        return await self._expect(patterns, action, left)

    async def _expect(self, patterns: list[str], action: Any, seconds: float | None) -> str:
        """Return the pattern that matched. Raises `CommandTimeoutError`, and `pexpect.EOF` where bash has ended."""
        try:
            return patterns[await self.process.expect(patterns, seconds)]
        except TIMEOUT as error:
            raise _timed_out(action) from error

    def _output(self) -> str:
        """Return what was printed in front of the match, behind the prompts of commands before."""
        return _CONTROLS.sub("", re.split(self._any_prompt, self.process.before)[-1]).replace("\r\n", "\n")


class ExecsrvRuntime(rex.AbstractRuntime):
    """Runs on a client of `execsrv.asyncio`, which is closed by whoever has opened it."""

    def __init__(self, client: Client, *, logger: logging.Logger | None = None) -> None:
        self.logger = logger or get_logger("rex-runtime")
        self._client = client
        self._sessions: dict[str, _Session] = {}
        self._starting: set[str] = set()
        """Names of sessions whose bash is not there yet."""

    async def is_alive(self, *, timeout: float | None = None) -> rex.IsAliveResponse:  # noqa: ASYNC109
        try:
            async with asyncio.timeout(timeout):
                await self._client.processes()
            return rex.IsAliveResponse(is_alive=True)
        except Exception as error:  # whatever it is
            return rex.IsAliveResponse(is_alive=False, message=str(error) or f"no answer within {timeout} s")

    async def create_session(self, request: Any) -> Any:
        if request.session in self._sessions or request.session in self._starting:
            raise errors.SessionExistsError(f"session {request.session!r} already exists")
        mark = secrets.token_hex(8)
        prompts = {"PS1": f"<{mark}:0:0>", "PS2": "", "PS0": ""}
        self._starting.add(request.session)
        try:
            process = await self._client.start([*_BASH, "--noediting", "-i"], env_add=prompts, **_TERMINAL)
        finally:
            self._starting.remove(request.session)
        session = self._sessions[request.session] = _Session(process, mark)
        try:
            setup = "".join(f"source {path}; " for path in request.startup_source) + "HISTFILE=; export -n PS1 PS2 PS0"
            started = await session.perform(rex.BashAction(command=setup, timeout=request.startup_timeout))
            return rex.CreateBashSessionResponse(output=started.output)
        except BaseException:
            del self._sessions[request.session]
            await process.close()
            raise

    async def run_in_session(self, action: Any) -> Any:
        session = self._session(action.session)
        if isinstance(action, rex.BashAction) and not (action.is_interactive_command or action.is_interactive_quit):
            checked = await self._client.run([*_BASH, "-n"], input=f"{action.command}\n", **_TEXT)
            if checked.exit_code != 0:
                said = {"bash_stdout": checked.stdout, "bash_stderr": checked.stderr}
                raise errors.BashIncorrectSyntaxError(_failed(action, f"to parse: {checked.stderr}"), extra_info=said)
        return await session.run(action)

    async def close_session(self, request: Any) -> Any:
        await self._session(request.session).process.close()
        self._sessions.pop(request.session, None)
        return rex.CloseBashSessionResponse()

    async def execute(self, command: rex.Command) -> rex.CommandResponse:
        argv = [command.command] if isinstance(command.command, str) else command.command
        with _their_errors():
            result = await self._client.run(
                ["/bin/sh", "-c", *argv] if command.shell else argv,
                env=command.env,
                cwd=self._path(command.cwd or ""),
                timeout=command.timeout,
                stderr=subprocess.STDOUT if command.merge_output_streams else subprocess.PIPE,
            )
        exit_code = result.exit_code if result.signal is None else 128 - result.exit_code  # as `subprocess` has it
        stdout, stderr = (bytes(data).decode(errors="backslashreplace") for data in (result.stdout, result.stderr))
        if command.check and exit_code != 0:
            printed = f"{stdout!r}, on stderr {stderr!r}"
            raise errors.NonZeroExitCodeError(_failed(command, f"with exit code {exit_code}, and printed {printed}"))
        return rex.CommandResponse(stdout=stdout, stderr=stderr, exit_code=exit_code)

    async def read_file(self, request: rex.ReadFileRequest) -> rex.ReadFileResponse:
        with _their_errors():
            data = await self._client.files.read(self._path(request.path))
        text = io.TextIOWrapper(io.BytesIO(data), request.encoding or "utf-8", request.errors)
        return rex.ReadFileResponse(content=text.read())

    async def write_file(self, request: rex.WriteFileRequest) -> rex.WriteFileResponse:
        path = self._path(request.path)
        with _their_errors():
            await self._client.files.make(posixpath.dirname(path))
            await self._client.files.write(path, request.content, atomic=False)
        return rex.WriteFileResponse()

    async def upload(self, request: rex.UploadRequest) -> rex.UploadResponse:
        source, target = request.source_path, self._path(request.target_path)
        if os.path.isfile(source) and (await self._client.run(["test", "-d", target])).exit_code == 0:  # noqa: ASYNC240
            target = posixpath.join(target, posixpath.basename(source))
        with _their_errors():
            await self._client.files.make(posixpath.dirname(target))
            await self._client.files.put(source, target)
        return rex.UploadResponse()

    async def close(self) -> rex.CloseResponse:
        while self._sessions:
            await self._sessions.popitem()[1].process.close()
        return rex.CloseResponse()

    def _session(self, name: str) -> _Session:
        if name not in self._sessions:
            raise errors.SessionDoesNotExistError(f"session {name!r} does not exist")
        return self._sessions[name]

    def _path(self, name: str) -> str:
        """Return the absolute path of what counts from the server's directory."""
        return posixpath.join(unquote(urlsplit(self._client.info.cwd or "file:///").path), name)


def _timed_out(action: Any) -> errors.CommandTimeoutError:
    what = getattr(action, "command", "an interrupt")
    return errors.CommandTimeoutError(f"timeout after {action.timeout} seconds of {what!r}")


def _failed(action: Any, how: str) -> str:
    return f"{action.error_msg}: " * bool(action.error_msg) + f"command {action.command!r} failed {how}"


@contextmanager
def _their_errors() -> Iterator[None]:
    """Raise what the server's system refuses as `open` and `subprocess` do here, and timeouts as SWE-ReX does."""
    try:
        yield
    except execsrv.CommandTimeoutError as error:
        raise errors.CommandTimeoutError(str(error)) from error
    except (FileError, SpawnError) as error:
        if number := error.errno or (errno.ENOENT if isinstance(error, NotFoundError) else 0):
            raise OSError(number, str(error)) from error
        raise
