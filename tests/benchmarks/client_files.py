"""Cases of the client's files, in this process, over a unix socket to a server in one of its own.

Each gives rows of (name, unit, value). The plain copy is the floor: the same bytes through a unix socket between two
processes, from file to file, with nothing in between.

    python tests/benchmarks/client_files.py [MIB]
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE

import trio

import execsrv
from execsrv.client.blocks import AHEAD, BLOCK_BYTES
from execsrv.client.file_handles import Asked, OpenFile
from execsrv.protocol import Block, BlockRead, BlockWrite, Nothing

MIB = 1 << 20
SMALL_FILES = 2000

Row = tuple[str, str, float]


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def make_file(path: Path, mib: int) -> None:
    """Make a file that does not compress, of these MiB."""
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(block)


def plain_copy(folder: Path, mib: int) -> Row:
    """Copy the file through a socket to another process, which writes it."""
    ours, theirs = socket.socketpair()
    began = time.perf_counter()
    if (pid := os.fork()) == 0:
        ours.close()
        with (folder / "plain").open("wb") as file:
            while data := theirs.recv(MIB):
                file.write(data)
        os._exit(0)
    theirs.close()
    with (folder / "source").open("rb") as file:
        while data := file.read(MIB):
            ours.sendall(data)
    ours.close()
    os.waitpid(pid, 0)
    return "plain socket copy", "MiB/s", mib / (time.perf_counter() - began)


async def blocks_alone(client: execsrv.Client, folder: Path, mib: int) -> list[Row]:
    """Write and read the blocks of a file over the same channel, and nothing else: no file here, no checksum."""
    calls, block, count = client._connection.calls, os.urandom(BLOCK_BYTES), mib * MIB // BLOCK_BYTES
    rows: list[Row] = []
    for name, method, mode in (("written", "fs/writeBlock", "update"), ("read", "fs/readBlock", "read")):
        file = OpenFile(calls, f"{folder}/blocks", mode)  # type: ignore[arg-type]
        await file.open()
        under_way: deque[Asked] = deque()
        began = time.perf_counter()
        for number in range(count):

            def make(handle: str, offset: int = number * BLOCK_BYTES, method: str = method) -> BlockWrite | BlockRead:
                return (
                    BlockWrite(handle, offset, block) if "write" in method else BlockRead(handle, offset, BLOCK_BYTES)
                )

            under_way.append(await file.post(method, make))
            if len(under_way) > AHEAD or number == count - 1:
                while len(under_way) > (AHEAD if number < count - 1 else 0):
                    await file.answer(under_way.popleft(), Nothing if "write" in method else Block)
        rows.append((f"blocks alone, {name}", "MiB/s", mib / (time.perf_counter() - began)))
        await file.close()
    return rows


async def large(client: execsrv.Client, folder: Path, mib: int) -> list[Row]:
    """Put a large file, and get it back."""
    rows: list[Row] = []
    before = resident()
    for name, copy, source, to in (
        ("put", client.files.put, "source", "there"),
        ("get", client.files.get, "there", "back"),
    ):
        most = before

        def progress(*facts: object) -> None:
            nonlocal most
            most = max(most, resident())

        began = time.perf_counter()
        await copy(folder / source, folder / to, progress=progress)
        rows.append((name, "MiB/s", mib / (time.perf_counter() - began)))
        rows.append((f"{name}, memory growth of the client", "MiB", (most - before) / MIB))
    return rows


async def small(client: execsrv.Client, folder: Path) -> list[Row]:
    """Put many small files, and get them back."""
    (folder / "many").mkdir()
    for number in range(SMALL_FILES):
        (folder / f"many/{number}").write_bytes(b"x" * 1000)
    rows: list[Row] = []
    for name, copy, source, to in (
        ("put", client.files.put, "many", "many-there"),
        ("get", client.files.get, "many-there", "many-back"),
    ):
        began = time.perf_counter()
        await copy(folder / source, folder / to)
        rows.append((f"{name}, small files", "per s", SMALL_FILES / (time.perf_counter() - began)))
    return rows


async def measured(folder: Path, mib: int) -> list[Row]:
    """Return all rows."""
    address = f"unix://{folder}/s"
    async with trio.open_nursery() as nursery:
        argv = [sys.executable, "-m", "execsrv", "serve", "--listen", address]
        server = await nursery.start(partial(trio.run_process, argv, check=False, stdout=PIPE, stderr=DEVNULL))
        await server.stdout.receive_some()  # where it listens
        async with execsrv.connect(address) as client:
            rows = await blocks_alone(client, folder, mib)
            rows += await large(client, folder, mib) + await small(client, folder)
        nursery.cancel_scope.cancel()
    return rows


def rows(mib: int = 1024) -> Iterator[Row]:
    """Measure everything once, in a folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="exec-bench-files-"))
    try:
        make_file(folder / "source", mib)
        yield plain_copy(folder, mib)
        yield from trio.run(measured, folder, mib)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    for name, unit, value in rows(int(sys.argv[1]) if sys.argv[1:] else 1024):
        print(f"{name:40} {value:10.1f} {unit}")
