"""Measure commands and files on another machine, so to speak, beside asyncssh: encrypted, over the loopback.

`python -m tests.benchmarks.beside_asyncssh --rounds 3`, with asyncssh installed. Either side has its own server and its
own client, each in a process of its own, and the two take turns. asyncssh's server hands each command to `/bin/sh`, so
ours runs the same words there. Printed are medians over the rounds, and their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import trio

import execsrv
from execsrv.limits import ClientConfig
from tests.certificates import Authority

MB = 1_000_000
SIZE = 100 * MB
ONE_BY_ONE, COMMANDS, AT_A_TIME = 50, 200, 20
PRINT = f"head -c {SIZE} /dev/zero"

Times = dict[str, float]


def library() -> Any:
    """Return asyncssh, which our own suite does without."""
    return import_module("asyncssh")


async def timed(times: Times, name: str, do: Callable[[], Awaitable[Any]]) -> None:
    start = time.perf_counter()
    await do()
    times[name] = time.perf_counter() - start


# -- the two clients: the same rows, each in the words of its library --


async def by_execsrv(url: str, authority: str, folder: Path) -> Times:
    times: Times = {}
    config = ClientConfig(tls_ca_file=authority)

    async def connect() -> None:
        async with execsrv.connect(url, config=config) as client:
            await client.run(["true"])

    async def one_by_one() -> None:
        for _ in range(ONE_BY_ONE):
            await client.run(["sh", "-c", "true"], check=True)

    async def many() -> None:
        async for result in client.map([["sh", "-c", "true"]] * COMMANDS, limit=AT_A_TIME):
            assert result.exit_code == 0

    async def printed() -> None:
        assert len((await client.run(["sh", "-c", PRINT], max_bytes=2 * SIZE)).stdout) == SIZE

    async def through_cat() -> None:
        assert len((await client.run(["cat"], input=bytes(SIZE), max_bytes=2 * SIZE)).stdout) == SIZE

    await connect()  # what is loaded late is loaded now
    await timed(times, "connect, run(true), leave", connect)
    async with execsrv.connect(url, config=config) as client:
        await timed(times, f"{ONE_BY_ONE} commands, one by one", one_by_one)
        await timed(times, f"{COMMANDS} commands, {AT_A_TIME} at a time", many)
        await timed(times, "100 MB of output", printed)
        await timed(times, "100 MB through cat", through_cat)
        await timed(times, "100 MB file put", partial(client.files.put, folder / "source", folder / "by-execsrv"))
    return times


async def by_asyncssh(port: int, key: str, folder: Path) -> Times:
    asyncssh = library()
    times: Times = {}
    there: dict[str, Any] = {"port": port, "client_keys": [key], "known_hosts": None, "username": "x", "config": None}

    async def connect() -> None:
        async with asyncssh.connect("127.0.0.1", **there) as ssh:
            await ssh.run("true", check=True)

    async def one_by_one() -> None:
        for _ in range(ONE_BY_ONE):
            await ssh.run("true", check=True)

    async def many() -> None:
        limit = asyncio.Semaphore(AT_A_TIME)

        async def one() -> None:
            async with limit:
                await ssh.run("true", check=True)

        await asyncio.gather(*(one() for _ in range(COMMANDS)))

    async def printed() -> None:
        assert len((await ssh.run(PRINT, encoding=None)).stdout) == SIZE

    async def through_cat() -> None:
        assert len((await ssh.run("cat", input=bytes(SIZE), encoding=None)).stdout) == SIZE

    async def put() -> None:
        async with ssh.start_sftp_client() as sftp:
            await sftp.put(folder / "source", folder / "by-asyncssh")

    await connect()
    await timed(times, "connect, run(true), leave", connect)
    async with asyncssh.connect("127.0.0.1", **there) as ssh:
        await timed(times, f"{ONE_BY_ONE} commands, one by one", one_by_one)
        await timed(times, f"{COMMANDS} commands, {AT_A_TIME} at a time", many)
        await timed(times, "100 MB of output", printed)
        await timed(times, "100 MB through cat", through_cat)
        await timed(times, "100 MB file put", put)
    return times


async def serve_ssh(key: str) -> None:
    asyncssh = library()

    async def copy(source: Any, target: Any) -> None:
        with suppress(ConnectionError):  # a command need not read its input
            while data := await source.read(1 << 18):
                target.write(data)
                await target.drain()

    async def feed(source: Any, target: Any) -> None:
        await copy(source, target)
        target.close()

    async def handle(session: Any) -> None:
        pipe = asyncio.subprocess.PIPE
        command = await asyncio.create_subprocess_shell(session.command, stdin=pipe, stdout=pipe, stderr=pipe)
        feeding = asyncio.create_task(feed(session.stdin, command.stdin))
        await asyncio.gather(copy(command.stdout, session.stdout), copy(command.stderr, session.stderr))
        session.exit(await command.wait())
        feeding.cancel()

    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[key],
        authorized_client_keys=f"{key}.pub",
        process_factory=handle,
        sftp_factory=True,
        encoding=None,
    )
    print(server.get_port(), flush=True)
    await asyncio.Event().wait()


# -- both in turns --


def compare(rounds: int) -> None:
    asyncssh = library()
    ourselves = [sys.executable, "-m", "tests.benchmarks.beside_asyncssh"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "source").write_bytes(bytes(SIZE))
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / "key")
        key.write_public_key(folder / "key.pub")
        authority = Authority(folder)

        def start(*argv: str) -> str:
            server = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
            stack.callback(server.terminate)
            assert server.stdout is not None
            return server.stdout.readline().split()[-1]

        tls = ["--tls-certificate-file", authority.server()]
        url = start(sys.executable, "-m", "execsrv", "serve", "--quiet", "--listen", "wss://127.0.0.1:0", *tls)
        port = start(*ourselves, "--serve", f"{folder}/key")
        sides = {"execsrv": [url, authority.file], "asyncssh": [port, f"{folder}/key"]}
        found: dict[str, list[Times]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, words in sides.items():
                argv = [*ourselves, "--side", side, *words, str(folder)]
                found[side].append(json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout))
        for row in found["execsrv"][0]:
            ours, theirs = (statistics.median(times[row] for times in found[side]) for side in sides)
            print(f"{row:32} {ours * 1000:9.1f} ms   asyncssh {theirs * 1000:9.1f} ms   ratio {ours / theirs:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        asyncio.run(serve_ssh(options.serve))
    elif options.side is None:
        compare(options.rounds)
    elif options.side[0] == "execsrv":
        _, url, authority, folder = options.side
        print(json.dumps(trio.run(by_execsrv, url, authority, Path(folder))))
    else:
        _, port, key, folder = options.side
        print(json.dumps(asyncio.run(by_asyncssh(int(port), key, Path(folder)))))


if __name__ == "__main__":
    main()
