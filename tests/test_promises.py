"""What a session is promised beyond start and output: how it is ended, what it may hold, and that it can be resumed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from execsrv import connect_websocket, serve
from execsrv._log.log import Gap
from execsrv.limits import ServerConfig
from execsrv.protocol import Chunk
from tests.conftest import OpenServer
from tests.peers import PATIENCE, Peer, b64
from tests.processes import new_mark, until_gone, until_marked
from tests.relay import Line, open_line

PYTHON = sys.executable


# -- ends --


async def test_who_remains_is_told_and_terminated(peer: Peer) -> None:
    mark = new_mark()
    await peer.start("a", ["bash", "-c", f"(exec -a {mark} sleep 1000) >/dev/null 2>&1 & echo"])
    closed = await peer.until_told("a", "closed")
    assert len(closed["remaining"]) == 1
    await until_marked(mark, 1)
    assert await peer.call("process/terminate", {"processId": "a"}) == {"running": False}
    await until_gone(mark)


@pytest.mark.parametrize("mode", ["force", {"graceful": {"timeoutMs": 60_000}}])
async def test_the_end_of_a_tree_reaches_other_sessions(peer: Peer, mode: Any) -> None:
    mark = new_mark()
    await peer.start("a", ["bash", "-c", f"setsid bash -c 'echo ready; exec -a {mark} sleep 1000' & wait"])
    await until_marked(mark, 1)
    await peer.call("process/terminate", {"processId": "a", "mode": mode})
    await peer.until_told("a", "closed")
    await until_gone(mark)


async def test_a_graceful_end_asks_first_and_kills_after_the_grace(peer: Peer) -> None:
    polite = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 1 & wait; done"
    await peer.start("polite", ["sh", "-c", polite])
    await peer.start("deaf", ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done"])
    for id, milliseconds in (("polite", 60_000), ("deaf", 100)):
        await peer.until_output(id, b"ready\n")
        mode = {"graceful": {"timeoutMs": milliseconds}}
        assert await peer.call("process/terminate", {"processId": id, "mode": mode}) == {"running": True}
    exited = await peer.until_told("polite", "exited")
    assert (exited["exitCode"], exited["signal"], exited["reason"]) == (7, None, "terminated")
    assert peer.output("polite") == b"ready\nbye\n"
    exited = await peer.until_told("deaf", "exited")
    assert (exited["exitCode"], exited["signal"], exited["reason"]) == (137, "SIGKILL", "terminated")


@pytest.mark.parametrize("tty", [False, True])
async def test_deadlines_end_a_command_with_its_output(open_server: OpenServer, tty: bool) -> None:
    peer = await open_server("unix", ServerConfig()).peer()
    script = "stty -opost 2>/dev/null; head -c 100000 /dev/zero | tr '\\0' x; exec sleep 1000"
    await peer.start("time", ["sh", "-c", script], tty=tty, timeoutMs=5000)
    await peer.start("idle", ["sh", "-c", script], tty=tty, idleTimeoutMs=5000)
    for id, reason in (("time", "timeout"), ("idle", "idle")):
        exited = await peer.until_told(id, "exited")
        assert (exited["exitCode"], exited["reason"]) == (143, reason)
        assert len(peer.output(id)) == 100_000
        await peer.until_told(id, "closed")


async def test_a_slow_reader_is_not_an_idle_command(open_server: OpenServer) -> None:
    peer = await open_server("unix", ServerConfig()).peer()
    script = "echo one; read line; echo two"
    await peer.start("a", ["sh", "-c", script], windowBytes=1, idleTimeoutMs=1500, pipeStdin=True)
    await peer.until_output("a", b"one\n")
    await peer.call("process/write", {"processId": "a", "chunk": b64(b"\n"), "writeId": "1"})
    # Its last words wait for room longer than it may be idle.
    waited = await peer.call("process/read", {"processId": "a", "afterSeq": 1, "waitMs": 3000})
    assert waited["chunks"] == []
    await peer.call("process/ack", {"processId": "a", "seq": 1})
    await peer.until_output("a", b"two\n")
    await peer.call("process/ack", {"processId": "a", "seq": 2})
    assert (await peer.until_told("a", "exited"))["reason"] == "exited"


# -- bounds --


async def test_a_process_that_drops_waits_for_nobody(peer: Peer) -> None:
    """It ends although nobody acknowledges anything, and what was heard and what was left out is all."""
    size = 3_000_000
    script = f"head -c {size} /dev/zero | tr '\\0' x"
    await peer.start("a", ["sh", "-c", script], windowBytes=100_000, overflow="drop")
    closed = await peer.until_told("a", "closed")
    assert closed["totals"] == {"stdout": size, "stderr": 0}
    omitted = sum(told["omitted"]["stdout"] for what, told in peer.told("a") if what == "gap")
    assert len(peer.output("a")) + omitted == size
    assert len(peer.output("a")) < 100_000 * 3 + 65536 * 3
    last = 0
    for _, told in peer.told("a"):
        assert told.get("fromSeq", told["seq"]) == last + 1
        last = told["seq"]


async def test_input_that_nobody_reads_is_bounded(open_server: OpenServer, transport: str) -> None:
    peer = await open_server(transport, ServerConfig(queued_stdin_bytes=100_000)).peer()
    await peer.start("a", ["sleep", "1000"], pipeStdin=True)
    params = {"processId": "a", "chunk": b64(bytes(2_000_000))}
    first = await peer.post("process/write", {**params, "writeId": "1"})
    code, _, data = await peer.refused("process/write", {**params, "writeId": "2"})
    assert (code, data) == (-32600, {"kind": "limit-exceeded", "limit": "queued_stdin_bytes", "value": 100_000})
    await peer.call("process/terminate", {"processId": "a"})
    assert getattr(await peer.answer(first), "result", None) == {"status": "stdinClosed"}


# -- resuming --


@asynccontextmanager
async def open_cuttable(config: ServerConfig) -> AsyncIterator[Line]:
    """A server on a websocket with a line in front of it."""
    async with trio.open_nursery() as nursery:
        async with open_line(await nursery.start(partial(serve, "ws://127.0.0.1:0", config)), "") as line:
            yield line
        nursery.cancel_scope.cancel()


async def test_a_client_that_reconnects_sees_an_exact_stream() -> None:
    size = 20_000_000
    script = f"import sys, random; random.seed(1)\nsys.stdout.buffer.write(random.randbytes({size}))"
    wanted = hashlib.sha256()
    async with open_cuttable(ServerConfig(resume_grace=60)) as line:
        with trio.fail_after(PATIENCE):
            async with connect_websocket(line.url, reconnect=PATIENCE) as client:
                whole = await client.run([PYTHON, "-c", script])
                wanted.update(whole.stdout)
                heard, count, cuts = hashlib.sha256(), 0, 0
                async with client.start([PYTHON, "-c", script]) as process:
                    async for event in process.events():
                        assert not isinstance(event, Gap)
                        if isinstance(event, Chunk):
                            heard.update(event.chunk)
                            count += len(event.chunk)
                            if count > (cuts + 1) * 3_000_000:
                                cuts += 1
                                line.cut()
                    assert (await process.wait()).exit_code == 0
                assert (count, heard.digest()) == (size, wanted.digest())
                assert cuts == 6


async def test_a_grace_that_is_over_ends_everything() -> None:
    mark = new_mark()
    async with (
        open_cuttable(ServerConfig(resume_grace=0.5)) as line,
        connect_websocket(line.url) as client,
        client.start(["bash", "-c", f"exec -a {mark} sleep 1000"]),
    ):
        await until_marked(mark, 1)
        line.cut()
        await until_gone(mark)
