"""`execsrv logs`: what a session has printed, and what it prints from now on."""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import trio

from execsrv._cli.finding import at_session, listing
from execsrv._cli.job import pass_on
from execsrv._cli.manners import Manners
from execsrv._cli.reach import Reach
from execsrv._cli.repainting import Modes
from execsrv._cli.replaying import Replay
from execsrv._cli.terminal import write_now
from execsrv._log.entries import Entry, Exited, Gap
from execsrv.errors import ExecsrvError
from execsrv.protocol import Chunk


def logs(*, name: str, follow: bool, since: float | None, timestamps: bool, reach: Reach, manners: Manners) -> int:
    """Print the output of a session."""
    trio.run(_print, name, follow, since, timestamps, reach, manners)
    return 0


async def _print(name: str, follow: bool, since: float | None, stamped: bool, reach: Reach, manners: Manners) -> None:
    async with reach.connect() as client:
        listed = (await listing(client)).find(name)
        form = Form(time.time() - listed.age_ms / 1000, since, stamped=stamped, manners=manners)
        seq, last = 0, listed.next_seq - 1
        async with at_session(client, listed, "viewer") as process:
            try:
                while (follow or seq < last) and (event := await process.next_event()) is not None:
                    seq = event.seq
                    for descriptor, data in form.written(event):
                        await pass_on(descriptor, data)
                for descriptor, data in form.rest():
                    await pass_on(descriptor, data)
            finally:
                for descriptor, data in form.undo():
                    write_now(data, descriptor)


class Form:
    """The output of one session as it is printed. On a terminal it asks that for nothing, and leaves it as it was."""

    def __init__(self, began: float, since: float | None, *, stamped: bool, manners: Manners) -> None:
        """`began` is the time of its start, and `since` that before which nothing is printed, in seconds since 1970."""
        self._began, self._since, self._manners = began, since, manners
        self._stamped = stamped
        self._is_inside_line = {"stdout": False, "stderr": False, "pty": False}
        self._decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in self._is_inside_line}
        self._begun: dict[str, dict[str, Any]] = {}
        """The facts about the last piece of each stream, in which a character may have begun that is not whole."""
        self._terminals = {number: (Replay(), Modes()) for number in (1, 2) if os.isatty(number)}

    def written(self, event: Entry) -> Iterator[tuple[int, bytes]]:
        """Return what to write of an event, each piece with its descriptor.

        Raises `ExecsrvError` where its time is needed, and is not known.
        """
        if isinstance(event, Gap):
            if self._manners.as_json:
                yield self._json({"seq": event.seq, "omitted": event.omitted})
            elif missing := " and ".join(
                f"{count} bytes of {stream}" for stream, count in event.omitted.items() if count
            ):
                self._manners.note(f"{missing} are not retained any more")
            return
        at = event.at
        if at is None and (self._stamped or self._since is not None):
            raise ExecsrvError("its output has no times: whoever has started it has asked for none")
        when = None if at is None else self._began + at
        if when is not None and self._since is not None and when < self._since:
            return
        if isinstance(event, Exited) and self._manners.as_json:
            facts = {"exitCode": event.exit_code, "signal": event.signal, "reason": event.reason}
            yield self._json({"seq": event.seq, "time": _shown(when)} | facts)
        elif isinstance(event, Chunk):
            yield self._of_chunk(event, when)

    def _of_chunk(self, chunk: Chunk, when: float | None) -> tuple[int, bytes]:
        if self._manners.as_json:
            text = self._decoders[chunk.stream].decode(chunk.chunk)
            self._begun[chunk.stream] = facts = {"seq": chunk.seq, "time": _shown(when), "stream": chunk.stream}
            return self._json(facts | {"text": text})
        data = chunk.chunk
        if self._stamped:
            data = self._with_times(chunk, f"{_shown(when)} ".encode())
        descriptor = 2 if chunk.stream == "stderr" else 1
        if descriptor in self._terminals:
            replay, modes = self._terminals[descriptor]
            data = replay.take(data)
            modes.note(data)
        return descriptor, data

    def _with_times(self, chunk: Chunk, stamp: bytes) -> bytes:
        """Return the output with the time in front of each line that begins in it."""
        is_begun = self._is_inside_line[chunk.stream]
        self._is_inside_line[chunk.stream] = not chunk.chunk.endswith(b"\n")
        end = b"" if self._is_inside_line[chunk.stream] else b"\n"
        text = chunk.chunk.removesuffix(b"\n").replace(b"\n", b"\n" + stamp) + end
        return text if is_begun else stamp + text

    @staticmethod
    def _json(facts: dict[str, Any]) -> tuple[int, bytes]:
        return 1, msgspec.json.encode(facts) + b"\n"

    def rest(self) -> Iterator[tuple[int, bytes]]:
        """Return what to write at the end: in JSON, characters that were begun, and will never be whole."""
        for stream, facts in self._begun.items():
            if text := self._decoders[stream].decode(b"", final=True):
                yield self._json(facts | {"text": text})

    def undo(self) -> Iterator[tuple[int, bytes]]:
        """Return what gives the terminals back as they were."""
        for descriptor, (_, modes) in self._terminals.items():
            yield descriptor, modes.undo()


def _shown(when: float | None) -> str | None:
    if when is None:
        return None
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
