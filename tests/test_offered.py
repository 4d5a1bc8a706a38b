"""A program offers the server on a channel that it has accepted itself: behind its own login, on a route of its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from trio_websocket import WebSocketRequest, serve_websocket

import execsrv
from execsrv._nursery import open_helpers
from execsrv._wire.lines import LineChannel
from execsrv._wire.websocket import open_websocket
from execsrv.errors import ConnectionFailedError
from execsrv.limits import ServerConfig
from tests.peers import PATIENCE, open_peer
from tests.processes import marked, new_mark, until_gone, until_marked


def stream_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    ends = socket.socketpair()
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in ends)
    return ours, theirs


async def test_a_stream_is_served_until_its_peer_hangs_up() -> None:
    ours, theirs = stream_pair()
    mark = new_mark()
    async with open_helpers() as nursery:
        served = trio.Event()

        async def serve() -> None:
            await execsrv.serve_channel(theirs, identity="ada")
            served.set()

        nursery.start_soon(serve)
        async with open_peer(LineChannel(ours, ours, ServerConfig())) as peer:
            await peer.handshake()
            await peer.start("a", ["bash", "-c", f"exec -a {mark} sleep 1000"])
            await until_marked(mark, 1)
            await ours.aclose()
        with trio.fail_after(PATIENCE):
            await served.wait()
        assert not marked(mark)


@pytest.mark.parametrize(("role", "may"), [("owner", True), ("writer", False), ("viewer", False)])
async def test_the_program_says_who_it_is(role: str, may: bool) -> None:
    ours, theirs = stream_pair()
    async with execsrv.open_server() as server, open_helpers() as nursery:
        nursery.start_soon(partial(server.serve_channel, theirs, identity="ada", role=role))
        async with execsrv.connect_stdio(ours, ours) as client:
            if may:
                assert (await client.run(["echo", "x"])).stdout == b"x\n"
            else:
                with pytest.raises(execsrv.RequestError, match=role):
                    await client.run(["echo", "x"])


async def test_another_role_is_none() -> None:
    ours, theirs = stream_pair()
    async with ours, theirs:
        with pytest.raises(ValueError, match="unknown role 'root'; expected one of health, viewer, writer, owner"):
            await execsrv.serve_channel(theirs, identity="ada", role="root")


async def test_who_is_known_is_not_asked_for_a_token() -> None:
    ours, theirs = stream_pair()
    async with execsrv.open_server() as server, open_helpers() as nursery:
        nursery.start_soon(partial(server.serve_channel, theirs, identity="ada"))
        asked = b'{"id":1,"method":"initialize","params":{"clientName":"x","token":"guess"}}\n'
        async with ours:
            await ours.send_all(asked)
            assert b"this token is not one of this server" in await ours.receive_some()


async def test_leaving_the_block_ends_everything_in_order() -> None:
    ours, theirs = stream_pair()
    async with open_helpers() as nursery:
        left = trio.Event()
        ready = trio.Event()

        async def program() -> None:
            async with execsrv.open_server(ServerConfig(shutdown_grace_period=600)) as server:
                nursery.start_soon(partial(server.serve_channel, theirs, identity="ada"))
                await ready.wait()
            left.set()

        nursery.start_soon(program)
        async with execsrv.connect_stdio(ours, ours) as client:
            argv = ["sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done"]
            async with client.start(argv) as process:
                await process.wait_for(output=b"ready")
                ready.set()
                await process.wait()
                assert (process.exit_code, process.reason) == (3, "shutdown")
        await left.wait()


async def test_a_program_has_its_audit_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    async with execsrv.open_server(ServerConfig(audit_log=str(path))) as server:
        path.rename(tmp_path / "audit.1")
        await server.reload()
        assert path.exists()


async def test_others_cannot_resume_ones_connection() -> None:
    async with execsrv.open_server(ServerConfig(resume_grace=600)) as server, open_helpers() as nursery:

        async def greet(identity: str, resume: str = "") -> tuple[trio.SocketStream, bytes]:
            ours, theirs = stream_pair()
            nursery.start_soon(partial(server.serve_channel, theirs, identity=identity))
            more = f',"resumeSessionId":"{resume}"' if resume else ""
            await ours.send_all(b'{"id":1,"method":"initialize","params":{"clientName":"x"%b}}\n' % more.encode())
            with trio.fail_after(PATIENCE):
                return ours, await ours.receive_some()

        ours, answer = await greet("ada")
        id = answer.decode().partition('"sessionId":"')[2].partition('"')[0]
        await ours.aclose()
        assert id
        for _ in range(3):
            other, answer = await greet("bob", id)
            assert b'"error"' in answer
            await other.aclose()
        with trio.fail_after(PATIENCE):
            while True:
                ours, answer = await greet("ada", id)
                await ours.aclose()
                if b'"error"' not in answer:
                    break
                assert b"-32010" in answer, "it is still attached to the channel before"
        assert id.encode() in answer
        nursery.cancel_scope.cancel()


# -- websockets --


async def use(url: str) -> None:
    """Whatever goes over a websocket: text, much of it, both ways, and an end by hanging up."""
    mark = new_mark()
    async with execsrv.connect(url, token="123") as client:
        data = os.urandom(3_000_000)
        assert (await client.run(["cat"], input=data)).stdout == data
    async with open_websocket(url, ServerConfig(), "123") as channel, open_peer(channel) as peer:
        await peer.handshake()
        await peer.start("a", ["bash", "-c", f"exec -a {mark} sleep 1000"])
        await until_marked(mark, 1)
    await until_gone(mark)


async def test_a_connection_of_trio_websocket() -> None:
    async def route(server: execsrv.Server, request: WebSocketRequest) -> None:
        if dict(request.headers).get(b"authorization") == b"Bearer 123":
            await server.serve_channel(await request.accept(), identity="ada")
        else:
            await request.reject(403)

    async with execsrv.open_server() as server, trio.open_nursery() as nursery:
        web = await nursery.start(serve_websocket, partial(route, server), "127.0.0.1", 0, None)
        await use(f"ws://127.0.0.1:{web.port}/exec")
        with pytest.raises(ConnectionFailedError, match="403"):
            async with execsrv.connect(f"ws://127.0.0.1:{web.port}", token="124"):
                pass
        async with open_websocket(f"ws://127.0.0.1:{web.port}", ServerConfig(), "123") as channel:
            await channel._connection.send_message(b"\xff")
            async with open_peer(channel) as peer:
                await peer.until_ended()
            assert ["invalid UTF-8" in repr(message) for message in peer.heard] == [True]
        nursery.cancel_scope.cancel()


async def test_a_websocket_of_quart() -> None:
    hypercorn = pytest.importorskip("hypercorn.trio", reason="needs hypercorn")
    quart_trio = pytest.importorskip("quart_trio", reason="needs quart-trio")
    from hypercorn.config import Config
    from quart import abort, websocket

    async with execsrv.open_server() as server, trio.open_nursery() as nursery:
        app = quart_trio.QuartTrio(__name__)

        @app.websocket("/exec")  # type: ignore[untyped-decorator]
        async def route() -> None:
            if websocket.headers.get("Authorization") != "Bearer 123":
                abort(403)
            await websocket.accept()
            await server.serve_channel(websocket, identity="ada")

        config = Config()
        config.bind = ["127.0.0.1:0"]
        config.errorlog = config.accesslog = None
        serve: Callable[..., Awaitable[None]] = partial(hypercorn.serve, app, config)
        (address,) = await nursery.start(serve)
        await use(address.replace("http://", "ws://") + "/exec")
        with pytest.raises(ConnectionFailedError, match="403"):
            async with execsrv.connect(address.replace("http://", "ws://") + "/exec", token="124"):
                pass
        nursery.cancel_scope.cancel()
