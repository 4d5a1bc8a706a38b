"""`execsrv map`: a command for each line of stdin, over the servers of a pool, and a line of JSON for each result."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import msgspec
import trio

from execsrv._cli.manners import Manners
from execsrv._cli.map_journal import Journal, open_journal
from execsrv._cli.map_results import facts_of, facts_of_error
from execsrv._cli.map_watching import Tally
from execsrv._cli.pooling import PoolReach, labels_of
from execsrv._cli.reach import Reach
from execsrv._cli.register.kinds import OWN_FAILURE
from execsrv._cli.remote_stdin import read_stdin
from execsrv._cli.signals import received
from execsrv._cli.streams import say
from execsrv._cli.usage import UsageError
from execsrv._cli.written_lines import WrittenLines
from execsrv._nursery import open_helpers
from execsrv.client.parameters import words
from execsrv.errors import CommandError, ConnectionLostError, NoServerError, RequestError
from execsrv.pool import Pool
from execsrv.pool.pool import members_of

PLACE = "{}"
"""Stands in a command for the line."""

_MOST_LINE_BYTES = 1 << 20
"""No command could get a longer line: Linux takes no word of more than 128 KiB."""

_SOME_FAILED = 1

_CUT_OFF = {
    "error": "an earlier run was cut off while it ran: it may have run wholly, in part, or not at all",
    "kind": "unknown",
}
"""The result of a line whose command was under way when we were killed."""

_DROPPED = {"error": "execsrv map was asked to end before there was room for it", "kind": "not-started"}
"""What the journal has of a line whose command had no place yet."""

_NOT_TEXT = {"error": "the line is not UTF-8", "kind": "invalid-params"}
_TOO_LONG = {"error": f"the line is longer than {_MOST_LINE_BYTES} bytes", "kind": "invalid-params"}


def map_lines(
    *,
    command: Sequence[str],
    limit: int,
    journal: str | None,
    idempotent: bool,
    label: Sequence[str],
    timeout: float | None,
    max_output: int,
    pool: str | None,
    reach: Reach,
    manners: Manners,
) -> int:
    """Run a command for each line of stdin; return the exit status."""
    if not limit:
        raise UsageError("cannot take `0` for --limit: expected a whole number above 0")
    options: dict[str, Any] = {
        "labels": labels_of(label),
        "idempotent": idempotent,
        "timeout": timeout,
        "max_bytes": max_output,
        "truncate": True,
    }
    command = words(command)  # one that cannot be sent has no result either: all that is written is UTF-8
    with nullcontext(None) if journal is None else open_journal(journal, command) as kept:
        task = _Map(command, limit, kept, options, manners)
        trio.run(task.run, PoolReach(pool, reach))
    if task.ended_by is not None:
        from execsrv._cli.heard_signals import die_of

        die_of(task.ended_by)
        return 128 + task.ended_by
    return task.status


class _Map:
    """The lines as they are read, the commands that run, and the results as they are written."""

    def __init__(
        self,
        command: Sequence[str],
        limit: int,
        journal: Journal | None,
        options: Mapping[str, Any],
        manners: Manners,
    ) -> None:
        self.ended_by: int | None = None
        """The signal that asked us to end."""
        self._command = list(command)
        if not any(PLACE in word for word in command):
            self._command.append(PLACE)
        self._limit = limit
        self._room = trio.Semaphore(limit)
        self._journal = journal
        self._options = options
        self._manners = manners
        self._pool: Pool | None = None
        self._taking = trio.CancelScope()
        self._running = trio.CancelScope()
        self._tally = Tally(manners)
        self._out = WrittenLines(1, self._tally.foot.clear)
        self._has_failed = False

    @property
    def status(self) -> int:
        """The exit status."""
        return OWN_FAILURE if self._has_failed else _SOME_FAILED if self._tally.went_wrong else 0

    async def run(self, reach: PoolReach) -> None:
        """Run all commands. Raises `ExecsrvError` and `OSError`."""
        async with open_helpers() as nursery:
            await nursery.start(self._hear)
            async with self._tally.drawn():
                with self._running:
                    async with reach.open(self._note, per_server=self._limit) as self._pool:
                        await self._take(self._pool)
            nursery.cancel_scope.cancel()
        self._tally.report()

    def _note(self, text: str) -> None:
        self._tally.foot.clear()
        self._manners.note(text)

    async def _take(self, pool: Pool) -> None:
        """Start a command for each line, as soon as there is room for it, and wait for all."""
        async with trio.open_nursery() as nursery:
            with self._taking:
                try:
                    await self._start_each(pool, nursery)
                except OSError as error:  # of stdin; the rest of it never runs, and what runs has its result
                    self._fail(error.strerror)
            self._knows_all()

    async def _start_each(self, pool: Pool, nursery: trio.Nursery) -> None:
        async for number, raw in numbered_lines():
            line = raw[:_MOST_LINE_BYTES].decode(errors="replace")
            facts = _TOO_LONG if len(raw) > _MOST_LINE_BYTES else None if line.encode() == raw else _NOT_TEXT
            if facts is None and self._journal is not None:
                state = self._journal.state(number, line)
                if state in ("ended", "failed") or (state == "unknown" and not self._options["idempotent"]):
                    self._tally.was_there(failed=state == "failed", unknown=state == "unknown")
                    continue
                if state == "begun" and not self._options["idempotent"]:
                    facts = _CUT_OFF
            await self._room.acquire()
            if facts is None:
                nursery.start_soon(self._one, pool, number, line)
            else:
                nursery.start_soon(self._tell, number, line, facts)

    def _knows_all(self) -> None:
        self._tally.knows_all(self._limit - self._room.value)

    async def _one(self, pool: Pool, number: int, line: str) -> None:
        """Run the command of one line, and tell how it ended."""
        argv = [word.replace(PLACE, line) for word in self._command]
        if self._journal is not None:
            self._journal.begin(number, line)
        try:
            facts = facts_of(await pool.run(argv, **self._options))
        except (CommandError, RequestError, NoServerError) as error:
            facts = facts_of_error(error)
            if isinstance(error, NoServerError) and not self._has_failed:
                self._taking.cancel()
                self._fail(error)
        except ConnectionLostError:  # it had no place, and the pool gives none any more
            self._drop(number, line)
            return
        await self._tell(number, line, {"argv": argv} | facts)

    def _fail(self, why: object) -> None:
        self._has_failed = True
        self._tally.foot.clear()
        say(f"execsrv: {why}")

    def _drop(self, number: int, line: str) -> None:
        """Have a command be as one that was never taken. An idempotent one may have run, on a server that was lost."""
        if self._journal is not None and not self._options["idempotent"]:
            self._journal.write(_line(number, line, _DROPPED))
        self._room.release()
        self._knows_all()

    async def _tell(self, number: int, line: str, facts: Mapping[str, Any]) -> None:
        """Count a result and write it, first to the journal. While nobody takes results, no more lines are taken."""
        text = _line(number, line, facts)
        if self._journal is not None:
            self._journal.write(text)
        is_unknown = facts.get("kind") == "unknown"
        self._tally.ended(failed=not is_unknown and ("error" in facts or facts["exitCode"] != 0), unknown=is_unknown)
        await self._out.write(text)
        self._room.release()

    async def _hear(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start nothing more at the first signal that asks us to end, and end what runs at the next."""
        with received() as signals:
            task_status.started()
            async for number in signals:
                if self.ended_by is None:
                    self.ended_by = number
                    self._taking.cancel()
                    if self._pool is None:
                        continue
                    members = members_of(self._pool)
                    members.close()
                    if running := members.running:
                        self._note(f"waiting for {running} commands that run; once more ends them")
                else:
                    self._running.cancel()


def _line(number: int, line: str, facts: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode({"line": number, "input": line, **facts}) + b"\n"


async def numbered_lines() -> AsyncIterator[tuple[int, bytes]]:
    """Return the lines of our stdin, each with its number from 1. Blank ones are passed over, and long ones are cut.

    Raises `OSError` where reading fails. A line that was cut off by that is none.
    """
    number, rest = 0, b""
    while data := await read_stdin():
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            number += 1
            if line.strip():
                yield number, line
        rest = rest[: _MOST_LINE_BYTES + 1]  # of a longer one, as much as tells that it is
    if rest.strip():
        yield number + 1, rest
