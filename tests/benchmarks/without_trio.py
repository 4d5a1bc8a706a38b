"""Measure the client in plain code and under asyncio, beside the standard library's subprocesses.

Rows are those of `client`: both sides take turns, medians and their ratio are printed. The server is one that `launch`
starts. `bench.py --only client` runs this too.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import trio

import execsrv.asyncio
import execsrv.sync

TRUE = ["true"]
COMMANDS, AT_A_TIME, LINES, SIZE = 200, 20, 200_000, 100_000_000

Do = Callable[[], object]


def show(name: str, ours: list[float], theirs: list[float], rival: str) -> None:
    median = statistics.median(ours)
    line = f"{name:44} {median * 1000:10.2f} ms"
    if theirs:
        other = statistics.median(theirs)
        line += f"   {rival} {other * 1000:10.2f} ms   ratio {median / other:.2f}"
    print(f"{line}   (least {min(ours) * 1000:.2f})", flush=True)


def measure(name: str, ours: Do, theirs: Do | None, rival: str, times: int) -> None:
    taken: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(times + 1):
        for side, do in ((True, ours), (False, theirs)):
            if do is not None:
                start = time.perf_counter()
                do()
                if turn:  # the first is to warm up
                    taken[side].append(time.perf_counter() - start)
    show(name, taken[True], taken[False], rival)


def by_map(client: execsrv.sync.Client) -> None:
    assert sum(1 for _ in client.map([TRUE] * COMMANDS, limit=AT_A_TIME)) == COMMANDS


def by_threads(run: Callable[[list[str]], object]) -> None:
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(run, [TRUE] * COMMANDS))


def lines(client: execsrv.sync.Client) -> None:
    with client.start(["seq", str(LINES)]) as process:
        assert sum(1 for _ in process.lines()) == LINES


def lines_by_subprocess() -> None:
    with subprocess.Popen(["seq", str(LINES)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert sum(1 for _ in process.stdout) == LINES


def read(client: execsrv.sync.Client) -> None:
    with client.start(["head", "-c", str(SIZE), "/dev/zero"]) as process:
        assert len(process.stdout.read()) == SIZE


def read_by_subprocess() -> None:
    with subprocess.Popen(["head", "-c", str(SIZE), "/dev/zero"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert len(process.stdout.read()) == SIZE


def launch() -> None:
    with execsrv.sync.launch():
        pass


def plain() -> None:
    run = partial(subprocess.run, capture_output=True, check=True)
    with execsrv.sync.launch() as client:
        measure("sync: a call that does nothing", partial(client._wait, trio.lowlevel.checkpoint), None, "", 2000)
        measure("sync: run(true)", partial(client.run, TRUE), partial(run, TRUE), "subprocess", 200)
        measure("sync: 200 commands, map", partial(by_map, client), partial(by_threads, run), "threads", 5)
        measure("sync: 200 commands, threads", partial(by_threads, client.run), partial(by_threads, run), "threads", 5)
        measure("sync: 200,000 lines", partial(lines, client), lines_by_subprocess, "subprocess", 5)
        measure("sync: 100 MB of stdout", partial(read, client), read_by_subprocess, "subprocess", 5)
    measure("sync: launch and close", launch, None, "", 10)
    measure("sync: sync.run(true), a server each", partial(execsrv.sync.run, TRUE), None, "", 10)


async def measure_awaited(
    name: str, ours: Callable[[], Awaitable[object]], theirs: Callable[[], Awaitable[object]] | None, times: int
) -> None:
    taken: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(times + 1):
        for side, do in ((True, ours), (False, theirs)):
            if do is not None:
                start = time.perf_counter()
                await do()
                if turn:
                    taken[side].append(time.perf_counter() - start)
    show(name, taken[True], taken[False], "asyncio")


async def run_by_asyncio() -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*TRUE, stdout=pipe, stderr=pipe)
    await process.communicate()


async def all_of(run: Callable[[], Awaitable[object]]) -> None:
    limit = asyncio.Semaphore(AT_A_TIME)

    async def one() -> None:
        async with limit:
            await run()

    async with asyncio.TaskGroup() as group:
        for _ in range(COMMANDS):
            group.create_task(one())


async def awaited() -> None:
    async with execsrv.asyncio.launch() as client:
        run = partial(client.run, TRUE)
        await measure_awaited(
            "asyncio: a call that does nothing", partial(client._wait, trio.lowlevel.checkpoint), None, 2000
        )
        await measure_awaited("asyncio: run(true)", run, run_by_asyncio, 200)
        await measure_awaited("asyncio: 200 commands", partial(all_of, run), partial(all_of, run_by_asyncio), 5)


def main() -> None:
    plain()
    asyncio.run(awaited())


if __name__ == "__main__":
    main()
