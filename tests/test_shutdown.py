"""What is told at the end of a connection and of a server, and in which order things end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from execsrv import PIPE, NotReadyError, connect_unix
from execsrv.limits import ServerConfig
from execsrv.protocol import Notification
from tests.conftest import OpenServer
from tests.peers import ENV, PATIENCE, Peer, b64
from tests.processes import marked, new_mark, until_gone, until_marked
from tests.test_daemon import EXECSRV


def polite(file: Path) -> list[str]:
    """Ends on SIGTERM, in its own time, and leaves a word."""
    return ["sh", "-c", f"trap 'echo bye; touch {file}; exit 3' TERM; echo ready; while :; do sleep 0.02; done"]


def deaf(mark: str) -> list[str]:
    script = f"trap '' TERM INT HUP; (exec -a {mark} sleep 1000) & echo ready; while :; do sleep 0.1; done"
    return ["bash", "-c", script]


@pytest.mark.parametrize("transport", ["unix", "stdio"])
async def test_who_says_no_more_is_told_how_it_ended(open_server: OpenServer, transport: str) -> None:
    mark = new_mark()
    # A busy machine takes its time to end what is killed.
    out, into = await open_server(transport, ServerConfig(flush_timeout=PATIENCE)).streams()
    start = {"processId": "a", "argv": deaf(mark), "cwd": "/", "env": ENV, "tty": False}
    wait = {"processId": "a"}
    messages: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": {"clientName": "x"}},
        {"method": "initialized"},
        {"id": 2, "method": "process/start", "params": start},
        {"id": 3, "method": "process/wait", "params": wait},
    ]
    await out.send_all(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
    await until_marked(mark, 1)
    if isinstance(out, trio.SocketStream):
        await out.send_eof()
    else:
        await out.aclose()
    heard = b""
    with trio.fail_after(PATIENCE):
        while data := await into.receive_some():
            heard += data
    await into.aclose()
    told = [json.loads(line) for line in heard.splitlines()]
    ends = [message["params"] for message in told if message.get("method") == "process/exited"]
    assert [(end["exitCode"], end["reason"]) for end in ends] == [(137, "disconnected")]
    assert [message["result"]["reason"] for message in told if message.get("id") == 3] == ["disconnected"]
    assert told[-1].get("method") == "process/closed" or told[-2].get("method") == "process/closed"
    await until_gone(mark)


async def test_a_server_that_ends_asks_first_and_tells(open_server: OpenServer, transport: str, tmp_path: Path) -> None:
    server = open_server(transport, ServerConfig(shutdown_grace_period=600))
    peer = await server.peer()
    await peer.start("polite", polite(tmp_path / "bye"))
    await peer.until_output("polite", b"ready")
    server.shutdown.set()
    await peer.until_ended()
    end = await peer.until_told("polite", "exited")
    assert (end["exitCode"], end["reason"]) == (3, "shutdown")
    assert b"bye\n" in peer.output("polite", "stdout")


async def test_who_does_not_end_has_the_grace_and_no_more(open_server: OpenServer, transport: str) -> None:
    mark = new_mark()
    server = open_server(transport, ServerConfig(shutdown_grace_period=0.5, flush_timeout=30))
    peer = await server.peer()
    await peer.start("deaf", deaf(mark))
    await peer.start("unread", ["yes"], windowBytes=1)
    await peer.until_output("deaf", b"ready")
    await peer.until_told("unread", "output")
    began = trio.current_time()
    server.shutdown.set()
    await peer.until_ended()
    assert trio.current_time() - began >= 0.5
    ends = {id: await peer.until_told(id, "exited") for id in ("deaf", "unread")}
    assert {id: (end["exitCode"], end["reason"]) for id, end in ends.items()} == {
        "deaf": (137, "shutdown"),
        "unread": (143, "shutdown"),
    }
    assert not marked(mark)


async def test_a_server_that_has_nothing_to_wait_for_does_not(open_server: OpenServer, transport: str) -> None:
    server = open_server(transport, ServerConfig(shutdown_grace_period=600))
    peer, silent = await server.peer(), await server.peer(ready=False)
    await peer.start("a", ["sleep", "1000"])
    server.shutdown.set()
    assert (await peer.until_told("a", "exited"))["reason"] == "shutdown"
    await peer.until_ended()
    await silent.until_ended()


@pytest.mark.parametrize("transport", ["unix", "websocket"])
async def test_connections_without_a_channel_have_the_grace_too(
    open_server: OpenServer, transport: str, tmp_path: Path
) -> None:
    """All at the same time: one that needs all of it must not cost the others theirs."""
    mark = new_mark()
    server = open_server(transport, ServerConfig(shutdown_grace_period=3, flush_timeout=0.1, resume_grace=600))
    for number in range(4):
        async with server.open_peer() as peer:
            await peer.handshake()
            await peer.start("deaf", deaf(mark))
            await peer.start("polite", polite(tmp_path / str(number)))
            await peer.until_output("deaf", b"ready")
            await peer.until_output("polite", b"ready")
    await until_marked(mark, 4)
    last = await server.peer()
    server.shutdown.set()
    await last.until_ended()
    await until_gone(mark)
    assert {"0", "1", "2", "3"} <= set(os.listdir(tmp_path))


# -- before the end --


async def test_every_peer_is_told_that_the_server_ends(open_server: OpenServer, transport: str) -> None:
    server = open_server(transport, ServerConfig(shutdown_grace_period=30))
    peer, idle, unready = await server.peer(), await server.peer(), await server.peer(ready=False)
    await unready.call("initialize", {"clientName": "x"})
    await peer.start("a", ["sh", "-c", "trap 'sleep 0.1; exit' TERM; echo ready; while :; do sleep 0.02; done"])
    await peer.until_output("a", b"ready")
    server.shutdown.set()
    for each in (peer, idle, unready):
        await each.until_ended()
    assert [0 < left <= 30_000 for left in notices(peer)] == [True]
    assert len(notices(idle)) == 1
    assert not notices(unready), "it has not said yet that it listens"


def notices(peer: Peer) -> list[int]:
    """What it was told of the time that is left."""
    told = [message for message in peer.heard if isinstance(message, Notification)]
    return [message.params["timeLeftMs"] for message in told if message.method == "server/shutdown"]


async def test_what_runs_may_go_on_for_a_while(open_server: OpenServer, transport: str) -> None:
    server = open_server(transport, ServerConfig(drain_period=600, resume_grace=600))
    peer = await server.peer()
    await peer.start("a", ["cat"], pipeStdin=True)
    server.shutdown.set()
    await peer.until(lambda: notices(peer))
    assert [590_000 < left <= 602_000 for left in notices(peer)] == [True]
    code, message, data = await peer.refused("process/start", peer.start_params("b", ["true"]))
    assert (code, message) == (-32600, "the server is shutting down: it starts nothing any more")
    assert data == {"kind": "not-ready"}
    await peer.call("process/write", {"processId": "a", "chunk": b64(b"still here\n"), "writeId": "1"})
    await peer.until_output("a", b"still here\n")
    if transport in ("unix", "websocket"):
        async with server.open_peer() as late:
            _, message, _ = await late.refused("initialize", {"clientName": "x"})
            assert message == "the server is shutting down"
    assert not peer.ended
    await peer.call("process/closeStdin", {"processId": "a"})
    assert (await peer.until_told("a", "exited"))["reason"] == "exited"
    await peer.until_ended()


async def test_a_drain_has_an_end(open_server: OpenServer, transport: str) -> None:
    server = open_server(transport, ServerConfig(drain_period=0.2))
    peer = await server.peer()
    await peer.start("a", ["sleep", "1000"])
    server.shutdown.set()
    assert (await peer.until_told("a", "exited"))["reason"] == "shutdown"
    await peer.until_ended()


async def test_a_second_signal_ends_the_drain(tmp_path: Path) -> None:
    mark = new_mark()
    argv = [*EXECSRV, "serve", "--listen", f"unix://{tmp_path}/s", "--drain-period", "600"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as server:  # noqa: ASYNC220
        try:
            assert server.stdout is not None
            server.stdout.readline()
            async with (
                connect_unix(f"{tmp_path}/s") as client,
                client.start(["bash", "-c", f"exec -a {mark} sleep 1000"]) as process,
            ):
                await until_marked(mark, 1)
                server.send_signal(signal.SIGTERM)
                with trio.fail_after(PATIENCE), pytest.raises(NotReadyError) as refused:
                    while True:
                        await client.run(["true"])
                assert "the server is shutting down" in str(refused.value)
                assert process.exit_code is None
                server.send_signal(signal.SIGTERM)
                await process.wait()
                assert process.reason == "shutdown"
            assert server.wait(PATIENCE) == 0
        finally:
            server.kill()


async def test_a_client_knows_that_its_server_ends(open_server: OpenServer) -> None:
    server = open_server("unix", ServerConfig(drain_period=600))
    client = await server.client()
    async with client.start(["cat"], stdin=PIPE) as process:
        assert client.server_ends_in is None
        server.shutdown.set()
        with trio.fail_after(PATIENCE):
            while client.server_ends_in is None:  # noqa: ASYNC110  # it is told, and waited for by nobody
                await trio.sleep(0.01)
        assert 500 < client.server_ends_in <= 601
        await process.stdin.aclose()
        assert (await process.wait()).exit_code == 0
