"""Talking with a process as pexpect does, waiting for what happens to it, and looking at its screen.

The words of a `Process` for it. Each loads what it needs when it is first used.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, cast

from execsrv.client.parameters import Data, flag, seconds
from execsrv.client.process_facts import Facts
from execsrv.client.text import TextMode, as_bytes
from execsrv.client.wait_for import wait_for
from execsrv.client.waiting import Happened, Pattern
from execsrv.errors import InvalidParamsError, WaitTimeoutError

if TYPE_CHECKING:
    from execsrv.client.process import Process
    from execsrv.client.screen import Drawing, Screen, WatchedScreen

DIALOGUE_TIMEOUT_SECONDS = 30.0
"""Time that `expect` waits, unless its user says otherwise: as long as pexpect does."""

_CONTROLS = {chr(ord("@") + code): bytes([code]) for code in range(32)} | {"?": b"\x7f"}


class Dialogue(Facts):
    """A process that is talked with. Where it was started for text, that is in strings; otherwise it is in bytes."""

    before: Any = None
    """Output in front of the last match of `expect`, or all of it without a match."""
    after: Any = None
    """Output that matched, or `EOF` or `TIMEOUT`."""
    match: Any = None
    """Match of the regular expression, or the string, or `EOF` or `TIMEOUT`."""
    match_index: int | None = None
    """Number of the pattern that matched."""
    _drawing: Drawing | None = None
    searchwindowsize: int | None = None
    """Distance before the newest output in which a match is looked for where `expect` names none. None: everywhere."""

    @property
    def _own(self) -> Process:
        return cast("Process", self)

    @property
    def buffer(self) -> Any:
        """Output that has arrived and that nobody has read yet, up to where some is missing. It stays there.

        Text ends before a character that is not whole. Raises `UnicodeDecodeError`.
        """
        from execsrv.client.expect import unread

        return unread(self._own)

    async def expect(
        self,
        patterns: Any,
        timeout: float | None = -1,  # noqa: ASYNC109  # the word of pexpect
        searchwindowsize: int | None = -1,
    ) -> int:
        """Read until one of the patterns matches, and return its number. Cancelling loses nothing.

        Patterns are regular expressions, in which a dot is any character, compiled or not, and `EOF` and `TIMEOUT`. Of
        several that match, the one that begins first counts, and then the first named. `timeout` is in seconds, 30 by
        default and None for no bound. `before`, `after` and `match` have the details; what comes after the match is for
        the next reader.

        Raises `EOF` at the end of the output and `TIMEOUT`, unless they are among the patterns; `InvalidParamsError`
        and `TypeError` for something that is not a pattern; and otherwise as `lines` does.
        """
        from execsrv.client.patterns import expressions

        return await self._expect(expressions(self._own, patterns), timeout, searchwindowsize)

    async def expect_exact(
        self,
        patterns: Any,
        timeout: float | None = -1,  # noqa: ASYNC109  # the word of pexpect
        searchwindowsize: int | None = -1,
    ) -> int:
        """Do what `expect` does, for literal strings instead of patterns. Cancelling loses nothing."""
        from execsrv.client.patterns import literals

        return await self._expect(literals(self._own, patterns), timeout, searchwindowsize)

    async def expect_list(
        self,
        pattern_list: list[Any],
        timeout: float | None = -1,  # noqa: ASYNC109  # the word of pexpect
        searchwindowsize: int | None = -1,
    ) -> int:
        """Do what `expect` does, for a list that `compile_pattern_list` has returned. Cancelling loses nothing."""
        return await self.expect(pattern_list, timeout, searchwindowsize)

    def compile_pattern_list(self, patterns: Any) -> list[Any]:
        """Return patterns compiled, for many calls of `expect_list`. Raises `InvalidParamsError` and `TypeError`."""
        from execsrv.client.patterns import compiled

        return compiled(self._own, patterns)

    async def _expect(self, searcher: Any, timeout: float | None, window: int | None) -> int:  # noqa: ASYNC109
        from execsrv.client.expect import Expecting

        patience = _patience(timeout)
        window = self.searchwindowsize if window == -1 else window
        if window is not None and (not isinstance(window, int) or window < 1):
            raise InvalidParamsError(
                f"searchwindowsize must be a number above 0, got {window!r}", field="searchwindowsize"
            )
        return await Expecting(self._own, searcher, window).run(patience)

    async def send(self, text: Data | str) -> int:
        """Write to its stdin, text in its encoding, and return how many bytes that were. Raises as `write` does."""
        data = self._encoded(text)
        await self._own.write(data)
        return len(data)

    async def sendline(self, text: Data | str = "") -> int:
        """Write a line to its stdin, with its end, and return how many bytes that were."""
        # In one piece, so that neither a cancel nor another writer comes in between.
        return await self.send(bytes(self._encoded(text)) + bytes(self._encoded(os.linesep)))

    def _encoded(self, text: Data | str) -> Data:
        if (data := as_bytes(text, self._mirror.text or TextMode(), "text")) is None:
            raise TypeError("text must be bytes or a string, got None")
        return data

    async def sendcontrol(self, key: str) -> int:
        """Type a key together with Ctrl: a letter, or one of `@[\\]^_?`."""
        control = _CONTROLS.get(key.upper()) if isinstance(key, str) else None
        if control is None:
            raise InvalidParamsError(f"key must be a letter or one of @[\\]^_?, got {key!r}", field="key")
        return await self.send(control)

    async def sendeof(self) -> None:
        """End its input. A terminal gets its end-of-file character."""
        await self._own.close_stdin()

    async def sendintr(self) -> None:
        """Interrupt it: by Ctrl-C on a terminal, by SIGINT to its process group without one."""
        self._mirror.was_interrupted = True
        if (await self._own.snapshot()).terminal is None:
            await self._own.interrupt()
        else:
            await self.sendcontrol("c")

    async def waitnoecho(self, timeout: float | None = -1) -> bool:  # noqa: ASYNC109  # the word of pexpect
        """Wait until its terminal does not show what is typed, and return False when `timeout` is over first."""
        patience = _patience(timeout)
        try:
            await wait_for(self._own, no_echo=True, timeout=patience)
        except WaitTimeoutError:
            return False
        return True

    async def wait_for(
        self,
        *,
        output: Pattern | list[Pattern] | None = None,
        port: int | None = None,
        host: str | None = None,
        idle: float | None = None,
        exit: bool = False,
        tree_empty: bool = False,
        no_echo: bool = False,
        input: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109  # it raises an error that tells more
        after: Happened | None = None,
    ) -> Happened:
        """Wait for the first of these, beside all readers, and return which it was. Cancelling loses nothing.

        `output` is a regular expression, or several, for bytes or text. What the server retains counts too, or with an
        `after` that was returned before, what lies after that. `port` accepts connections on the server's machine, on
        its loopback or on the address `host`. `idle` is a silence of that many seconds from now on. `exit` is the end
        of the leader, `tree_empty` the end of everything, `no_echo` a terminal that does not show what is typed.
        `input` is a process of it that waits for input, and for nothing else: `Happened.input` says which process, and
        in which system call.

        A command whose output nobody reads goes on meanwhile, as with `wait`.

        Raises `WaitTimeoutError` after `timeout` seconds, `ProcessEndedError` when it ended before, both with its last
        output; `InvalidParamsError`, `ConnectionLostError`.
        """
        return await wait_for(
            self._own,
            output=output,
            port=port,
            host=host,
            idle=idle,
            exit=exit,
            tree_empty=tree_empty,
            no_echo=no_echo,
            input=input,
            timeout=timeout,
            after=after,
        )

    async def screen(self) -> Screen:
        """Return what a person would see on its terminal now, beside all readers. Needs `execsrv[screen]`.

        It is drawn from what the server retains, and goes on at the next call. Cancelling loses nothing. Raises
        `InvalidParamsError` for a process without a terminal.
        """
        drawing = self._drawn()
        await drawing.update()
        return drawing.screen()

    def watch_screen(self, *, answers: bool = False) -> AbstractAsyncContextManager[WatchedScreen]:
        """Keep its screen up to date for as long as a block lasts, in which it can be looked at without asking the
        server.

        With `answers`, the program also gets what it asks its terminal for, such as the place of the cursor.
        """
        from execsrv.client.screen import watch

        return watch(self._own, self._drawn(), flag("answers", answers))

    def _drawn(self) -> Drawing:
        from execsrv.client.screen import Drawing

        if self._drawing is None:
            self._drawing = Drawing(self._own)
        return self._drawing

    async def interact(
        self,
        escape_character: str | None = "\x1d",
        *,
        input_filter: Callable[[bytes], bytes] | None = None,
        output_filter: Callable[[bytes], bytes] | None = None,
        stdin: int = 0,
        stdout: int = 1,
    ) -> None:
        """Connect this program's terminal with it, until its end or the escape character, Ctrl-] by default.

        Keys go to it as they are typed, and the size of this terminal is passed on. The filters may change what passes.
        What comes after the escape is for the next reader.
        """
        from execsrv.client.interact import interact

        if not isinstance(escape_character, str | None):
            raise TypeError(f"escape_character must be a string or None, got {type(escape_character).__name__}")
        escape = (escape_character or "").encode(errors="surrogateescape")
        await interact(self._own, escape, input_filter, output_filter, stdin, stdout)


def _patience(timeout: float | None) -> float:
    """Return how long to wait, as pexpect has it: -1 is the default."""
    return DIALOGUE_TIMEOUT_SECONDS if timeout == -1 else seconds("timeout", timeout, zero=True)
