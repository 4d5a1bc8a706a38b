"""`execsrv cp`: files and trees to a server and from it, with a bar, and taken up where the line was cut."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from execsrv._cli.copy_places import Copy, Side, settled
from execsrv._cli.manners import Manners, one_line, print_json, size, span
from execsrv._cli.progress import Foot, Meter, has_terminal, keep_drawn
from execsrv._cli.reach import Reach
from execsrv._cli.usage import UsageError
from execsrv._nursery import open_helpers
from execsrv._wire.quoting import in_utf8
from execsrv.client import Client, Transferred
from execsrv.errors import ConnectionFailedError, ConnectionLostError, ExecsrvError

_AGAIN_SECONDS = 0.5
"""So long between two attempts to reach a server that was lost."""


def copy(
    *,
    sources: Sequence[str],
    destination: str,
    again: bool,
    jobs: int,
    no_target_directory: bool,
    reach: Reach,
    manners: Manners,
) -> int:
    """Copy to a server, or from it."""
    to, places = Side.parsed(destination), [Side.parsed(source) for source in sources]
    wrong = [word for word, place in zip(sources, places, strict=True) if place.is_there == to.is_there]
    if wrong:
        side = "the server" if to.is_there else "this machine"
        raise UsageError(f"`{wrong[0]}` and `{destination}` are on {side}: one side is on the server, as `:PATH`")
    if no_target_directory and len(places) > 1:
        raise UsageError("--no-target-directory is for one source")
    if not jobs:
        raise UsageError("cannot take `0` for --jobs: expected a whole number above 0")
    task = _Task(places, to, not again, jobs, no_target_directory, reach, manners)
    return trio.run(task.run)


class _Task:
    """All copies of one command, over as many connections as it takes."""

    def __init__(
        self,
        sources: Sequence[Side],
        to: Side,
        resume: bool,
        jobs: int,
        is_itself: bool,
        reach: Reach,
        manners: Manners,
    ) -> None:
        self._sources, self._to, self._resume, self._jobs, self._is_itself = sources, to, resume, jobs, is_itself
        self._reach, self._manners = reach, manners
        self._copies: list[Copy] | None = None
        self._is_into = False
        self._sum = Transferred()
        self._foot = Foot()
        self._meter = Meter()
        self._last: dict[str, int] = {}
        self._name = ""
        self._most = 0
        self._lost_at = float("inf")
        """The time since which nothing has come on."""

    async def run(self) -> int:
        began = trio.current_time()
        while True:
            try:
                async with self._reach._replace(reconnect=0).connect() as client:
                    await self._attempt(client)
                break
            except (ConnectionLostError, ConnectionFailedError) as error:
                await self._wait_again(error)
        self._report(trio.current_time() - began)
        return 0

    async def _wait_again(self, error: ExecsrvError) -> None:
        """Wait before another attempt. Raises the error where there is none."""
        if self._copies is None:
            raise error
        now = trio.current_time()
        if self._lost_at > now:
            self._lost_at = now
            if self._reach.reconnect:
                self._note(f"the connection is lost; trying for {span(self._reach.reconnect)} to come back")
        if now - self._lost_at >= self._reach.reconnect:
            if self._resume:
                same = "the same command" if self._is_into else "the same command with -T"
                self._note(f"{same} goes on where this one has stopped")
            raise error
        await trio.sleep(_AGAIN_SECONDS)

    async def _attempt(self, client: Client) -> None:
        if self._copies is None:
            self._copies, self._is_into = await settled(client, self._sources, self._to, itself=self._is_itself)
        self._last.clear()
        self._meter.done, self._meter.total = 0, None
        self._sum = Transferred()
        files = client.files
        async with self._drawing(client, self._copies):
            for source, destination in self._copies:
                move = files.put if self._to.is_there else files.get
                done = await move(source, destination, progress=self._progress, limit=self._jobs, resume=self._resume)
                self._sum.files += done.files
                self._sum.bytes += done.bytes
                self._sum.unchanged += done.unchanged
                self._sum.skipped += done.skipped

    # -- what is seen of it --

    def _progress(self, source: str, destination: str, done: int, total: int) -> None:
        before = self._last.get(source)
        self._meter.add(done - (before or 0), moved=before is not None or done == total)
        self._last[source] = done
        self._name = source
        if done == total:
            del self._last[source]
        if self._meter.done > self._most:
            self._most = self._meter.done
            self._lost_at = float("inf")

    @asynccontextmanager
    async def _drawing(self, client: Client, copies: Sequence[Copy]) -> AsyncIterator[None]:
        """Show the bar for a block, where somebody sees it."""
        if self._manners.quiet or self._manners.as_json or not has_terminal():
            yield
            return
        async with open_helpers() as nursery:
            nursery.start_soon(keep_drawn, self._foot, self._shown)
            nursery.start_soon(self._count, client, copies)
            try:
                yield
            finally:
                self._foot.clear()

    def _shown(self) -> str:
        return f"{self._meter.shown()}  {one_line(os.path.basename(self._name))}"

    async def _count(self, client: Client, copies: Sequence[Copy]) -> None:
        """Find out how much there is to copy, while it is being copied."""
        total, thread = 0, trio.CapacityLimiter(1)
        try:
            for source, _ in copies:
                if self._to.is_there:
                    total += await trio.to_thread.run_sync(_bytes_here, source, abandon_on_cancel=True, limiter=thread)
                else:
                    total += await _bytes_there(client, source)
        except (ExecsrvError, OSError):
            return  # the copy itself says what is wrong
        self._meter.total = total

    def _note(self, text: str) -> None:
        self._foot.clear()
        self._manners.note(text)

    def _report(self, seconds: float) -> None:
        done = self._sum
        for path in done.skipped:
            self._note(f"left `{one_line(path)}` out: it is no file, directory or link")
        if self._manners.as_json:
            facts = {"files": done.files, "bytes": done.bytes, "unchanged": done.unchanged}
            skipped = [in_utf8(path) for path in done.skipped]
            print_json({**facts, "skipped": skipped, "seconds": round(seconds, 3)})
        elif has_terminal() or self._manners.verbose:
            rate = f", {size(done.bytes / seconds)}/s" if seconds > 0 else ""
            there = f"; {done.unchanged} were there already" if done.unchanged else ""
            self._note(f"copied {_files(done.files)}, {size(done.bytes)} in {span(seconds)}{rate}{there}")


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _bytes_here(top: str) -> int:
    """Return the bytes of all files of a tree, as far as they can be seen."""
    found = os.stat(top)
    if not stat.S_ISDIR(found.st_mode):
        return found.st_size
    total = 0
    for folder, _, names in os.walk(top):
        for name in names:
            try:
                facts = os.lstat(os.path.join(folder, name))
            except OSError:
                continue  # it has gone, or the copy will say why not
            total += facts.st_size if stat.S_ISREG(facts.st_mode) else 0
    return total


async def _bytes_there(client: Client, top: str) -> int:
    found = await client.files.stat(top)
    if not found.is_directory:
        return found.size
    total = 0
    async for each in client.files.walk(top):
        total += each.size if each.is_file else 0
    return total
