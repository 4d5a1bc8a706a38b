"""Measure the client beside what its users would write otherwise: subprocesses of trio and of Python, and pexpect.

Both sides of a row take turns in one run, so that a noisy minute hits both; printed are medians and their ratio.
Nothing passes or fails by a time: a row only fails when a command answers wrongly. `bench.py --only client` runs this.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import pexpect
import trio

import execsrv

MB = 1_000_000
MIB = 1 << 20
COMMANDS, AT_A_TIME = 200, 20
HANDLES = 5000
TURNS = 100
LAST_WORD = "head -c 10000000 /dev/zero | tr '\\0' x; echo the end"

Measured = Callable[[], Awaitable[object]]


class Row(NamedTuple):
    """Something to do, ours first, and how often."""

    name: str
    ours: Measured
    theirs: Measured | None
    rival: str
    times: int
    mib: float = 0


async def seconds(do: Measured) -> float:
    start = time.perf_counter()
    await do()
    return time.perf_counter() - start


async def measure(row: Row) -> str:
    """Do both sides of a row in turns, and return a line for it."""
    for side in (row.ours, row.theirs):
        if side is not None:
            await side()
    ours, theirs = [], []
    for _ in range(row.times):
        ours.append(await seconds(row.ours))
        if row.theirs is not None:
            theirs.append(await seconds(row.theirs))
    median = statistics.median(ours)
    line = f"{row.name:44} {median * 1000:10.2f} ms"
    if row.mib:
        line += f" {row.mib / median:8.0f} MiB/s"
    if theirs:
        rival = statistics.median(theirs)
        line += f"   {row.rival} {rival * 1000:10.2f} ms   ratio {median / rival:.2f}"
    return line


async def by_trio(count: int) -> None:
    limit = trio.CapacityLimiter(AT_A_TIME)

    async def one() -> None:
        async with limit:
            await trio.run_process(["true"], capture_stdout=True, capture_stderr=True)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)


async def by_map(client: execsrv.Client, count: int) -> None:
    ended = [result.exit_code async for result in client.map([["true"]] * count, limit=AT_A_TIME)]
    assert ended == [0] * count


async def filtered(client: execsrv.Client, data: bytes, *, pass_streams: bool | Literal["kept"] = False) -> None:
    result = await client.run(["cat"], input=data, max_bytes=200 * MB, pass_streams=pass_streams)
    assert len(result.stdout) == len(data)


async def filtered_by_subprocess(data: bytes) -> None:
    done = await trio.to_thread.run_sync(partial(subprocess.run, ["cat"], input=data, capture_output=True, check=True))
    assert len(done.stdout) == len(data)


async def read(client: execsrv.Client, size: int, *, pass_streams: bool = False) -> None:
    async with client.start(["head", "-c", str(size), "/dev/zero"], pass_streams=pass_streams) as process:
        got = 0
        while data := await process.stdout.receive_some():
            got += len(data)
    assert got == size


async def read_lines(client: execsrv.Client, count: int) -> None:
    async with client.start(["seq", str(count)]) as process:
        got = 0
        async for _ in process.lines():
            got += 1
    assert got == count


async def hold_handles(client: execsrv.Client) -> None:
    """Start many commands one after the other, keep all of their handles, and read the last word of each."""
    async with AsyncExitStack() as stack:
        handles = []
        for _ in range(HANDLES // 100):
            for process in [await stack.enter_async_context(client.start(["echo", "x"])) for _ in range(100)]:
                await process.wait()
                handles.append(process)
        for process in handles:
            assert await process.stdout.receive_some() == b"x\n"


async def run_by_pexpect() -> None:
    pexpect.run("true")


async def talk(client: execsrv.Client) -> None:
    async with client.start(["cat"], tty=True, modes={"echo": False}) as process:
        for number in range(TURNS):
            await process.sendline(f"line {number}.")
            await process.expect_exact(f"line {number}.")


async def talk_by_pexpect() -> None:
    process = pexpect.spawn("cat", echo=False)
    process.delaybeforesend = None  # it would wait 50 ms before each line
    for number in range(TURNS):
        process.sendline(f"line {number}.")
        process.expect_exact(f"line {number}.")
    process.close(force=True)


async def search(client: execsrv.Client) -> None:
    async with client.start(["sh", "-c", LAST_WORD], tty=True) as process:
        await process.expect_exact("the end", timeout=600)


async def search_by_pexpect() -> None:
    process = pexpect.spawn("sh", ["-c", LAST_WORD], timeout=600, maxread=65536)
    process.expect_exact("the end")
    process.close(force=True)


async def rows(folder: Path) -> None:
    data = bytes(100 * MB)
    config = execsrv.ServerConfig(max_sessions_per_connection=HANDLES + 100, retained_sessions=HANDLES)
    async with AsyncExitStack() as stack:
        inside = await stack.enter_async_context(execsrv.connect_in_process(config=config))
        command = [sys.executable, "-m", "execsrv", "serve", "--listen", f"unix://{folder}/socket"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: ASYNC220
        stack.callback(server.wait)
        stack.callback(server.terminate)
        assert server.stdout is not None
        await trio.to_thread.run_sync(server.stdout.readline)
        outside = await stack.enter_async_context(execsrv.connect_unix(folder / "socket"))
        true = ["true"]
        for row in [
            Row("run(true), in process", partial(inside.run, true), partial(run_by_trio, true), "trio", 200),
            Row("run(true), execsrv.run", partial(execsrv.run, true), partial(run_by_trio, true), "trio", 200),
            Row(
                f"{COMMANDS} commands, {AT_A_TIME} at a time, in process",
                partial(by_map, inside, COMMANDS),
                partial(by_trio, COMMANDS),
                "trio",
                5,
            ),
            Row(
                "100 MB through cat, in process",
                partial(filtered, inside, data),
                partial(filtered_by_subprocess, data),
                "subprocess",
                5,
                100 * MB / MIB,
            ),
            Row(
                "100 MB through cat, unix socket",
                partial(filtered, outside, data),
                partial(filtered_by_subprocess, data),
                "subprocess",
                3,
                100 * MB / MIB,
            ),
            Row(
                "100 MB through cat, passed streams",
                partial(filtered, outside, data, pass_streams=True),
                partial(filtered_by_subprocess, data),
                "subprocess",
                5,
                100 * MB / MIB,
            ),
            Row(
                "100 MB through cat, passed and kept",
                partial(filtered, outside, data, pass_streams="kept"),
                partial(filtered_by_subprocess, data),
                "subprocess",
                5,
                100 * MB / MIB,
            ),
            Row("100 MB read, in process", partial(read, inside, 100 * MB), None, "", 5, 100 * MB / MIB),
            Row("100 MB read, unix socket", partial(read, outside, 100 * MB), None, "", 5, 100 * MB / MIB),
            Row(
                "100 MB read, passed streams",
                partial(read, outside, 100 * MB, pass_streams=True),
                None,
                "",
                5,
                100 * MB / MIB,
            ),
            Row("a million lines, in process", partial(read_lines, inside, 1_000_000), None, "", 3),
            Row(
                "run(true) on a terminal, in process",
                partial(inside.run, true, tty=True),
                run_by_pexpect,
                "pexpect",
                100,
            ),
            Row(f"{TURNS} lines and answers, in process", partial(talk, inside), talk_by_pexpect, "pexpect", 9),
            Row(
                "a word behind 10 MB, in process",
                partial(search, inside),
                search_by_pexpect,
                "pexpect",
                3,
                10 * MB / MIB,
            ),
            Row(f"{HANDLES} handles, in process", partial(hold_handles, inside), None, "", 1),
        ]:
            print(await measure(row), flush=True)


async def run_by_trio(argv: list[str]) -> None:
    await trio.run_process(argv, capture_stdout=True, capture_stderr=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(rows, Path(folder))


if __name__ == "__main__":
    main()
