"""Types of the client and of what it gives back."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Literal, assert_type

import trio

import execsrv


async def running(client: execsrv.Client) -> None:
    result = await client.run(
        ["ls", Path("/tmp")],
        input=b"",
        timeout=5,
        check=True,
        cwd=Path("/"),
        env={"A": "1"},
        env_add={"B": "2"},
        env_remove=["C"],
        stdout=execsrv.PIPE,
        stderr=execsrv.STDOUT,
        truncate=True,
        tty=True,
        size=(24, 80),
        arg0="list",
        idle_timeout=1.5,
        overflow="drop",
        prepared=False,
        max_bytes=10,
    )
    assert_type(result, execsrv.Result)
    assert_type(result.argv, list[str])
    assert_type(result.exit_code, int)
    assert_type(result.signal, str | None)
    assert_type(result.stdout, bytes)
    assert_type(result.totals, dict[Literal["stdout", "stderr", "pty"], int])
    assert_type(result.check(), execsrv.Result)
    assert_type(client.connection_id, str)
    assert_type(client.info.cwd, str | None)
    assert_type(result.text, str)
    assert_type(result.lines, list[str])
    text = await client.run(["sort"], input="b\na\n", text=True)
    assert_type(text, execsrv.Result[str])
    assert_type(text.stdout, str)
    assert_type(text.check(), execsrv.Result[str])
    assert_type(await client.run(["sort"], encoding="latin-1"), execsrv.Result[str])
    assert_type(await client.run(["sort"], errors="replace"), execsrv.Result[str])
    assert_type(await execsrv.run(["sort"], errors="replace"), execsrv.Result[str])
    assert_type(await anext(client.map([["sort"]], encoding="latin-1")), execsrv.Result[str])
    assert_type(await anext(client.map([["sort"]], errors="replace")), execsrv.Result[str])
    assert_type(await anext(client.map([["sort"]], text=bool(text.lines))), execsrv.Result[Any])
    assert_type(await anext(client.map([["sort"]], text=False)), execsrv.Result[bytes])
    each = await anext(client.map([["sort"]], text=True, return_errors=True))
    assert_type(each, execsrv.Result[str] | execsrv.CommandError)
    assert_type(await client.run(["sort"], text=False, stdout="/tmp/out"), execsrv.Result[bytes])
    for listed in await client.processes():
        assert_type(listed.pid, int | None)


async def starting(client: execsrv.Client) -> None:
    async with client.start(("cat",), stdin=True, timeout=5, cwd="/") as process:
        assert_type(process, execsrv.Process)
        assert_type(process.argv, list[str])
        assert_type(process.pid, int | None)
        assert_type(process.exit_code, int | None)
        assert_type(process.returncode, int | None)
        assert_type(process.signal, str | None)
        assert_type(process.closed, execsrv.Closed | None)
        assert_type(await process.terminate(), bool)
        assert_type(await process.terminate(grace=2), bool)
        assert_type(await process.kill(), bool)
        assert_type(await process.send_signal("HUP"), int)
        assert_type(await process.send_signal(signal.SIGHUP, "tree"), int)
        assert_type((await process.communicate(b"", max_bytes=5)).exit_code, int)
        exited = await process.wait()
        assert_type(exited, execsrv.Exited)
        assert_type(exited.exit_code, int)
        await process.write(b"")
        await process.write(bytearray())
        await process.write(memoryview(b""))
        async for data in process.output:
            assert_type(data, bytes)
        async for line in process.lines("stderr", errors="replace"):
            assert_type(line, str)
        async for piece in process.text():
            assert_type(piece, str)
        sending: trio.abc.SendStream = process.stdin
        receiving: trio.abc.ReceiveStream = process.stdout
        assert_type(await process.stderr.receive_some(5), bytes)
        print(sending, receiving)
        async for event in process.events():
            assert_type(event, execsrv.Chunk | execsrv.Gap | execsrv.Exited | execsrv.Closed)
            match event:
                case execsrv.Chunk():
                    assert_type(event.chunk, bytes)
                case execsrv.Gap():
                    assert_type(event.omitted, dict[Literal["stdout", "stderr", "pty"], int])
                case execsrv.Exited():
                    assert_type(event.signal, str | None)
                case execsrv.Closed():
                    assert_type(event.seq, int)
        assert_type(await process.next_event(), execsrv.Event | None)
        snapshot = await process.snapshot()
        assert_type(snapshot.running, bool)


async def wrong(client: execsrv.Client) -> None:
    await client.run(["true"], cdw="/")  # type: ignore[call-overload]
    await client.run(["true"], tty="yes")  # type: ignore[call-overload]
    await client.run(["true"], input="text")  # type: ignore[call-overload]
    client.map([["true"]], record="a.cast")  # type: ignore[call-overload]
    client.map([["true"]], return_errors=True, cdw="/")  # type: ignore[call-overload]
    await client.run(["echo", 5])  # type: ignore[list-item]
    await client.run(["true"], env={"A": 1})  # type: ignore[dict-item]
    async with client.start(["true"], overflow="lose") as process:  # type: ignore[arg-type]
        await process.write(5)  # type: ignore[arg-type]
        await process.send_signal("HUP", "all")  # type: ignore[arg-type]
        await process.send_signal(1.5)  # type: ignore[arg-type]
        process.pid = 5  # type: ignore[misc]
    execsrv.Process("p1")  # type: ignore[arg-type, call-arg]
    execsrv.Client(5)  # type: ignore[arg-type]
