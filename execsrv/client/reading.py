"""Reading what a process prints and how it ends: as events, bytes, lines or text, or all of it at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING

from execsrv._log.entries import Entry, Exited, Gap
from execsrv.client.inbox import PARTS, Part
from execsrv.client.inside import mirror_of
from execsrv.client.iteration import Iteration
from execsrv.client.late import undo_if_late
from execsrv.client.line_batches import Lines
from execsrv.client.mirror import Mirror
from execsrv.client.parameters import count
from execsrv.client.process_facts import Facts
from execsrv.client.reader import Reader
from execsrv.client.streams import Output, receive_told
from execsrv.client.text import MAX_LINE_BYTES, LineTaker, TextMode, TextTaker, text_mode
from execsrv.errors import InvalidParamsError, OutputTruncatedError
from execsrv.protocol import Chunk

if TYPE_CHECKING:
    from execsrv.client.passed import PassedStreams

Event = Entry
"""One thing that happens to a process: output, a gap in it where that was asked for, the end of the leader, or the end
of everything."""


class Reading(Facts):
    """A process as it is read."""

    def __init__(self, mirror: Mirror, argv: list[str], pid: int | None, passed: PassedStreams | None) -> None:
        super().__init__(mirror, argv, pid)
        self._passed = passed

    @cached_property
    def _outputs(self) -> dict[Part, Output]:  # made at first use: most commands are run for all of their output
        if self._passed is not None:
            return self._passed.outputs
        reader, close = self._reader, self._mirror.close_part
        return {
            part: Output(self.id, part, receive_told(reader, part, partial(check_missed, self)), partial(close, part))
            for part in PARTS
        }

    @property
    def stdout(self) -> Output:
        """Its output, or all that its terminal shows, a `trio.abc.ReceiveStream`."""
        return self._outputs["stdout"]

    @property
    def stderr(self) -> Output:
        """Its errors, a `trio.abc.ReceiveStream`. Nothing comes if they have no pipe of their own."""
        return self._outputs["stderr"]

    async def wait(self) -> Exited:
        """Wait for the end of the leader. Cancelling stops waiting, not the process.

        While no other task reads its output, the oldest output is let go as far as the window is exceeded, so that the
        process can end. A later reader learns of it: by a `Gap` among the events, otherwise by an
        `OutputTruncatedError`. If a task that has read before still runs, the output is kept for it.

        Raises `ConnectionLostError`, and `trio.ClosedResourceError` after the block of `start` or `attach`, if the
        process had not ended in it.
        """
        return await self._reader.wait_exited()

    async def next_event(self) -> Event | None:
        """Return the next event: output, exit and close, in order; None when all is over. Cancelling loses nothing.

        Raises `ConnectionLostError` after all that has arrived, `trio.BusyResourceError` while another task is reading,
        and `trio.ClosedResourceError` after the block of `start`.
        """
        event = await self._reader.next()
        if event is not None:
            undo_if_late(partial(self._reader.give_back, event))
        return event

    def events(self) -> AsyncIterator[Event]:
        """Iterate over all events, from here to the end. Cancelling loses nothing.

        A reader that stops may be followed by another, which goes on where it stopped. While one reads, another is
        `trio.BusyResourceError`.
        """
        return Iteration(self.next_event)

    @property
    def output(self) -> AsyncIterator[bytes]:
        """Iterator over all output as it comes, stdout and stderr alike, until both are at their end."""
        return Iteration(self._next_output)

    async def _next_output(self) -> bytes | None:
        while (event := await self.next_event()) is not None:
            if isinstance(event, Chunk):
                return event.chunk
            if isinstance(event, Gap):
                check_missed(self, event)
        return None

    def lines(
        self,
        stream: Part | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        max_bytes: int = MAX_LINE_BYTES,
    ) -> AsyncIterator[str]:
        r"""Iterate over the lines of a stream, "stdout" or "stderr", or of both as they come, each in one piece.

        A line comes without its end, which is "\n", "\r\n" or "\r"; the last one needs none. `encoding` and `errors`
        are those of the start, by default UTF-8 and "strict". Cancelling loses nothing.

        Raises `UnicodeDecodeError`, and `LimitExceededError` for a line of more than `max_bytes`: the line can still be
        read in another way. Raises `OutputTruncatedError` where output is missing that nobody had given up.
        """
        count("max_bytes", max_bytes)
        taker = LineTaker(self._reader.inbox, _part(stream), self._mode(encoding, errors), max_bytes, self.id)

        def take() -> str | Gap | None:
            if (taken := taker.take()) is None and self._reader.is_full:
                taker.make_room()
            return taken

        return Lines(partial(self._next_text, _part(stream), take), taker, self._reader)

    def text(
        self, stream: Part | None = None, *, encoding: str | None = None, errors: str | None = None
    ) -> AsyncIterator[str]:
        """Iterate over the characters of a stream, or of both, in pieces as they come. Line ends stay as they are.

        It raises as `lines` does. Cancelling loses nothing.
        """
        taker = TextTaker(self._reader.inbox, _part(stream), self._mode(encoding, errors), self.id)

        def take() -> str | Gap | None:
            if (taken := taker.take()) is not None:
                undo_if_late(partial(self._reader.give_back, taken if isinstance(taken, Gap) else taker.last))
            return taken

        return Iteration(partial(self._next_text, _part(stream), take))

    async def _next_text(self, part: Part | None, take: Callable[[], str | Gap | None]) -> str | None:
        while True:
            taken: str | Gap | None = await self._reader.read(part, take)
            if not isinstance(taken, Gap):
                return taken
            check_missed(self, taken)

    def _mode(self, encoding: str | None, errors: str | None) -> TextMode:
        """Return the way to text that a call asks for, or else that of the start."""
        default = self._mirror.text or TextMode()
        encoding = default.encoding if encoding is None else encoding
        return text_mode(True, encoding, default.errors if errors is None else errors) or default

    @property
    def _reader(self) -> Reader:
        return self._mirror.reader


def check_missed(process: Facts, gap: Gap) -> None:
    """Raise `OutputTruncatedError` for output that is missing, unless the process was started to drop some."""
    if not mirror_of(process).drops:
        missing = " and ".join(f"{count} bytes of {stream}" for stream, count in gap.omitted.items())
        how = f"is missing {missing or 'output'} here, which nobody read in time"
        raise OutputTruncatedError(
            process.argv, how, exit_code=process.exit_code, signal=process.signal, reason=process.reason
        )


def _part(stream: object) -> Part | None:
    """Return the name of a stream that is one, or None. Raises `InvalidParamsError`."""
    if stream is None or stream == "stdout" or stream == "stderr":
        return stream
    raise InvalidParamsError(f'stream must be "stdout", "stderr" or None, got {stream!r}', field="stream")
