"""The cases of `execsrv bench`: what a client asks of a server, and how long that takes. Each gives one number."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from execsrv.client import Client
from execsrv.client.connect import OWN_SERVER, connect, launch
from execsrv.client.launching import launched
from execsrv.errors import ExecsrvError

MIB = 1 << 20
_PIECE_BYTES = 64 * 1024
_COUNT = 100
"""So often a short thing is done for one median."""

_IN_FLIGHT = 32
_STARTS = 320
_BYTES = 64 * MIB
_TERMINAL_BYTES = 8 * MIB


class Case(NamedTuple):
    """One figure. `run` measures it once."""

    name: str
    unit: str
    run: Callable[[Client], Awaitable[float]]
    is_here: bool = False
    """It is of this machine, whichever server is asked."""

    @property
    def less_is_better(self) -> bool:
        """True for a time."""
        return self.unit in ("s", "ms")


async def server_start(client: Client) -> float:
    """Return the time until a new server has answered `initialize`."""
    began = time.perf_counter()
    async with launch():
        return time.perf_counter() - began


async def _median(act: Callable[[], Awaitable[object]], count: int = _COUNT) -> float:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        await act()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


async def run_true(client: Client) -> float:
    """Return the time of a short command, from the request to its close."""
    return await _median(lambda: client.run(["true"]))


async def run_true_on_terminal(client: Client) -> float:
    """Return that on a terminal."""

    async def run() -> None:
        async with client.start(["true"], tty=True) as process:
            await process.wait()

    return await _median(run)


async def starts_in_flight(client: Client) -> float:
    """Return how many short commands are done in a second, with some at a time."""
    began = time.perf_counter()
    async for _ in client.map([["true"]] * _STARTS, limit=_IN_FLIGHT):
        pass
    return _STARTS / (time.perf_counter() - began)


async def pipe(client: Client) -> float:
    """Return the throughput of large writes."""
    return await _output(client, ["head", "-c", str(_BYTES), "/dev/zero"], _BYTES)


async def lines(client: Client) -> float:
    """Return that of short lines."""
    size = _BYTES // 4
    return await _output(client, ["sh", "-c", f"yes 'a line of forty characters, more or less' | head -c {size}"], size)


async def terminal(client: Client) -> float:
    """Return that through a terminal that changes nothing."""
    script = f"stty raw; head -c {_TERMINAL_BYTES} /dev/zero"
    return await _output(client, ["sh", "-c", script], _TERMINAL_BYTES, tty=True)


async def _output(client: Client, argv: list[str], size: int, *, tty: bool = False) -> float:
    began, got = time.perf_counter(), 0
    async with client.start(argv, tty=tty) as process:
        async for chunk in process.output:
            got += len(chunk)
    _check(got, size)
    return size / MIB / (time.perf_counter() - began)


async def echo(client: Client) -> float:
    """Return the time of one key to a terminal and back."""
    async with client.start(["sh", "-c", "stty raw -echo; echo ready; cat"], tty=True) as process:
        await process.wait_for(output=rb"ready\n")
        output = aiter(process.output)
        await anext(output)

        async def key() -> None:
            await process.write(b"x")
            await anext(output)

        return await _median(key, 2 * _COUNT)


async def stdin(client: Client) -> float:
    """Return the throughput of input that is counted and thrown away."""
    began = time.perf_counter()
    result = await client.run(["wc", "-c"], input=bytes(_BYTES))
    _check(int(result.stdout), _BYTES)
    return _BYTES / MIB / (time.perf_counter() - began)


async def both_ways(client: Client) -> float:
    """Return the throughput of a filter, each byte counted once."""
    data = os.urandom(_PIECE_BYTES) * (_BYTES // 2 // _PIECE_BYTES)
    began = time.perf_counter()
    got = 0
    async with client.start(["cat"], stdin=True) as process, trio.open_nursery() as nursery:

        async def write() -> None:
            await process.stdin.send_all(data)
            await process.close_stdin()

        nursery.start_soon(write)
        async for chunk in process.output:
            got += len(chunk)
    _check(got, len(data))
    return len(data) / MIB / (time.perf_counter() - began)


async def put(client: Client) -> float:
    """Return the throughput of a file on its way to the server."""
    return await _copied(client, is_put=True)


async def get(client: Client) -> float:
    """Return that of one on its way from there."""
    return await _copied(client, is_put=False)


async def _copied(client: Client, *, is_put: bool) -> float:
    there = (await client.run(["mktemp", "-d"])).stdout.decode().strip()
    try:
        with tempfile.TemporaryDirectory(prefix="execsrv-bench-") as here:
            await trio.Path(here, "file").write_bytes(os.urandom(_BYTES))
            began = time.perf_counter()
            await client.files.put(f"{here}/file", f"{there}/file")
            if not is_put:
                began = time.perf_counter()
                await client.files.get(f"{there}/file", f"{here}/back")
            return _BYTES / MIB / (time.perf_counter() - began)
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(5):
            await client.files.remove(there, recursive=True)


def _check(got: int, size: int) -> None:
    if got != size:
        raise ExecsrvError(f"cannot measure: {got} bytes came, where {size} should have")


CASES = (
    Case("start of a server", "s", server_start, is_here=True),
    Case("run true", "ms", run_true),
    Case("run true on a terminal", "ms", run_true_on_terminal),
    Case("key and echo", "ms", echo),
    Case(f"starts, {_IN_FLIGHT} at a time", "per s", starts_in_flight),
    Case("output, pipe", "MiB/s", pipe),
    Case("output, short lines", "MiB/s", lines),
    Case("output, terminal", "MiB/s", terminal),
    Case("input", "MiB/s", stdin),
    Case("filter, both ways", "MiB/s", both_ways),
    Case("put a file", "MiB/s", put),
    Case("get a file", "MiB/s", get),
)
"""All of them, in the order in which they are shown."""


@asynccontextmanager
async def own_server() -> AsyncIterator[Client]:
    """Start a server on this machine, with a socket of its own, and give a client of it. Both end with the block."""
    with tempfile.TemporaryDirectory(prefix="execsrv-bench-") as folder:
        url = f"unix://{folder}/socket"
        async with launched([*OWN_SERVER[:-1], url, "--until-stdin-closes"], stderr=subprocess.DEVNULL) as server:
            assert server.stdout is not None
            await server.stdout.receive_some(1024)  # its URL, once it listens
            async with connect(url) as client:
                yield client
