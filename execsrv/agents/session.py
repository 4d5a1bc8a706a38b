"""One session of an agent: a command, what it printed, and how much of that was answered.

Its process is read by one task from the start to the end, so it never waits for an agent that looks away. What it
prints is kept twice, each within a bound: the beginning and the end of what no answer had yet, and the last of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

import trio

from execsrv._log.entries import Closed, Entry, Exited, Gap
from execsrv._log.head_tail import HeadTail
from execsrv.agents.answers import Answer, Listed, Piece, State
from execsrv.agents.cleaning import Cleaner, shortened
from execsrv.agents.events import AgentEvent, Ended, Output
from execsrv.agents.looking import until_input, until_nothing_lives
from execsrv.agents.settings import ToolSettings
from execsrv.client import Process
from execsrv.client.inside import mirror_of
from execsrv.client.late import undo_if_late
from execsrv.errors import ConnectionLostError, ProcessEndedError, StdinClosedError, WaitTimeoutError
from execsrv.protocol import Chunk, InputWait, Stream

_CLOSE_SECONDS = 0.1
"""Time from the end of the leader in which an answer waits for the end of its streams, which nearly always follows."""

_SIGNALS = {"\x03": "INT", "\x1c": "QUIT"}
"""Keys that are signals on a terminal, and so for a command that has none."""

_TYPING_SECONDS = 1.0
"""Time to hand over what is typed, however short the window is."""

EventSink = Callable[[AgentEvent], object]


class Session:
    """A command of an agent. `command` is what it was started as."""

    def __init__(
        self, number: int, process: Process, command: str, tty: bool, settings: ToolSettings, tell: EventSink
    ) -> None:
        self.number = number
        self.process = process
        self.command = command
        self.tty = tty
        self.recording: str | None = None
        self.began_at = monotonic()
        self.ended_at: float | None = None
        self.lost: ConnectionLostError | None = None
        self.exited: Exited | None = None
        self.closed: Closed | None = None
        self.scope = trio.CancelScope()
        """Cancelled by whoever wants its block to be left, which ends everything of it."""
        self.over = trio.Event()
        """Set when nothing of it goes on."""
        self._settings = settings
        self._tell = tell
        self._cleaners: dict[Stream, Cleaner] = {}
        self._unanswered = HeadTail(settings.most_output_bytes)
        self._answered = 0
        self._answers = 0
        self._recent = 0, bytearray()
        """The output that is retained, behind the place where it begins. Another thread may read both together."""
        self._settled_at = math.inf
        self._seq = 0
        self._waiting: InputWait | None = None
        self._waiting_at = 0
        self._news = trio.lowlevel.ParkingLot()
        self._typing = trio.Lock()

    # -- it goes on --

    async def live(self) -> None:
        """Read it to its end, and wait until nothing of it lives.

        Raises `ConnectionLostError`, and `RequestError` where the server does not say when that is.
        """
        async for entry in self.process.events():
            self.take(entry)
        if self.closed is not None and self.closed.remaining:
            await until_nothing_lives(self.process)

    def take(self, entry: Entry) -> None:
        """Take in what happened to the process."""
        self._seq = entry.seq
        match entry:
            case Chunk():
                self._tell(Output(self.number, entry.stream, entry.chunk))
                self._append(self._cleaner(entry.stream).clean(entry.chunk))
            case Gap():
                self._append(f"\n[... {sum(entry.omitted.values())} bytes were lost on the way ...]\n")
            case Exited():
                self.exited, self._settled_at = entry, trio.current_time() + _CLOSE_SECONDS
            case Closed():
                self.closed = entry
                for cleaner in self._cleaners.values():
                    self._append(cleaner.clean(b"", final=True))
        self._news.unpark_all()

    def finish(self, lost: ConnectionLostError | None) -> None:
        """Note that nothing of it goes on, or that nobody will ever know."""
        process = self.process
        if self.exited is None and process.exit_code is not None and process.reason is not None:
            self.exited = Exited(0, process.exit_code, process.signal, process.reason)  # which nobody has read
        self.ended_at, self.lost = monotonic(), lost
        if (exited := self.exited) is not None:
            duration = self.ended_at - self.began_at
            self._tell(Ended(self.number, exited.exit_code, exited.signal, exited.reason, duration, self._total))
        self.over.set()
        self._news.unpark_all()

    def _cleaner(self, stream: Stream) -> Cleaner:
        if stream not in self._cleaners:
            self._cleaners[stream] = Cleaner(self._settings.strip_controls)
        return self._cleaners[stream]

    def _append(self, text: str) -> None:
        data = text.encode()
        self._unanswered.append(data)
        first, recent = self._recent
        recent += data
        most = self._settings.retained_bytes
        if len(recent) > most + most // 4:  # not at each chunk, since all of it is copied
            self._recent = first + len(recent) - most, recent[-most:]

    @property
    def _total(self) -> int:
        """The bytes that were printed so far, as text."""
        first, recent = self._recent
        return first + len(recent)

    # -- what is typed --

    async def write(self, chars: str, window: float) -> None:
        """Type, or send the signal of a key where there is no terminal. Not longer than a window, which may be none.

        What the command does not read meanwhile is on its way, up to `WRITE_BYTES`. Raises `WaitTimeoutError` where
        that is not all of it.
        """
        process, data, sent = self.process, chars.encode(), 0
        if self.state == "ended":
            self.check_reachable()
            raise ProcessEndedError(
                process.argv, f"has ended, as session ID {self.number}", exit_code=process.exit_code
            )
        if not self.tty and chars not in _SIGNALS:
            raise StdinClosedError(
                f"session ID {self.number} has no terminal, and so an empty stdin: start it again with tty=true"
            )
        with trio.move_on_after(max(window, _TYPING_SECONDS)):
            if not self.tty:
                await process.send_signal(_SIGNALS[chars])
                return
            async with self._typing:
                before = mirror_of(process).sent_bytes
                try:
                    await process.write(data)
                finally:
                    sent = mirror_of(process).sent_bytes - before
        if sent < len(data):
            how = f"does not read what is typed: of {len(data)} bytes for session ID {self.number} the first {sent} are"
            raise WaitTimeoutError(process.argv, f"{how} on their way, and the rest was not typed")

    # -- waiting, and what there is --

    async def wait(self, until: str) -> None:
        """Wait until all has ended, or until a text is in the unanswered output.

        Where the leader ends meanwhile, and something lives on that holds its output, that is not waited for.
        """
        self._waiting = None
        was_running = self._answers == 0 or self.exited is None
        wanted, looked = until.encode(), self._answered
        while self.closed is None and self.ended_at is None:
            if wanted:
                first, recent = self._recent
                if recent.find(wanted, max(0, looked - first)) >= 0:
                    return
                looked = max(self._answered, self._total - len(wanted) + 1)
            if self._waiting is not None and self._seq >= self._waiting_at:
                return
            with trio.move_on_at(self._settled_at if was_running else math.inf) as settling:
                await self._news.park()
            if settling.cancelled_caught:
                return

    async def watch_input(self, before: InputWait | None) -> None:
        """End the wait when a process of it waits for input, another than `before` or that one once more."""
        if (happened := await until_input(self.process, before)) is not None:
            self._waiting, self._waiting_at = happened.input, happened.seq
            self._news.unpark_all()

    @property
    def state(self) -> State:
        """The state of everything of it."""
        if self.ended_at is not None or (self.closed is not None and not self.closed.remaining):
            return "ended"
        return "running" if self.exited is None else "background"

    def facts(self) -> dict[str, Any]:
        """Return the fields of `Facts`."""
        exited = self.exited
        return {
            "session_id": self.number,
            "state": self.state,
            "exit_code": exited.exit_code if exited else None,
            "signal": exited.signal if exited else None,
            "reason": exited.reason if exited else None,
            "background": self.closed.remaining if self.closed and self.state != "ended" else [],
            "waiting": self._waiting if exited is None else None,
            "is_lost": self.lost is not None,
        }

    def answer(self, since: float, max_bytes: int) -> Answer:
        """Return what was printed since the last answer, which this one is now."""
        for cleaner in self._cleaners.values():
            self._append(cleaner.give_up())
        unanswered, self._unanswered = self._unanswered, HeadTail(self._settings.most_output_bytes)
        offset, self._answered = self._answered, self._total
        self._answers += 1
        undo_if_late(partial(self._take_back, unanswered, offset))
        output, omitted = shortened(unanswered.head, unanswered.tail, unanswered.omitted_bytes, max_bytes)
        return Answer(
            **self.facts(),
            output=output,
            output_bytes=unanswered.total_bytes,
            omitted_bytes=omitted,
            offset=offset,
            wall_time=trio.current_time() - since,
        )

    def _take_back(self, unanswered: HeadTail, offset: int) -> None:
        """Have the next answer say what nobody has had."""
        later, self._unanswered = self._unanswered, unanswered
        unanswered.append(later.head)
        if later.omitted_bytes:
            unanswered.skip(later.omitted_bytes)
        unanswered.append(later.tail)
        self._answered = offset
        self._answers -= 1

    def read(self, offset: int, max_bytes: int) -> Piece:
        """Return up to so many bytes from a place on, as far as they are retained. Nothing is taken."""
        first, recent = self._recent
        retained = bytes(recent)
        total = first + len(retained)
        first, retained = max(first, total - self._settings.retained_bytes), retained[-self._settings.retained_bytes :]
        offset = offset if offset >= 0 else max(0, total + offset)
        start = min(max(offset, first), total)
        data = retained[start - first :]
        begin = next((at for at in range(min(4, len(data))) if data[at] & 0xC0 != 0x80), 0)
        text = data[begin:max_bytes].decode(errors="ignore")
        if max_bytes and not text:  # no less than a character, or nobody would come past it
            text = data[begin : begin + 4].decode(errors="ignore")[:1]
        size = len(text.encode())
        return Piece(
            **self.facts(),
            output=text,
            offset=start + begin,
            next_offset=start + begin + size,
            total_bytes=total,
            forgotten_bytes=start + begin - offset if start > offset else 0,
        )

    def listed(self) -> Listed:
        """Return it as it is listed."""
        return Listed(
            **self.facts(),
            command=self.command,
            pid=self.process.pid,
            tty=self.tty,
            age=monotonic() - self.began_at,
            total_bytes=self._total,
            unread_bytes=self._unanswered.total_bytes,
            recording=self.recording,
        )

    def check_reachable(self) -> None:
        """Raise `ConnectionLostError` where the connection to the server was lost."""
        if self.lost is not None:
            raise ConnectionLostError(*self.lost.args)
