"""Races on purpose: what happens at the same time as something else, or is broken off in its middle.

`RACES=50` runs fifty times as many rounds.
"""

from __future__ import annotations

import gc
import json
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import execsrv
from execsrv._processes.supervisor import Supervisor
from execsrv._server.single_connection import serve_connection
from execsrv._wire.memory import open_memory_pair
from execsrv.protocol import METHODS, Failure, Notification, Request
from tests.cancelling import cancelled_after
from tests.conftest import Server
from tests.peers import ENV, PATIENCE, Peer, b64, open_peer
from tests.processes import new_mark, until_gone, until_marked
from tests.test_protocol_page import EXCHANGES, FOLDER, WEB

ROUNDS = int(os.environ.get("RACES", "1"))
LINES = b"".join(b"%07d\n" % number for number in range(40_000))

pytestmark = pytest.mark.timeout(120 * ROUNDS)


def check_told(peer: Peer, id: str) -> None:
    """Numbered without a hole; exited, then closed, as the last."""
    told = peer.told(id)
    assert [params["seq"] for _, params in told] == list(range(1, len(told) + 1))
    assert [name for name, _ in told if name in ("exited", "closed")] == ["exited", "closed"]
    assert told[-1][0] == "closed"


@pytest.mark.few
@pytest.mark.parametrize("tty", [False, True])
async def test_output_of_programs_that_exit_at_once(server: Server, tty: bool) -> None:
    chance = random.Random(f"{tty}")
    script = f"{'stty raw; ' if tty else ''}seq -f %07.0f 0 39999 | head -c "
    for _ in range(ROUNDS):
        async with server.open_peer() as peer:
            await peer.handshake()
            sizes = {f"p{number}": int(300_000 ** chance.random()) for number in range(60)}
            for id, size in sizes.items():
                # Some of them straight from the leader, some from its child.
                exec = "exec " if chance.random() < 0.5 else ""
                argv = ["sh", "-c", f"{exec}sh -c '{script}{size}'"]
                await peer.start(id, argv, tty=tty)
                if chance.random() < 0.3:
                    await peer.until_told(id, "closed")
            for id, size in sizes.items():
                await peer.until_told(id, "closed")
                check_told(peer, id)
                assert peer.output(id) == LINES[:size]


DURING: dict[str, Callable[[str], dict[str, Any]]] = {
    "process/terminate": lambda id: {"processId": id},
    "process/signal": lambda id: {"processId": id, "signal": "TERM", "target": "tree"},
    "process/resize": lambda id: {"processId": id, "rows": 30, "cols": 90},
    "process/closeStdin": lambda id: {"processId": id},
    "process/write": lambda id: {"processId": id, "chunk": b64(b"x\n"), "writeId": "1"},
    "process/snapshot": lambda id: {"processId": id},
    "process/read": lambda id: {"processId": id, "waitMs": 50},
    "process/wait": lambda id: {"processId": id, "timeoutMs": 50},
    "process/waitFor": lambda id: {"processId": id, "output": [b64(b"end")], "treeEmpty": True, "timeoutMs": 50},
    "process/ack": lambda id: {"processId": id, "seq": 1},
    "process/list": lambda id: {},
}


@pytest.mark.few(30)
@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("method", DURING)
async def test_calls_while_it_starts_and_while_it_exits(server: Server, method: str, tty: bool) -> None:
    """All at once, and then again and again until it is closed: no fault of ours, and an orderly end."""
    peer = await server.peer()
    params = DURING[method]
    for number in range(5 * ROUNDS):
        id = f"p{number}"
        script = "exit 3" if number % 2 else "sleep 0.01; echo end; exit 3"
        start = peer.start_params(id, ["sh", "-c", script], tty=tty, pipeStdin=True, timeoutMs=10_000)
        asked = [await peer.post("process/start", start), await peer.post(method, params(id))]
        with trio.fail_after(PATIENCE):
            while not any(name == "closed" for name, _ in peer.told(id)):
                asked.append(await peer.post(method, params(id)))
                await peer.answer(asked[-1])
        asked.append(await peer.post(method, params(id)))
        for request in asked:
            answer = await peer.answer(request)
            if isinstance(answer, Failure):
                assert answer.error.code == -32600 or (method, tty) == ("process/resize", False), answer
        check_told(peer, id)


def on_the_pages(method: str, folder: str) -> tuple[list[str], Any]:
    """The first parameters that the documentation shows for a method, and the commands that make what they name."""
    lines = next(lines for lines in EXCHANGES if any(f'"method":"{method}"' in line for line in lines))
    # A port that nobody listens on: this is about the call, not about what is relayed.
    lines = [line.replace(FOLDER, folder).replace(WEB, "127.0.0.1:9") for line in lines]
    request = next(line for line in lines if f'"method":"{method}"' in line)
    shell = [line[2:] for line in lines if line.startswith("$ ") and not line.startswith("$ execsrv")]
    return shell, json.loads(request[3:]).get("params", {})


@pytest.mark.parametrize("transport", ["stdio", pytest.param("websocket", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", METHODS)
async def test_hanging_up_in_the_middle_of_every_call(server: Server, method: str, tmp_path: Path) -> None:
    mark = new_mark()
    folder = tmp_path / "folder"
    folder.mkdir()
    argv = ["bash", "-c", f"exec -a {mark} sleep 1000"]
    start = {"argv": argv, "cwd": "/", "env": ENV, "tty": False}
    many: dict[str, dict[str, Any]] = {
        **{name: params("a") for name, params in DURING.items()},
        "process/start": {**start, "processId": "b"},
        "initialize": {"clientName": "again"},
        "command/exec": start,
        "command/exec/write": {"sessionId": "session-1", "chunk": b64(bytes(100_000))},
        "command/exec/terminate": {"sessionId": "session-1"},
    }
    if method not in many:
        shell, many[method] = on_the_pages(method, str(folder))
        for line in shell:
            await trio.run_process(["sh", "-c", line])
    neighbour = await server.peer()
    for number in range(3 * ROUNDS):
        async with server.open_channel() as channel:
            await channel.send(Request(1, "initialize", {"clientName": "x"}))
            if method != "initialize" or number:
                await channel.send(Notification("initialized"))
                await channel.send(Request(2, "process/start", {**start, "processId": "a", "pipeStdin": True}))
                if number == 2:
                    await until_marked(mark, 1)
                for again in range(3):
                    await channel.send(Request(3 + again, method, many[method]))
        await until_gone(mark)
    # A start that was still on its way is dealt with before the neighbour's.
    assert await neighbour.run("n", ["echo", "alive"]) == (0, b"alive\n", b"")
    await until_gone(mark)


async def at_every_step(run: Callable[[list[str]], Awaitable[None]], mark: str, stride: int = 1) -> None:
    """Cancel a whole run at its first checkpoint, at its second, and so on, until it comes to its end; nothing of it
    is left, neither a process nor a descriptor."""
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    steps, seen = 1, [""]
    while seen[-1] != "ended":
        seen = [""]
        with cancelled_after(steps):
            await run(seen)
        await until_gone(mark)
        steps += stride
        assert steps < 5000
    assert sorted(os.listdir("/proc/self/fd")) == before


async def test_a_server_cancelled_at_every_step() -> None:
    """The peer is not: it is the server's tasks that are cancelled under it."""
    mark = new_mark()

    async def run(seen: list[str]) -> None:
        ours, theirs = open_memory_pair(100)
        start = {"argv": ["bash", "-c", f"exec -a {mark} sleep 1000"], "cwd": "/", "env": ENV, "tty": False}
        for message in (
            Request(1, "initialize", {"clientName": "x"}),
            Notification("initialized"),
            Request(2, "process/start", {**start, "processId": "a", "pipeStdin": True}),
            Request(3, "process/start", {**start, "processId": "b", "tty": True, "timeoutMs": 60_000}),
            Request(4, "process/write", {"processId": "a", "chunk": b64(bytes(200_000)), "writeId": "1"}),
            Request(5, "process/wait", {"processId": "a"}),
            Request(6, "process/terminate", {"processId": "a", "mode": {"graceful": {"timeoutMs": 1000}}}),
            Request(7, "process/read", {"processId": "b", "waitMs": 1000}),
            Request(8, "process/terminate", {"processId": "b"}),
        ):
            await ours.send(message)
        async with trio.open_nursery() as nursery, open_peer(ours) as peer:
            nursery.start_soon(serve_connection, theirs, Supervisor())
            await peer.until_told("a", "closed")
            await peer.until_told("b", "closed")
            seen.append("ended")
            nursery.cancel_scope.cancel()

    await at_every_step(run, mark)


async def _start(client: execsrv.Client, mark: str) -> None:
    async with client.start(["bash", "-c", f"exec -a {mark} sleep 1000"], tty=True) as process:
        await process.terminate(grace=5)
        await process.wait()


async def _start_with_key(client: execsrv.Client, mark: str) -> None:
    async with client.start(["bash", "-c", f"exec -a {mark} sleep 1000"], key=os.urandom(8).hex()):
        await until_marked(mark, 1)


async def _write(client: execsrv.Client, mark: str) -> None:
    async with client.start(["bash", "-c", f"exec -a {mark} cat"], stdin=True) as process:
        await process.write(bytes(300_000))
        await process.close_stdin()
        size = 0
        async for chunk in process.output:
            size += len(chunk)
        assert size == 300_000


async def _run(client: execsrv.Client, mark: str) -> None:
    await client.run(["bash", "-c", f"exec -a {mark} cat"], input=b"x", timeout=60)


@pytest.mark.few(3)
@pytest.mark.parametrize("how", [_start, _start_with_key, _write, _run])
@pytest.mark.parametrize("transport", ["memory", "unix", "websocket"])
async def test_a_client_cancelled_at_every_step(
    server: Server, transport: str, how: Callable[[execsrv.Client, str], Awaitable[None]]
) -> None:
    """Its connection lives on: leaving the block of a process ends that process, wherever it was."""
    mark = new_mark()
    client = await server.client()
    await client.run(["true"])
    steps, ended = 1, False
    while not ended:
        with cancelled_after(steps):
            await how(client, mark)
            ended = True
        await until_gone(mark)
        steps += 1
        assert steps < 2000
    assert (await client.run(["echo", "on"])).stdout == b"on\n"
    assert repr(client) == "<Client connected processes=0>"
