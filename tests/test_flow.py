"""Back-pressure: nothing is lost, nothing grows, and nobody waits for somebody else's reader."""

from __future__ import annotations

import base64
import os
import sys
from typing import Any

import pytest
import trio

import execsrv
from execsrv._wire.channel import MessageChannel
from execsrv.limits import MIB, ClientConfig, ServerConfig
from execsrv.protocol import Notification, Request
from tests.conftest import Daemon, Server
from tests.peers import ENV, Peer, plain


class Deaf:
    """A peer that reads its channel only when told to."""

    def __init__(self, channel: MessageChannel) -> None:
        self.channel = channel

    async def start(self, id: str, argv: list[str], **params: Any) -> None:
        await self.channel.send(Request(1, "initialize", {"clientName": "deaf"}))
        await self.channel.send(Notification("initialized"))
        start = {"processId": id, "argv": argv, "cwd": "/", "env": ENV, "tty": False, **params}
        await self.channel.send(Request(2, "process/start", start))


async def test_a_peer_that_never_reads_costs_a_bounded_amount(daemon: Daemon) -> None:
    peer = await daemon.peer()
    await peer.run("warm", ["head", "-c", "3000000", "/dev/zero"])
    async with daemon.open_channel() as channel:
        deaf = Deaf(channel)
        before = daemon.resident()
        await deaf.start("a", ["sh", "-c", "head -c 200000000 /dev/zero"])
        for number in range(20):
            code, out, _ = await peer.run(f"p{number}", ["echo", "not delayed"])
            assert (code, out) == (0, b"not delayed\n")
        assert daemon.resident() - before < 16 * MIB


@pytest.mark.few(3)
@pytest.mark.parametrize("tty", [False, True])
async def test_a_slow_reader_gets_every_byte(server: Server, tty: bool) -> None:
    size = 6_000_000
    peer = await server.peer()
    argv = ["sh", "-c", f"{'stty raw -echo; ' if tty else ''}yes abcdefgh | head -c {size}"]
    got, closed = bytearray(), False
    async with server.open_channel() as channel:
        await Deaf(channel).start("a", argv, tty=tty)
        # The other connection is served while this one waits to be read.
        assert await peer.run("p", ["echo", "hi"]) == (0, b"hi\n", b"")
        with trio.fail_after(60):
            while not closed:
                message = await channel.receive()
                assert message is not None
                if isinstance(message, Notification):
                    if message.method == "process/output":
                        got += base64.b64decode(plain(message.params)["chunk"])
                    closed = message.method == "process/closed"
    assert got == (b"abcdefgh\n" * (size // 9 + 1))[:size]


@pytest.mark.few
async def test_a_window_holds_one_process_and_no_other(server: Server) -> None:
    """On one connection, a process whose output is not acknowledged waits, and its neighbours do not."""
    peer = await server.peer()
    size = 3 * MIB
    await peer.start("held", ["head", "-c", str(size), "/dev/zero"], windowBytes=100_000)
    await peer.until_told("held", "output")
    await peer.run("other", ["head", "-c", str(size), "/dev/zero"])
    assert len(peer.output("other")) == size
    held = len(peer.output("held"))
    assert held <= 100_000 + 65_536
    while "closed" not in [name for name, _ in peer.told("held")]:
        seq = peer.told("held")[-1][1]["seq"]
        assert await peer.call("process/ack", {"processId": "held", "seq": seq}) == {}
    assert len(peer.output("held")) == size
    assert (await peer.refused("process/ack", {"processId": "zz", "seq": 1}))[2]["kind"] == "unknown-process"
    assert (await peer.refused("process/ack", {"processId": "held", "seq": -1}))[0] == -32602


async def test_the_client_acknowledges_for_itself(server: Server) -> None:
    client = await server.client()
    size = 5 * MIB
    async with client.start(["head", "-c", str(size), "/dev/zero"]) as unread:
        result = await client.run(["head", "-c", str(size), "/dev/zero"])
        assert len(result.stdout) == size
        got = 0
        async for chunk in unread.output:
            got += len(chunk)
        assert got == size
    # Many tiny pieces fill a window as well as a few large ones.
    script = "import os\nfor _ in range(6000): os.write(1, b'x')"
    result = await client.run([sys.executable, "-I", "-S", "-c", script])
    assert len(result.stdout) == 6000


@pytest.mark.parametrize("window", [1, 1000, 70_000])
async def test_a_window_may_be_small(server: Server, window: int) -> None:
    client = await server.client(ClientConfig(window_bytes=window))
    with trio.fail_after(60):
        assert len((await client.run(["head", "-c", "1000000", "/dev/zero"])).stdout) == 1_000_000


async def test_leaving_a_process_unread_is_possible(server: Server) -> None:
    client = await server.client()
    with trio.fail_after(20):
        async with client.start(["sh", "-c", "yes"]) as process:
            first = await process.next_event()
            assert first is not None
        assert (await client.run(["echo", "on"])).stdout == b"on\n"


async def test_retention_is_bounded(open_server: Any) -> None:
    server = open_server("memory", ServerConfig(retained_output_bytes_per_session=200_000))
    peer = await server.peer()
    await peer.run("a", ["sh", "-c", "head -c 3000000 /dev/zero"])
    read = await peer.call("process/read", {"processId": "a"})
    kept = sum(len(base64.b64decode(chunk["chunk"])) for chunk in read["chunks"])
    assert 0 < kept <= 200_000
    assert read["chunks"][0]["seq"] > 1
    assert read["chunks"][-1]["seq"] == read["nextSeq"] - 3


@pytest.mark.few
async def test_unread_answers_hold_the_asker_and_nobody_else(daemon: Daemon) -> None:
    """A peer that asks and asks without reading is not read either, at some point: long before it has asked for
    100 MB, and then it gets nowhere, however long it tries."""
    peer = await daemon.peer()
    async with daemon.open_channel() as channel:
        before = daemon.resident()
        await channel.send(Request(0, "initialize", {"clientName": "x" * 1000}))
        for number in range(125_000):
            with trio.move_on_after(0.5) as patience:
                await channel.send(Request(number, "nonsense" * 100))
            if patience.cancelled_caught:
                break
        assert patience.cancelled_caught
        assert daemon.resident() - before < 30 * MIB
        assert await peer.run("p", ["echo", "hi"]) == (0, b"hi\n", b"")


async def test_a_gigabyte_would_fit_through_cat(server: Server) -> None:
    """8 MiB here; the figure for a gigabyte is a benchmark's."""
    client = await server.client()
    data = os.urandom(8 * MIB)
    result = await client.run(["cat"], input=data)
    assert result.stdout == data


async def test_processes_of_one_connection_share_it_fairly(peer: Peer) -> None:
    await peer.start("greedy", ["sh", "-c", "yes"])
    await peer.until(lambda: len(peer.output("greedy")) > 1_000_000)
    assert await peer.run("modest", ["echo", "hi"]) == (0, b"hi\n", b"")
    assert await peer.call("process/terminate", {"processId": "greedy"}) == {"running": True}
    await peer.until_told("greedy", "closed")


def test_limits_are_frozen() -> None:
    with pytest.raises(AttributeError):
        execsrv.Limits().max_message_bytes = 1  # type: ignore[misc]
