"""The screen of a process's terminal, as a person would see it: `Process.screen` and `Process.watch_screen`.

It is drawn from what the server retains, read from a place of its own, so nothing is taken from any reader, and nothing
is kept here but the picture. The emulator works in small steps, and others have their turns in between.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from msgspec import Struct

from execsrv._nursery import happened, open_helpers
from execsrv.client.inside import mirror_of
from execsrv.client.parameters import seconds
from execsrv.errors import (
    ConnectionLostError,
    InvalidParamsError,
    LimitExceededError,
    StdinClosedError,
    WaitTimeoutError,
)
from execsrv.protocol import ProcessOutputRead, ProcessRead, Size

if TYPE_CHECKING:
    from execsrv.client.emulator import Emulator
    from execsrv.client.process import Process

MAX_CELLS = 250_000
"""The largest terminal that is drawn, in characters."""

_STEP_BYTES = 256
_READ_SECONDS = 2.0
"""Time that one request waits for output while a screen is watched."""


class Screen(Struct, frozen=True, kw_only=True):
    """A terminal as it was seen.

    `rows` are its lines, each as wide as the terminal, and `text` all of them without the blanks at their ends.
    `cursor` is its row and column from 0. `is_alternate` is True while a full-screen program has a screen of its own.
    `missed` is True when output was not retained any more when it was to be drawn: the picture may be wrong then, until
    the program draws all of it anew.
    """

    rows: list[str]
    cursor: tuple[int, int]
    cursor_visible: bool
    title: str
    size: tuple[int, int]
    is_alternate: bool
    missed: bool

    @property
    def text(self) -> str:
        """Lines without the blanks at their ends, and without the empty ones at the end of all."""
        return "\n".join(row.rstrip() for row in self.rows).rstrip("\n")

    def __str__(self) -> str:
        return self.text


class Drawing:
    """The picture of one process's terminal, and how much of the output is in it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._emulator: Emulator | None = None
        self._after = 0
        self._drawn = 0  # bytes of the entry behind that
        self._missed = False
        self._turn = trio.Lock()
        self.news = trio.lowlevel.ParkingLot()
        self.has_new_size = trio.Event()

    async def update(self) -> bool:
        """Draw what was printed until now. Return False at its end.

        What is printed meanwhile is for the next time: of a program that prints on and on there is no end.
        """
        async with self._turn:
            until = None
            while True:
                read = await self._read()
                next_seq = await self._draw(read)
                until = next_seq if until is None else until
                if read.next_seq >= until:
                    return not read.closed

    async def follow(self) -> bool:
        """Wait a while for output, and draw it. Return False at its end. Others may draw meanwhile."""
        after, read = self._after, await self._read(_READ_SECONDS)
        async with self._turn:
            if self._after == after:  # otherwise others have drawn it, or some of it
                await self._draw(read)
                return not read.closed
        return True

    def resized(self) -> None:
        """Take note of a new size of the terminal, of which the program may say nothing."""
        self.has_new_size.set()
        self.has_new_size = trio.Event()

    async def _read(self, wait: float = 0) -> ProcessOutputRead:
        ask = ProcessRead(self._process.id, self._after, None, round(wait * 1000))
        return await mirror_of(self._process).calls.call("process/read", ask, ProcessOutputRead)

    async def _draw(self, read: ProcessOutputRead) -> int:
        """Draw what was read, in the size that the terminal has by now. Return the number that the next output has."""
        emulator, next_seq = await self._sized()
        self._missed = self._missed or read.gap is not None
        for chunk in read.chunks:
            if chunk.seq != self._after + 1:
                self._drawn = 0  # it is another than was begun
            while piece := chunk.chunk[self._drawn : self._drawn + _STEP_BYTES]:
                emulator.feed(piece)
                self._drawn += len(piece)
                await trio.lowlevel.checkpoint()
            self._after, self._drawn = chunk.seq, 0
        self._after = read.next_seq - 1
        self.news.unpark_all()
        return next_seq

    async def _sized(self) -> tuple[Emulator, int]:
        """Return the emulator in the size of the terminal, and the number that the next output has.

        Raises `InvalidParamsError` where there is no terminal.
        """
        from execsrv.client.emulator import Emulator

        snapshot = await self._process.snapshot()
        if snapshot.terminal is None:
            raise InvalidParamsError(f"process {self._process.id} has no terminal, and so no screen", field="tty")
        size = snapshot.size
        if size is not None and size.rows * size.cols > MAX_CELLS:
            message = f"a screen of {size.rows} x {size.cols} is too large: MAX_CELLS ({MAX_CELLS}) would be exceeded"
            raise LimitExceededError(message, limit="MAX_CELLS", value=MAX_CELLS)
        if self._emulator is None:
            size = size or Size()
            self._emulator = Emulator(size.rows, size.cols)
        elif size is not None:
            self._emulator.resize(size.rows, size.cols)
        return self._emulator, snapshot.next_seq

    async def answer(self) -> bool:
        """Send the terminal's answers to what the program has asked it. Return False where there were none."""
        assert self._emulator is not None
        answers, self._emulator.answers = self._emulator.answers, ""
        if answers:
            await self._process.write(answers.encode())
        return answers != ""

    def screen(self) -> Screen:
        """Return the picture as it is."""
        emulator: Any = self._emulator
        return Screen(
            rows=emulator.display,
            cursor=(emulator.cursor.y, min(emulator.cursor.x, emulator.columns - 1)),
            cursor_visible=not emulator.cursor.hidden,
            title=emulator.title,
            size=(emulator.lines, emulator.columns),
            is_alternate=emulator.is_alternate,
            missed=self._missed,
        )


class WatchedScreen:
    """A screen that is kept up to date. Made by `Process.watch_screen`."""

    def __init__(self, drawing: Drawing, process: Process, left: trio.Event) -> None:
        self._drawing = drawing
        self._process = process
        self._new_size = drawing.has_new_size
        self._left = left
        self._is_over = False

    @property
    def now(self) -> Screen:
        """The screen as far as it is drawn."""
        return self._drawing.screen()

    async def wait_for(
        self,
        wanted: str | Callable[[Screen], bool],
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # it raises an error that tells more
    ) -> Screen:
        """Wait until that text is on it, or until a function of the screen is true of it, and return the screen.

        Raises `WaitTimeoutError` after `timeout` seconds, with the screen in its text, `EOFError` at the end of all,
        and `trio.ClosedResourceError` after its block. Cancelling loses nothing.
        """
        patience = seconds("timeout", timeout, zero=True)
        with trio.move_on_after(patience):
            await trio.lowlevel.checkpoint()
            while not (wanted(self.now) if callable(wanted) else wanted in self.now.text):
                if self._is_over:
                    raise EOFError(f"the terminal is at its end, and {wanted!r} is not on its screen:\n{self.now.text}")
                if self._left.is_set():
                    raise trio.ClosedResourceError(f"the block of the screen of process {self._process.id} was left")
                await self._drawing.news.park()
            return self.now
        how = f"does not have {wanted!r} on its screen after {patience:g} s:\n{self.now.text}"
        raise WaitTimeoutError(self._process.argv, how)

    async def keep(self, answers: bool) -> None:
        """Draw what comes, until the end."""
        async with open_helpers() as helpers:
            helpers.start_soon(self._fit)
            if answers:
                helpers.start_soon(self._answer)
            while not self._is_over:
                self._is_over = not await self._drawing.follow()
            self._drawing.news.unpark_all()

    async def _fit(self) -> None:
        """Draw in each new size, beside a read that may wait for long."""
        while True:
            await happened(self._new_size)
            self._new_size = self._drawing.has_new_size
            await self._drawing.update()

    async def _answer(self) -> None:
        """Give the program its answers. While it reads none, the picture goes on, and those beyond a bound are lost."""
        while True:
            try:
                if await self._drawing.answer():
                    continue
            except (StdinClosedError, ConnectionLostError):
                pass  # nobody reads it any more
            await self._drawing.news.park()


@asynccontextmanager
async def watch(process: Process, drawing: Drawing, answers: bool) -> AsyncIterator[WatchedScreen]:
    """Keep a screen up to date in the block."""
    screen = WatchedScreen(drawing, process, left := trio.Event())
    await drawing.update()
    try:
        async with open_helpers() as helpers:
            helpers.start_soon(screen.keep, answers)
            yield screen
    finally:
        left.set()
        drawing.news.unpark_all()
