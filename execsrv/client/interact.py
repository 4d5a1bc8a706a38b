"""Connecting the terminal of this program with a process, for `Process.interact`."""

from __future__ import annotations

import os
import signal
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from execsrv._nursery import open_helpers
from execsrv.errors import InvalidParamsError, StdinClosedError

if TYPE_CHECKING:
    from execsrv.client.process import Process

_READ_BYTES = 4096

Filter = Callable[[bytes], bytes] | None


async def interact(
    process: Process, escape: bytes, input_filter: Filter, output_filter: Filter, stdin: int, stdout: int
) -> None:
    """Pass keys and output on, until the process's end or the escape."""
    with _raw(stdin) as is_terminal:
        if is_terminal:
            await _pass_size(process, stdin)
        limiter = trio.CapacityLimiter(1)  # who does not read this terminal holds up nobody but this
        async with open_helpers() as helpers:
            if is_terminal and threading.current_thread() is threading.main_thread():
                helpers.start_soon(_pass_sizes, process, stdin)

            async def pass_keys() -> None:
                await _pass_keys(process, stdin, escape, input_filter)
                helpers.cancel_scope.cancel()

            helpers.start_soon(pass_keys)
            async for data in process.output:
                shown = data if output_filter is None else output_filter(data)
                while shown:
                    write = partial(os.write, stdout, shown)
                    shown = shown[await trio.to_thread.run_sync(write, limiter=limiter, abandon_on_cancel=True) :]


async def _pass_keys(process: Process, stdin: int, escape: bytes, input_filter: Filter) -> None:
    """Pass on what is typed, until the escape. At the end of the input, end the process's."""
    while True:
        await trio.lowlevel.wait_readable(stdin)
        data = os.read(stdin, _READ_BYTES)
        if not data:
            await process.close_stdin()
            await trio.sleep_forever()
        data = data if input_filter is None else input_filter(data)
        at = data.rfind(escape) if escape else -1
        try:
            if keys := data if at < 0 else data[:at]:
                await process.write(keys)
        except StdinClosedError:
            pass  # it reads no more, and its end comes as the end of its output
        if at >= 0:
            return


@contextmanager
def _raw(stdin: int) -> Iterator[bool]:
    """Have every key at once and as it is, while the block lasts. Give False where that is no terminal."""
    try:
        before = termios.tcgetattr(stdin)
    except termios.error:
        yield False
        return
    except (TypeError, ValueError):
        raise InvalidParamsError(f"stdin must be a descriptor, got {stdin!r}", field="stdin") from None
    tty.setraw(stdin, termios.TCSANOW)
    try:
        yield True
    finally:
        termios.tcsetattr(stdin, termios.TCSANOW, before)


async def _pass_size(process: Process, stdin: int) -> None:
    try:
        cols, rows = os.get_terminal_size(stdin)
        if rows and cols:
            await process.resize(rows, cols)
    except (OSError, InvalidParamsError):
        return  # one of the two is no terminal


async def _pass_sizes(process: Process, stdin: int) -> None:
    with trio.open_signal_receiver(signal.SIGWINCH) as changes:
        async for _ in changes:
            await _pass_size(process, stdin)
