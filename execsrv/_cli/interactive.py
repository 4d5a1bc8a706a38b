"""A process at the user's own terminal: its keys, its size and its signals pass on, and what is printed appears.

`shell` and `attach` are this. It owns the modes of our terminal, and restores them however it ends. Nothing that the
server or the program does keeps a user from the escape keys.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Literal, NamedTuple, Protocol

import trio

from execsrv._cli import terminal
from execsrv._cli.escape_keys import EscapeKeys, shown_key
from execsrv._cli.job import pass_on
from execsrv._cli.remote_stdin import read_stdin
from execsrv._cli.repainting import Modes
from execsrv._cli.replaying import Replay
from execsrv._cli.signals import ENDING, received
from execsrv._cli.streams import say
from execsrv._cli.typed_ahead import LAST_KEYS_SECONDS, typed_here
from execsrv._log.entries import Closed, Entry, Exited, Gap
from execsrv._nursery import open_helpers
from execsrv.errors import ConnectionLostError, RequestError, StdinClosedError
from execsrv.protocol import Chunk

HELP = {
    "leave": "end it",
    "detach": "detach: it goes on",
    "suspend": "suspend execsrv",
    "repaint": "have the screen painted anew",
    "help": "this list",
}
"""The actions of escape keys, for people."""

_REST_SECONDS = 0.5
"""Time that the terminal may be silent, and not at its end, after the end of the process."""

_NUDGE_SECONDS = 0.1
"""Time for a program to notice that its terminal has another size."""


class Joinable(Protocol):
    """A process as it is needed here: started by us, or by somebody else and joined."""

    async def next_event(self) -> Entry | None: ...
    async def write(self, data: bytes, /) -> None: ...
    async def close_stdin(self) -> None: ...
    async def resize(self, rows: int, cols: int, xpixel: int = 0, ypixel: int = 0) -> None: ...


class Link(Protocol):
    """The connection that it is reached by."""

    @property
    def is_interrupted(self) -> bool: ...
    async def wait_interrupted(self, wanted: bool) -> None: ...


class Outcome(NamedTuple):
    """The end of being at a process: of itself (`exited`), or of us. `signal` is what ended us."""

    how: Literal["exited", "leave", "detach", "signal", "hung up"]
    exited: Exited | None = None
    signal: int = 0


class Interaction:
    """One process at our terminal, or at our streams where stdin is none."""

    def __init__(
        self,
        process: Joinable,
        link: Link,
        keys: EscapeKeys,
        *,
        escape: int | None,
        actions: dict[int, str],
        is_terminal: bool = True,
        types: bool = True,
        ends_input: bool = True,
        past: int = 0,
        patience: float = 0,
        quiet: bool = False,
    ) -> None:
        """`is_terminal` is False for a process without one: then ours edits and echoes what is typed, line by line.

        `types` is False for who only watches. With `ends_input` the end of a stdin that is no terminal ends its own.

        Output up to entry `past` was printed before. For `patience` seconds a lost connection is taken up again;
        nothing is said of that to who is `quiet`.
        """
        self._process, self._link, self._keys = process, link, keys
        self._escape, self._actions = escape, actions
        self._types, self._ends_input, self._patience = types, ends_input, patience
        self._past, self._replay = past, Replay()
        self._is_quiet = quiet
        self._modes = Modes()
        self._raw = ExitStack()
        self._raw_again: Callable[[], None] = lambda: None
        self._is_terminal = terminal.modes() is not None
        self._is_raw = self._is_terminal and is_terminal
        self._typed = typed_here()
        self._size_is_news, self._is_unpainted = trio.Event(), False
        self._outcome: Outcome | None = None
        self._scope = trio.CancelScope()

    async def run(self, *, fresh: bool = True) -> Outcome:
        """Be at it until one of both ends. One that was not started now is not `fresh`, and is painted anew.

        Raises `ConnectionLostError`, and `OSError` where our stdin cannot be read.
        """
        try:
            with self._scope, received(signal.SIGWINCH, signal.SIGCONT) as signals:
                self._enter()
                async with open_helpers() as helpers:
                    helpers.start_soon(self._hear, signals)
                    helpers.start_soon(self._read_keys)
                    helpers.start_soon(self._write_keys)
                    if self._is_terminal:
                        helpers.start_soon(self._watch_link)
                        helpers.start_soon(self._pass_sizes)
                        self._tell_size(repaint=not fresh)
                    return Outcome("exited", await self._show())
        except BrokenPipeError:  # nobody reads our output
            return Outcome("hung up")
        finally:
            self._restore()
        assert self._outcome is not None
        return self._outcome

    # -- our terminal --

    def _enter(self) -> None:
        self._raw_again = self._raw.enter_context(terminal.raw_terminal(self._is_raw))

    def _restore(self) -> None:
        """Give the terminal back as it was, whatever a program that still runs has made of it."""
        if self._is_terminal:
            was_left = self._outcome is not None and self._outcome.how in ("leave", "detach")
            terminal.write_now(self._modes.undo() + (b"\r\n" if was_left else b""))
        self._raw.close()

    def _leave(self, outcome: Outcome) -> None:
        if self._outcome is None:
            self._outcome = outcome
        self._scope.cancel()

    def _tell(self, text: str) -> None:
        """Say something on a line of its own, in the midst of what the program shows."""
        if not self._is_quiet:
            say(f"\r\n[execsrv: {text}]\r" if self._is_terminal else f"execsrv: {text}")

    # -- output --

    async def _show(self) -> Exited | None:
        exited: Exited | None = None
        while True:
            with trio.move_on_after(_REST_SECONDS if exited is not None else float("inf")) as patience:
                event = await self._process.next_event()
            if patience.cancelled_caught or event is None or isinstance(event, Closed):
                return exited
            if isinstance(event, Exited):
                exited = event
            elif isinstance(event, Chunk):
                await pass_on(2 if event.stream == "stderr" else 1, self._shown(event))
            elif isinstance(event, Gap):
                self._tell_size(repaint=True)

    def _shown(self, chunk: Chunk) -> bytes:
        """Return output as it is shown: that of the past without what it asks of a terminal."""
        if not self._is_terminal:
            return chunk.chunk
        output = self._replay.take(chunk.chunk) if chunk.seq <= self._past else self._replay.rest() + chunk.chunk
        self._modes.note(output)
        return output

    # -- keys --

    async def _read_keys(self) -> None:
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)  # then reading in the background fails instead
        while data := await read_stdin():
            for taken in self._keys.take(data) if self._is_terminal else [data]:
                if isinstance(taken, str):
                    await self._act(taken)
                elif self._types:
                    self._typed.type(taken)
            if not self._is_terminal:
                await self._typed.all_written()
        self._typed.end()
        if self._is_terminal:
            self._leave(Outcome("hung up" if self._is_raw else "detach"))

    async def _write_keys(self) -> None:
        try:
            while keys := await self._typed.next():
                await self._process.write(keys)
            if self._types and self._ends_input and not self._is_terminal:
                await self._process.close_stdin()
        except (StdinClosedError, ConnectionLostError, RequestError):
            while await self._typed.next():
                pass  # it reads no more; its output tells the rest, and the escape is still heard

    async def _act(self, action: str) -> None:
        match action:
            case "leave":
                self._leave(Outcome("leave"))
            case "detach":
                with trio.move_on_after(LAST_KEYS_SECONDS):  # for what was typed before goes on too
                    await self._typed.all_written()
                self._leave(Outcome("detach"))
            case "suspend":
                self._suspend()
                self._tell_size(repaint=True)
            case "repaint":
                self._tell_size(repaint=True)
            case "help":
                self._help()

    def _help(self) -> None:
        assert self._escape is not None
        escape = shown_key(self._escape)
        lines = [f" {escape}{shown_key(key):3} {HELP[action]}" for key, action in self._actions.items()]
        lines.append(f" {escape}{escape:3} the key itself")
        say("\r\n" + "\r\n".join([f"keys of execsrv, where {escape} is the first of a line:", *lines]) + "\r")

    def _suspend(self) -> None:
        self._restore()
        os.kill(os.getpid(), signal.SIGTSTP)
        self._enter()  # where the kernel lets nothing stop us, nobody hears of being continued

    # -- signals and sizes --

    async def _hear(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number in ENDING:
                self._leave(Outcome("signal", signal=number))
            elif number == signal.SIGWINCH:
                self._tell_size()
            elif self._is_terminal and not terminal.in_background():  # the shell has set its own modes meanwhile
                self._raw_again()
                self._tell_size(repaint=True)

    def _tell_size(self, *, repaint: bool = False) -> None:
        """Have the program told of our size. With `repaint` it paints all of its screen, since the size changes.

        Waits for nothing: a server that does not answer keeps us neither from the next signal nor from the next key.
        """
        self._is_unpainted |= repaint
        self._size_is_news.set()

    async def _pass_sizes(self) -> None:
        while True:
            await self._size_is_news.wait()
            self._size_is_news = trio.Event()  # of what changes while the server is asked, the newest is passed
            if self._is_unpainted and not self._link.is_interrupted:
                self._is_unpainted = False
                await self._pass_size(fewer_rows=1)
                await trio.sleep(_NUDGE_SECONDS)
            await self._pass_size()

    async def _pass_size(self, fewer_rows: int = 0) -> None:
        if not self._types or not self._is_raw or (window := terminal.window()) is None:
            return
        rows, cols, xpixel, ypixel = terminal.size_of(window)
        try:
            await self._process.resize(max(1, rows - fewer_rows), cols, xpixel, ypixel)
        except (ConnectionLostError, RequestError):
            pass  # whoever reads the output hears of it too

    # -- the connection --

    async def _watch_link(self) -> None:
        while True:
            await self._link.wait_interrupted(True)
            leave = next((key for key, action in self._actions.items() if action in ("leave", "detach")), None)
            way_out = f"; {shown_key(self._escape)}{shown_key(leave)} gives up" if self._escape and leave else ""
            self._tell(f"the connection is lost; trying for {self._patience:g} s to come back{way_out}")
            await self._link.wait_interrupted(False)
            self._tell("connected again")
            self._tell_size(repaint=True)
