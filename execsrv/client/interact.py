"""Connecting the terminal of this program with a process, for `Process.interact`."""

from __future__ import annotations

import errno
import os
import signal
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from execsrv._nursery import open_helpers
from execsrv._typed_ahead import TypedAhead
from execsrv._wire.stdio import read_shared
from execsrv.errors import InvalidParamsError, StdinClosedError
from execsrv.limits import MIB

if TYPE_CHECKING:
    from execsrv.client.process import Process

_WAITING_BYTES = 1 * MIB
"""Keys that are read while the process reads none, so that an escape is heard. Those behind wait where they are."""

_LAST_SECONDS = 1.0
"""Time that the process has to take what was typed before the escape."""

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

            async def read() -> None:
                await _read_keys(typed, stdin, escape, input_filter)
                helpers.cancel_scope.cancel()

            typed = TypedAhead(_WAITING_BYTES)
            helpers.start_soon(read)
            helpers.start_soon(_write_keys, typed, process)
            async for data in process.output:
                shown = data if output_filter is None else output_filter(data)
                while shown:
                    write = partial(os.write, stdout, shown)
                    try:
                        shown = shown[await trio.to_thread.run_sync(write, limiter=limiter, abandon_on_cancel=True) :]
                    except BlockingIOError:  # others share it, and have it not wait
                        await trio.lowlevel.wait_writable(stdout)


async def _read_keys(typed: TypedAhead, stdin: int, escape: bytes, input_filter: Filter) -> None:
    """Read what is typed, until the escape, which is heard while the process reads nothing."""
    while data := await _read(stdin):
        data = data if input_filter is None else input_filter(data)
        at = data.rfind(escape) if escape else -1
        if at >= 0:
            with trio.move_on_after(_LAST_SECONDS):
                await typed.add(data[:at])
                await typed.all_written()
            return
        await typed.add(data)
    typed.end()
    await trio.sleep_forever()


async def _read(stdin: int) -> bytes:
    try:
        return await read_shared(stdin)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""  # a terminal that was hung up


async def _write_keys(typed: TypedAhead, process: Process) -> None:
    """Write what was read. Behind the end of the input, end the process's."""
    reads_no_more = suppress(StdinClosedError)  # or never did, and its end comes as the end of its output
    while keys := await typed.next():
        with reads_no_more:
            await process.write(keys)
    with reads_no_more:
        await process.close_stdin()


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
        with suppress(termios.error):  # it was hung up
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
