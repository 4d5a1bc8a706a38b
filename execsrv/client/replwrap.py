"""Shells and interpreters, one command after the other: what `pexpect.replwrap` has, over a client.

async with replwrap.bash(client) as shell:
    print(await shell.run_command("ls -l"))
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from execsrv.client.bash_words import MAX_LINE_BYTES, quoted
from execsrv.client.client import Client
from execsrv.client.inside import mirror_of
from execsrv.client.text import TextMode, as_bytes
from execsrv.errors import InvalidParamsError

if TYPE_CHECKING:
    from execsrv.client.process import Process

PROMPT = "[EXECSRV_PROMPT>"
CONTINUATION_PROMPT = "[EXECSRV_PROMPT+"

_LINE_END = re.compile(r"\r\n|\r|\n")  # for `str.splitlines` a form feed is one too

_INTERRUPTS = 10
"""Interrupts that are tried before an interpreter is given up."""

_INTERRUPT_SECONDS = 1.0
"""Time that an interpreter has to come back to its prompt after an interrupt."""

_SETTLE_SECONDS = 0.5
"""Time without a prompt after which an interpreter that was interrupted has shown all that it had to show."""

_PLAIN = {"TERM": "dumb", "PYTHON_BASIC_REPL": "1", "PAGER": "cat", "NO_COLOR": "1"}
"""Variables that keep interpreters from drawing."""


def _lines(command: str, mode: TextMode) -> list[str]:
    """Return the lines in which a command is typed."""
    return _LINE_END.split(command)


def _lines_for_bash(command: str, mode: TextMode) -> list[str]:
    """Return the lines in which a command is typed to a bash: the words of an `eval`, where one is too long."""
    lines = _lines(command, mode)
    encoded = [bytes(as_bytes(line, mode, "command") or b"") for line in lines]
    if max(map(len, encoded)) <= MAX_LINE_BYTES:
        return lines
    return ("eval " + quoted(b"\n".join(encoded))).split("\n")


class REPLWrapper:
    """An interpreter that waits at its prompt. The process must be started for text, and show nothing of what is typed.

    Made by `wrap`, `bash` and `python`. `process` is there for all else.
    """

    def __init__(
        self,
        process: Process,
        prompt: str,
        continuation_prompt: str | None,
        lines_of: Callable[[str, TextMode], list[str]] = _lines,
    ) -> None:
        self.process = process
        self.prompt = prompt
        self.continuation_prompt = continuation_prompt
        self._lines_of = lines_of
        self._owed = 0  # prompts for lines of a command that was given up
        self._is_open = False  # its last line waits for more

    def __repr__(self) -> str:
        return f"<REPLWrapper {self.prompt!r} {self.process!r}>"

    async def run_command(self, command: str, timeout: float | None = -1) -> str:  # noqa: ASYNC109  # pexpect's word
        """Give it a command of one or more lines, and return what it printed.

        Raises `ValueError` for a command that is not complete, which is then interrupted; `TIMEOUT` when a line takes
        longer than `timeout` seconds (30), None for no bound; and `EOF` when it ends. After a timeout or a cancel it is
        still busy with the command: the next one waits for the end of that, as long, and what it prints is let go.
        `interrupt` ends it before.
        """
        if not isinstance(command, str):
            raise TypeError(f"command must be a string, got {type(command).__name__}")
        if not command:
            raise ValueError("command must not be empty")
        lines = self._lines_of(command, mirror_of(self.process).text or TextMode())
        await trio.lowlevel.checkpoint_if_cancelled()  # from here on a cancel leaves it busy
        await self._come_to_prompt(timeout)
        printed: list[str] = []
        for line in lines:
            self._owed += 1
            await self.process.sendline(line)
            await self.wait_prompt(timeout)
            printed.append(self.process.before)
        if self._is_open:
            await self._interrupt()
            raise ValueError(f"command is not complete: {command!r}")
        return "".join(printed).replace("\r\n", "\n")

    async def interrupt(self, timeout: float | None = -1) -> None:  # noqa: ASYNC109  # pexpect's word
        """Interrupt the command that was given up, and wait for the prompt. One that has ended by now is left alone.

        Raises `TIMEOUT` without a prompt after `timeout` seconds (30), None for no bound; and `EOF` when it ends.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._pass_prompts()
        if self._owed:
            await self.process.sendintr()
        await self._come_to_prompt(timeout)

    async def _come_to_prompt(self, timeout: float | None) -> None:  # noqa: ASYNC109
        """Wait until it is done with what it was given, and for a line of a new command."""
        while self._owed:
            await self.wait_prompt(timeout)
        await self._pass_prompts()
        if self._is_open:
            await self._interrupt()

    async def _pass_prompts(self) -> None:
        """Pass over each prompt that is there: an interrupt draws one that answers no line.

        Where it was interrupted, those that are still to come are waited for.
        """
        from pexpect import TIMEOUT  # loaded by the first that expects anything

        while mirror_of(self.process).was_interrupted or self.prompt in self.process.buffer:
            try:
                await self.wait_prompt(_SETTLE_SECONDS)
            except TIMEOUT:
                break
        mirror_of(self.process).was_interrupted = False

    async def _interrupt(self) -> None:
        """Bring an interpreter that waits for the rest of a command back to its prompt.

        An interrupt is lost in some (CPython with readline) when it comes between showing a prompt and waiting for a
        line, so another follows. Where the first was only slow there is a prompt for each, and all are taken.
        """
        from pexpect import TIMEOUT  # loaded by the first that expects anything

        for sent in range(1, _INTERRUPTS + 1):
            await self.process.sendintr()
            try:
                await self.wait_prompt(_INTERRUPT_SECONDS)
                break
            except TIMEOUT:
                if sent == _INTERRUPTS:
                    raise
        while sent > 1:
            try:
                await self.wait_prompt(_INTERRUPT_SECONDS)
            except TIMEOUT:
                break
        mirror_of(self.process).was_interrupted = False

    async def wait_prompt(self, timeout: float | None = -1) -> int:  # noqa: ASYNC109  # pexpect's word
        """Wait for the prompt, and return 0 for that and 1 for the one within a command."""
        prompts = [self.prompt] if self.continuation_prompt is None else [self.prompt, self.continuation_prompt]
        index = await self.process.expect_exact(prompts, timeout)
        self._owed = max(0, self._owed - 1)
        self._is_open = index == 1
        return index


async def wrap(
    process: Process,
    prompt: Any,
    change: str | None = None,
    *,
    new_prompt: str = PROMPT,
    continuation_prompt: str | None = CONTINUATION_PROMPT,
    timeout: float | None = -1,  # noqa: ASYNC109  # pexpect's word
) -> REPLWrapper:
    """Return an interpreter, once it waits at its prompt.

    `prompt` is the one that it has: a string, or a pattern where there is a command to `change` it. That is given
    before anything else; a `{}` in it is the `new_prompt`, and a second one the `continuation_prompt`. Raises `EOF` and
    `TIMEOUT`.
    """
    if mirror_of(process).text is None:
        raise InvalidParamsError("process must be started for text, as with text=True", field="process")
    if change is None:
        if not isinstance(prompt, str):
            raise TypeError("prompt must be a string where nothing changes it")
        wrapper = REPLWrapper(process, prompt, continuation_prompt)
    else:
        await process.expect(prompt, timeout)
        await process.sendline(change.format(new_prompt, continuation_prompt))
        wrapper = REPLWrapper(process, new_prompt, continuation_prompt)
    await wrapper.wait_prompt(timeout)
    return wrapper


@asynccontextmanager
async def bash(client: Client, command: str = "bash", **options: Any) -> AsyncIterator[REPLWrapper]:
    """Run a bash without its start-up files in a block.

    Other keywords are those of `Client.start`. What is no text is replaced by U+FFFD, unless `errors` says otherwise.
    A command with a line of more than 4095 bytes is run whole, by an `eval`: if it is not complete, bash may only
    complain in its output.
    """
    # What is written in between is not shown, so a command that prints its environment prints no prompt.
    first, rest = PROMPT[:5] + r"\[\]", PROMPT[5:]
    prompts = {"PS1": first + rest, "PS2": first + CONTINUATION_PROMPT[5:]}
    argv = [command, "--norc", "--noprofile", "--noediting", "-i"]
    async with _started(client, argv, options, prompts) as process:
        await wrap(process, PROMPT)
        yield REPLWrapper(process, PROMPT, CONTINUATION_PROMPT, _lines_for_bash)


@asynccontextmanager
async def python(client: Client, command: str = "python3", **options: Any) -> AsyncIterator[REPLWrapper]:
    """Run a Python in a block. Keywords are as for `bash`."""
    prompts = f"import sys; sys.ps1 = {PROMPT!r}; sys.ps2 = {CONTINUATION_PROMPT!r}; del sys"
    async with _started(client, [command, "-q", "-i", "-c", prompts], options, {}) as process:
        yield await wrap(process, PROMPT)


@asynccontextmanager
async def _started(
    client: Client, argv: Sequence[str], options: dict[str, Any], env: dict[str, str]
) -> AsyncIterator[Process]:
    """Start an interpreter on a terminal that shows nothing of what is typed."""
    if not isinstance(client, Client):
        raise TypeError(f"client must be a Client, got {type(client).__name__}")
    added = _PLAIN | env | dict(options.pop("env_add", None) or {})
    if options.get("env") is not None:
        options["env"], added = added | dict(options["env"]), {}
    words: dict[str, Any] = {"tty": True, "text": True, "errors": "replace", "modes": {"echo": False, "onlcr": False}}
    words |= options
    async with client.start(argv, **words, env_add=added or None) as process:
        yield process
