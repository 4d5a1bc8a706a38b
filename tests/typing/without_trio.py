"""Types of the client in plain code and under asyncio."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import asyncio
import io
from typing import assert_type

import execsrv
import execsrv.asyncio
import execsrv.sync


def plain() -> None:
    with execsrv.sync.launch() as client:
        assert_type(client, execsrv.sync.Client)
        assert_type(client.run(["ls"]), execsrv.Result[bytes])
        assert_type(client.run(["ls"], text=True), execsrv.Result[str])
        assert_type(execsrv.sync.run(["ls"], text=True, timeout=5).stdout, str)
        with client.start(["cat"], stdin=True) as process:
            assert_type(process, execsrv.sync.Process)
            assert_type(process.pid, int | None)
            assert_type(process.wait(), execsrv.Exited)
            assert_type(process.stdout, io.BufferedReader)
            assert_type(process.stdin.write(b""), int)
            assert_type(process.next_event(), execsrv.Event | None)
            for line in process.lines("stderr"):
                assert_type(line, str)
            assert_type(process.expect("a", timeout=None), int)
        path = client.files.path("/tmp")
        assert_type(path / "a", execsrv.sync.RemotePath)
        assert_type(path.read_bytes(), bytes)
        assert_type([*path.iterdir()], list[execsrv.sync.RemotePath])
        with path.open() as file:
            assert_type(file, execsrv.sync.RemoteFile)
        assert_type(next(client.map([["ls"]], errors="replace")), execsrv.Result[str])
        for result in client.map([["ls"]], text=True):
            assert_type(result, execsrv.Result[str])
        with execsrv.sync.replwrap.bash(client) as shell:
            assert_type(shell.run_command("ls"), str)
    lasting = execsrv.sync.connect("unix:///tmp/a", reconnect=5)
    lasting.close()


async def awaited() -> None:
    async with execsrv.asyncio.launch(["execsrv", "serve"]) as client:
        assert_type(client, execsrv.asyncio.Client)
        assert_type(await client.run(["ls"]), execsrv.Result[bytes])
        assert_type((await execsrv.asyncio.run(["ls"], text=True, timeout=5)).stdout, str)
        async with client.start(["cat"], stdin=True) as process:
            assert_type(process, execsrv.asyncio.Process)
            assert_type(process.argv, list[str])
            assert_type(await process.wait(), execsrv.Exited)
            assert_type(await process.stdout.readline(), bytes)
            await process.stdin.write(b"")
            assert_type([line async for line in process.lines()], list[str])
        task = asyncio.create_task(client.start(["cat"]))
        assert_type(await task, execsrv.asyncio.Process)
        process = await client.start(["cat"])
        assert_type(process, execsrv.asyncio.Process)
        await process.close()
        path = client.files.path("/tmp")
        assert_type(await path.read_text(), str)
        async for result in client.map([["ls"]], return_errors=True):
            assert_type(result, execsrv.Result[bytes] | execsrv.CommandError)
    lasting = await execsrv.asyncio.connect_unix("/tmp/a")
    await lasting.close()
