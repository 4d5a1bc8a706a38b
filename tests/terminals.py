"""A terminal with a program at it, seen as a person sees it; and a line to a server that can be cut from plain code."""

from __future__ import annotations

import os
import queue
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pexpect
import trio

from execsrv.client.emulator import Emulator
from tests.peers import PATIENCE
from tests.relay import Line, open_line

EXECSRV = [sys.executable, "-m", "execsrv"]


class Seen:
    """One program at a terminal of its own."""

    def __init__(self, argv: list[str], size: tuple[int, int], env: dict[str, str]) -> None:
        env = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **env}
        self.program: pexpect.spawn[bytes] = pexpect.spawn(
            argv[0], argv[1:], dimensions=size, env=env, timeout=PATIENCE
        )
        self.emulator = Emulator(*size)
        self.output = b""

    @property
    def text(self) -> str:
        """The screen without the blanks at the ends of its lines, and without the empty lines at its end."""
        return "\n".join(row.rstrip() for row in self.emulator.display).rstrip()

    def type(self, keys: str | bytes) -> None:
        self.program.send(keys)

    def line(self, text: str) -> None:
        self.program.send(text + "\r")

    def resize(self, rows: int, cols: int) -> None:
        self.program.setwinsize(rows, cols)
        self.emulator.resize(rows, cols)

    def see(self, wanted: str | Callable[[str], object]) -> str:
        """Wait until a pattern is on the screen, or a function of it is true, and return the screen."""
        deadline = time.monotonic() + PATIENCE
        while not (wanted(self.text) if callable(wanted) else re.search(wanted, self.text, re.M)):
            if time.monotonic() > deadline or not self._draw():
                raise AssertionError(f"{wanted!r} is not on the screen:\n{self.text}")
        return self.text

    def _draw(self) -> bool:
        """Draw what comes next, if something does soon. Return False at the end."""
        try:
            data = self.program.read_nonblocking(65536, timeout=0.5)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.output += data
        self.emulator.feed(data)
        answers, self.emulator.answers = self.emulator.answers, ""
        if answers:
            self.program.send(answers)
        return True

    def end(self) -> int:
        """Wait for the end of the program, and return its status, negative for a signal."""
        while self._draw():
            pass
        self.program.wait()
        self.program.close()
        if self.program.exitstatus is not None:
            return int(self.program.exitstatus)
        return -int(self.program.signalstatus or 0)


def put_away(program: pexpect.spawn[Any]) -> None:
    """Kill a program at a terminal, and wait for its end: pexpect itself waits for a tenth of a second."""
    if program.isalive():
        program.kill(signal.SIGKILL)
        program.wait()
    program.close()


@contextmanager
def seen(*args: str, size: tuple[int, int] = (24, 80), env: dict[str, str] | None = None) -> Iterator[Seen]:
    """Have `execsrv` with these arguments at a terminal."""
    with seen_program([*EXECSRV, *args], size, env or {}) as terminal:
        yield terminal


@contextmanager
def seen_program(argv: list[str], size: tuple[int, int], env: dict[str, str]) -> Iterator[Seen]:
    terminal = Seen(argv, size, env)
    try:
        yield terminal
    finally:
        put_away(terminal.program)


class CutLine:
    """A line that lives in a thread."""

    def __init__(self, line: Line, token: trio.lowlevel.TrioToken) -> None:
        self._line, self._token = line, token
        self._target = line.target
        self.url = line.url

    def _do(self, act: Callable[[], object]) -> None:
        trio.from_thread.run_sync(act, trio_token=self._token)

    def cut(self) -> None:
        """Cut it, and let nobody through."""

        def act() -> None:
            self._line.target = None
            self._line.cut()

        self._do(act)

    def silence(self) -> None:
        """Have nothing pass any more, and nobody told."""
        self._do(self._line.silence)

    def mend(self) -> None:
        """Let connections through again."""

        def act() -> None:
            self._line.target = self._target

        self._do(act)


@contextmanager
def cuttable(url: str, path: str) -> Iterator[CutLine]:
    """A line to the server at a URL."""
    made: queue.Queue[CutLine] = queue.Queue()
    over = trio.Event()

    async def keep() -> None:
        async with open_line(url, path) as line:
            made.put(CutLine(line, trio.lowlevel.current_trio_token()))
            await over.wait()

    thread = threading.Thread(target=trio.run, args=[keep])
    thread.start()
    line = made.get(timeout=PATIENCE)
    try:
        yield line
    finally:
        line._do(over.set)
        thread.join()
