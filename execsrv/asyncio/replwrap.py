# Written by tests/facades.py from execsrv.client.replwrap: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client under asyncio. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from execsrv._portal.awaiting import Held, Opening
from execsrv.client.replwrap import CONTINUATION_PROMPT, PROMPT
from execsrv.client.replwrap import REPLWrapper as TrioREPLWrapper
from execsrv.client.replwrap import bash as trio_bash
from execsrv.client.replwrap import python as trio_python
from execsrv.client.replwrap import wrap as trio_wrap

if TYPE_CHECKING:
    from execsrv.asyncio.client import Client
    from execsrv.asyncio.process import Process


class REPLWrapper(Held, of=TrioREPLWrapper):
    """An interpreter that waits at its prompt. The process must be started for text, and show nothing of what is typed.

    Made by `wrap`, `bash` and `python`. `process` is there for all else.
    """

    async def run_command(self, command: str, timeout: float | None = -1) -> str:
        """Give it a command of one or more lines, and return what it printed.

        Raises `ValueError` for a command that is not complete, which is then interrupted; `TIMEOUT` when a line takes
        longer than `timeout` seconds (30), None for no bound; and `EOF` when it ends. After a timeout or a cancel it is
        still busy with the command: the next one waits for the end of that, as long, and what it prints is let go.
        `interrupt` ends it before.
        """
        return await self._wait("run_command", command, timeout)

    async def interrupt(self, timeout: float | None = -1) -> None:
        """Interrupt the command that was given up, and wait for the prompt. One that has ended by now is left alone.

        Raises `TIMEOUT` without a prompt after `timeout` seconds (30), None for no bound; and `EOF` when it ends.
        """
        return await self._wait("interrupt", timeout)

    async def wait_prompt(self, timeout: float | None = -1) -> int:
        """Wait for the prompt, and return 0 for that and 1 for the one within a command."""
        return await self._wait("wait_prompt", timeout)

    @property
    def process(self) -> Process:
        return self._get("process")

    @property
    def prompt(self) -> str:
        return self._get("prompt")

    @property
    def continuation_prompt(self) -> str | None:
        return self._get("continuation_prompt")


def bash(client: Client, command: str = "bash", **options: Any) -> Opening[REPLWrapper]:
    """Run a bash without its start-up files in a block.

    Other keywords are those of `Client.start`. What is no text is replaced by U+FFFD, unless `errors` says otherwise.
    A command with a line of more than 4095 bytes is run whole, by an `eval`: if it is not complete, bash may only
    complain in its output.
    """
    return client._enter(trio_bash, client, command, **options)


def python(client: Client, command: str = "python3", **options: Any) -> Opening[REPLWrapper]:
    """Run a Python in a block. Keywords are as for `bash`."""
    return client._enter(trio_python, client, command, **options)


async def wrap(
    process: Process,
    prompt: Any,
    change: str | None = None,
    *,
    new_prompt: str = PROMPT,
    continuation_prompt: str | None = CONTINUATION_PROMPT,
    timeout: float | None = -1,
) -> REPLWrapper:
    """Return an interpreter, once it waits at its prompt.

    `prompt` is the one that it has: a string, or a pattern where there is a command to `change` it. That is given
    before anything else; a `{}` in it is the `new_prompt`, and a second one the `continuation_prompt`. Raises `EOF` and
    `TIMEOUT`.
    """
    return await process._wait(
        trio_wrap,
        process,
        prompt,
        change,
        new_prompt=new_prompt,
        continuation_prompt=continuation_prompt,
        timeout=timeout,
    )
