"""The streams of a command that runs here: ours, unless they have to come through us.

They do for a terminal of its own; and for an idle timeout, a recording, a report and progress, where its output goes
into pipes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import trio

from execsrv._cli.job import FLOOD_SECONDS, QUIET_SECONDS, Recorder, RunOptions, pass_on
from execsrv._cli.silence_rule import shows_progress
from execsrv._cli.streams import missing
from execsrv._cli.terminal import Escape, size_of
from execsrv._processes import terminal
from execsrv._wire.stdio import read_shared

if TYPE_CHECKING:
    from execsrv._cli.local_recording import LocalRecording

_READ_BYTES = 64 * 1024
_NOBODY_SECONDS = 0.05


class LocalStreams:
    """The `stdio` of a command, and those of its streams that come through us.

    `touched` is called whenever something comes or goes, `broken` when nobody reads our stdout any more.
    """

    def __init__(self) -> None:
        self.stdio: list[int | None] = [None if number in missing else number for number in range(3)]
        self.touched: Callable[[], None] = lambda: None
        self.broken: Callable[[], None] = lambda: None
        self.recording: LocalRecording | None = None
        self.others: list[Recorder] = []
        self._its: list[int] = []
        self._sources: dict[int, int] = {}
        self._master: int | None = None
        self._writing = 0
        self._moved_at = 0.0
        self._leader_has_ended = False
        self._is_left = False
        self._last_key = b""

    def take_no_stdin(self) -> None:
        """Give it an empty stdin."""
        empty = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._its.append(empty)
        self.stdio[0] = empty

    def watch_output(self) -> None:
        """Have its output come through us. Where both streams are one of ours, they stay one, in order."""
        both = self.stdio[1] is not None and self.stdio[2] is not None and os.path.sameopenfile(1, 2)
        for number in (1, 2):
            if self.stdio[number] is None:
                continue
            if number == 2 and both:
                self.stdio[2] = self.stdio[1]
                continue
            read, write = os.pipe()
            os.set_blocking(read, False)
            self._sources[read] = number
            self._its.append(write)
            self.stdio[number] = write

    def started(self, master: int | None, held: int | None) -> None:
        """Let go of the ends that are the command's now. Takes ownership of both ends of its terminal.

        The other end is held until its leader has ended, so that the terminal lasts as long.
        """
        self._close(self._its)
        self._its = [] if held is None else [held]
        self._master = master
        if master is not None:
            self._sources[master] = 1

    def close(self) -> None:
        self._close(self._its)
        self._close(list(self._sources))
        self._sources.clear()
        self._master = None

    def _close(self, descriptors: list[int]) -> None:
        while descriptors:
            os.close(descriptors.pop())

    # -- output --

    def pump(self, nursery: trio.Nursery) -> None:
        """Write all that comes to our own streams, in the nursery."""
        for source, target in self._sources.items():
            nursery.start_soon(self._pump, source, target)

    async def _pump(self, source: int, target: int) -> None:
        while (chunk := await self._read(source)) and source in self._sources:
            self._move()
            self._writing += 1
            try:
                await pass_on(target, chunk, self.recording, self.others)
            except BrokenPipeError:
                self.broken()
                break
            finally:
                self._writing -= 1
                self._move()
        if source in self._sources and source != self._master:
            del self._sources[source]
            os.close(source)  # whoever still writes to it hears of that as we did
        else:
            self._sources.pop(source, None)

    async def _read(self, source: int) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(source)
            try:
                return os.read(source, _READ_BYTES)
            except BlockingIOError:
                pass
            except OSError as error:
                # Nobody has the terminal open. As long as the leader lives, somebody may open it again.
                if error.errno != errno.EIO or self._leader_has_ended:
                    return b""
                await trio.sleep(_NOBODY_SECONDS)

    def _move(self) -> None:
        self._moved_at = trio.current_time()
        self.touched()

    async def settle(self) -> None:
        """Wait until all streams are at their end or quiet. For those that are not, only for a time.

        What is being written is waited for until it is written, unless all of it is left.
        """
        self._leader_has_ended = True
        self._close(self._its)
        end = trio.current_time() + FLOOD_SECONDS
        self._moved_at = trio.current_time()
        while True:
            if not self._writing and trio.current_time() >= min(self._moved_at + QUIET_SECONDS, end):
                return
            if not self._sources or self._is_left:
                return
            await trio.sleep(QUIET_SECONDS / 10)

    def leave(self) -> bool:
        """Wait no longer for who does not read our own streams. Return whether there is something that is lost so."""
        self._is_left = True
        return self._writing > 0

    # -- input --

    async def pass_keys(self, escape: Escape | None) -> bool:
        """Pass our stdin to its terminal, until its end. Return whether the user has typed the escape."""
        master = self._master
        assert master is not None
        type_keys = partial(self._type, master)
        if escape is not None:
            from execsrv._cli.typed_ahead import pass_typed  # for a user at a terminal

            if await pass_typed(_read_keys, type_keys, escape, self.touched):
                return True
        else:
            while data := await _read_keys():
                self.touched()
                await type_keys(data)
        await type_keys(terminal.end_of_input(master, self._last_key))
        return False

    async def _type(self, master: int, keys: bytes) -> None:
        self._last_key = keys[-1:]
        while keys:
            await trio.lowlevel.wait_writable(master)
            try:
                keys = keys[os.write(master, keys) :]
            except BlockingIOError:
                pass
            except OSError:
                return  # nobody has it open

    def resize(self, window: bytes | None) -> None:
        """Give its terminal the size of ours, if there is one that knows."""
        if self._master is not None and window is not None:
            terminal.set_window(self._master, window)
            if self.recording is not None:
                self.recording.resized(*size_of(window)[:2])


async def _read_keys() -> bytes:
    try:
        return await read_shared(0)
    except OSError:
        return b""  # it cannot be read: closed, write-only, or a terminal that was hung up


@contextmanager
def open_streams(options: RunOptions) -> Iterator[LocalStreams]:
    """The streams for a command, with their recording. They are closed when the block is left. Raises `OSError`."""
    streams = LocalStreams()
    with _recorded(options) as streams.recording:
        try:
            if not options.tty:
                if options.no_stdin:
                    streams.take_no_stdin()
                wishes = options.idle_timeout, options.record, options.junit
                if any(each is not None for each in wishes) or shows_progress(options):
                    streams.watch_output()
            yield streams
        finally:
            streams.close()


def _recorded(options: RunOptions) -> AbstractContextManager[LocalRecording | None]:
    if options.record is None:
        return nullcontext()
    from execsrv._cli.local_recording import recorded

    return recorded(options.record, options.argv, is_terminal=options.tty)
