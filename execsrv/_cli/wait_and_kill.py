"""`execsrv wait` and `execsrv kill`: the end of sessions, waited for or brought about."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import trio

from execsrv._cli.finding import at_session, how_it_stands, listing
from execsrv._cli.job import TIMED_OUT
from execsrv._cli.manners import Manners, one_line, print_json
from execsrv._cli.reach import Reach
from execsrv._cli.usage import UsageError
from execsrv._log.entries import Exited
from execsrv.client import Client, Process
from execsrv.errors import ExecsrvError
from execsrv.protocol import ListedProcess, SignalTarget

_KILL_SECONDS = 5.0
"""Time that the server has to kill what the grace did not end, and to tell of it."""


def wait(*, names: Sequence[str], timeout: float | None, reach: Reach, manners: Manners) -> int:
    """Wait for sessions; return the exit status of the last one."""
    ends = trio.run(_wait, names, timeout, reach)
    if ends is None:
        manners.note(f"not done after {timeout:g} s")
        return TIMED_OUT
    if manners.as_json:
        print_json([_facts(name, end) for name, end in zip(names, ends, strict=True)])
    return ends[-1].exit_code


async def _wait(names: Sequence[str], timeout: float | None, reach: Reach) -> list[Exited] | None:  # noqa: ASYNC109
    with trio.move_on_after(float("inf") if timeout is None else timeout):
        async with reach.connect() as client:
            return [await _end_of(client, listed) for listed in await _found(client, names)]
    return None


async def _found(client: Client, names: Sequence[str]) -> list[ListedProcess]:
    """Return the sessions of these names. None is left out: raises `ExecsrvError`."""
    known = await listing(client)
    return [known.find(name) for name in names]


async def _end_of(client: Client, listed: ListedProcess) -> Exited:
    if not listed.running and listed.exit_code is not None:
        return Exited(0, listed.exit_code, listed.signal, listed.reason or "exited")
    async with at_session(client, listed, "viewer", after=listed.next_seq - 1) as process:
        return await process.wait()


def _facts(name: str, end: Exited) -> dict[str, Any]:
    return {"name": name, "exitCode": end.exit_code, "signal": end.signal, "reason": end.reason}


def kill(*, names: Sequence[str], signal: str | None, tree: bool, grace: float, reach: Reach, manners: Manners) -> int:
    """End sessions, or send them a signal."""
    if tree and signal is None:
        raise UsageError("--tree is for --signal: without one, all that descends from it is ended anyway")
    trio.run(_kill, names, signal, tree, grace, reach, manners)
    return 0


async def _kill(
    names: Sequence[str], signal: str | None, tree: bool, grace: float, reach: Reach, manners: Manners
) -> None:
    async with reach.connect() as client, AsyncExitStack() as stack:
        asked: list[tuple[str, ListedProcess, Process]] = []
        for name, listed in zip(names, await _found(client, names), strict=True):
            process = await stack.enter_async_context(at_session(client, listed, "writer", after=listed.next_seq - 1))
            if signal is not None:
                await _send(process, name, signal, "tree" if tree else "group")
            elif await process.terminate(grace) or not listed.closed:
                asked.append((name, listed, process))
            else:
                manners.note(f"`{one_line(name)}` had ended already: {how_it_stands(listed)}")
        with trio.move_on_after(grace + _KILL_SECONDS) as patience:
            for _, listed, process in asked:
                if not listed.closed:
                    async for _ in process.events():
                        pass
        if patience.cancelled_caught:
            raise ExecsrvError("not all has ended: `execsrv ps` lists what has not")


async def _send(process: Process, name: str, signal: str, target: SignalTarget) -> None:
    if not await process.send_signal(int(signal) if signal.isdecimal() else signal, target):
        raise ExecsrvError(f"cannot send a signal to `{one_line(name)}`: nothing of it runs")
