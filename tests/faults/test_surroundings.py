"""A daemon on a machine that is short of something, or whose helpers and clocks misbehave.

Each time: nothing is lost, nothing is left, and everybody else goes on.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from execsrv import connect
from execsrv._processes import proc
from execsrv.protocol import Failure, Response
from tests.faults.daemon import (
    Daemon,
    connected,
    guardians,
    kill,
    marked_env,
    new_mark,
    open_neighbour,
    running_daemon,
    until,
    until_alive,
    until_gone,
    until_guarded,
)
from tests.faults.surroundings import apart, jumping_clock, limited, somebody
from tests.peers import PATIENCE, Peer, b64

DEAF = "trap '' TERM HUP INT; (setsid sleep 1000 &); while :; do sleep .1; done"


@pytest.fixture(params=["unix", "websocket"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def be_greedy(peer: Peer, mark: str) -> dict[str, Any]:
    """Start commands until one is refused; the data of the refusal."""
    for number in range(2000):
        params = peer.start_params(f"greedy {number}", ["sleep", "1000"], env=marked_env(mark))
        answer = await peer.answer(await peer.post("process/start", params))
        if isinstance(answer, Failure):
            assert isinstance(answer.error.data, dict)
            return answer.error.data
    raise AssertionError("nothing was refused")


async def check_usable(daemon: Daemon) -> None:
    """See that somebody new is served."""
    async with connected(daemon.url) as peer:
        assert await peer.run("new", ["echo", "fine"]) == (0, b"fine\n", b"")
    daemon.check()


# -- too few of something --


async def test_without_descriptors(transport: str, tmp_path: Path) -> None:
    mark = new_mark()
    with running_daemon(tmp_path, transport, prefix=limited("-n 64")) as daemon:
        async with open_neighbour(daemon.url) as neighbour:
            async with connected(daemon.url) as peer:
                refusal = await be_greedy(peer, mark)
                assert (refusal["kind"], refusal["errno"]) == ("spawnFailed", errno.EMFILE)
                await neighbour.answered()
            await until_gone(mark)
        await check_usable(daemon)


@pytest.mark.parametrize("how", ["terminate", "graceful", "deadline", "hang up"])
async def test_every_end_comes_without_descriptors(how: str, tmp_path: Path) -> None:
    mark, greedy = new_mark(), new_mark()
    with running_daemon(tmp_path, "unix", prefix=limited("-n 64")) as daemon:
        async with open_neighbour(daemon.url), connected(daemon.url) as other:
            async with connected(daemon.url) as peer:
                limit = {"timeoutMs": 3000} if how == "deadline" else {}
                await peer.start("deaf", ["sh", "-c", DEAF], env=marked_env(mark), **limit)
                await until_alive(mark, 2)
                await be_greedy(other, greedy)
                if how in ("terminate", "graceful"):
                    mode: object = {"graceful": {"timeoutMs": 100}} if how == "graceful" else "force"
                    await peer.call("process/terminate", {"processId": "deaf", "mode": mode})
                if how != "hang up":
                    await until_gone(mark)
            await until_gone(mark)
        await until_gone(greedy)
        await check_usable(daemon)


async def test_the_guardian_comes_back_when_there_are_descriptors_again(tmp_path: Path) -> None:
    """It is killed twice within a moment, and others take the descriptors that it would have needed."""
    mark, left = new_mark(), new_mark()
    with running_daemon(tmp_path, "unix", prefix=limited("-n 64")) as daemon:
        async with open_neighbour(daemon.url) as neighbour:
            guardian = await until_guarded(daemon.pid)
            async with connected(daemon.url) as peer, AsyncExitStack() as crowd:
                await be_greedy(peer, mark)
                for _ in range(30):
                    await crowd.enter_async_context(await open_raw(daemon.url))
                await neighbour.answered()
                kill(guardian)
                with trio.move_on_after(0.3):  # it may be that there is none, for now
                    kill(await until_guarded(daemon.pid, but=guardian))
                await neighbour.answered()
            await until_gone(mark)
            await until_guarded(daemon.pid)
            await check_usable(daemon)
        async with connected(daemon.url) as peer:
            await peer.start("a", ["sh", "-c", DEAF], env=marked_env(left))
            await until_alive(left, 2)
            daemon.process.kill()
            await until_gone(left)


async def test_without_processes(transport: str, open_path: Path) -> None:
    mark, uid = new_mark(), random.Random().randrange(70_000, 2_000_000_000)
    command, env = somebody(open_path, uid)
    (open_path / "f").write_text("content")
    prefix = limited("-u 24")
    with running_daemon(open_path, transport, prefix=prefix, command=command, env=env) as daemon:
        async with open_neighbour(daemon.url) as neighbour, connected(daemon.url) as other:
            async with connected(daemon.url) as peer:
                refusal = await be_greedy(peer, mark)
                assert (refusal["kind"], refusal["errno"]) == ("spawnFailed", errno.EAGAIN)
                await neighbour.answered()
                # It may need a thread, which there is none for, and says so; or it has one.
                answer = await other.answer(await other.post("fs/readFile", {"path": (open_path / "f").as_uri()}))
                if isinstance(answer, Failure):
                    assert isinstance(answer.error.data, dict)
                    assert answer.error.data["kind"] == "busy"
            await until_gone(mark)
            assert await other.call("fs/readFile", {"path": (open_path / "f").as_uri()}) == {
                "dataBase64": b64(b"content")
            }
        await check_usable(daemon)


CROWD = """
import os, signal, time
def fill():
    try:
        while os.fork():
            pass
        signal.pause()
    except BlockingIOError:
        pass
fill()
print(flush=True)
while True:
    time.sleep(0.001)
    fill()
"""
"""Others of a user, who take all the room that there is for processes, and what becomes free of it."""


async def test_the_guardian_comes_when_there_is_room_for_it(open_path: Path) -> None:
    """There was none for it when the first peer came: others of its user had taken it all."""
    command, env = somebody(open_path, random.Random().randrange(70_000, 2_000_000_000))
    left, prefix = new_mark(), limited("-u 60")
    with running_daemon(open_path, "unix", prefix=prefix, command=command, env=env) as daemon:
        others = [*prefix, *command[: command.index("-m")], "-c", CROWD]
        with subprocess.Popen(others, stdout=subprocess.PIPE, start_new_session=True) as crowd:  # noqa: ASYNC220
            try:
                assert crowd.stdout is not None
                assert await trio.to_thread.run_sync(crowd.stdout.readline)
                async with connected(daemon.url) as peer:
                    await be_greedy(peer, new_mark())
                    assert not guardians(daemon.pid)
                    os.killpg(crowd.pid, signal.SIGKILL)
                    await until_guarded(daemon.pid)
                    await peer.start("a", ["sleep", "1000"], env=marked_env(left))
                    daemon.process.kill()
                    await until_gone(left)
            finally:
                if crowd.poll() is None:
                    os.killpg(crowd.pid, signal.SIGKILL)


def unfinished(transport: str, size: int) -> bytes:
    """Return the beginning of a message that never ends."""
    if transport == "unix":
        return b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * size
    upgrade = (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    return upgrade + b"\x01\xff" + size.to_bytes(8, "big") + bytes(4) + b"x" * size


async def open_raw(url: str) -> trio.SocketStream:
    if url.startswith("unix:"):
        return await trio.open_unix_socket(url.removeprefix("unix://"))
    host, _, port = url.removeprefix("ws://").rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


async def pour_in(daemon: Daemon, transport: str) -> None:
    """Have peers without a name send what there is no room for."""
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:

        async def pour(stream: trio.SocketStream) -> None:
            try:
                await stream.send_all(unfinished(transport, 60 << 20))
            except trio.BrokenResourceError:
                pass  # it was let go, as is right

        for _ in range(8):
            nursery.start_soon(pour, await stack.enter_async_context(await open_raw(daemon.url)))


async def test_without_memory(transport: str, tmp_path: Path) -> None:
    """The server lives, and serves who comes later; at first it may still have no room for a thread."""
    with running_daemon(tmp_path, transport, prefix=limited("-v 400000")) as daemon:
        await pour_in(daemon, transport)
        assert daemon.process.poll() is None, daemon.log[-2000:]
        async with connected(daemon.url) as peer:
            start = peer.start_params("new", ["echo", "fine"])
            with trio.fail_after(PATIENCE):
                while isinstance(answer := await peer.answer(await peer.post("process/start", start)), Failure):
                    assert answer.error.data["kind"] in ("busy", "spawnFailed"), answer.error
                    await trio.sleep(0.1)
            await peer.until_told("new", "closed")
            assert peer.output("new") == b"fine\n"


async def test_who_has_no_name_takes_no_memory_from_others(transport: str, tmp_path: Path) -> None:
    with running_daemon(tmp_path, transport, prefix=limited("-v 400000")) as daemon:
        async with open_neighbour(daemon.url):
            await pour_in(daemon, transport)


# -- file systems --


FULL = "mount -t tmpfs -o size=1m none /tmp; mount --bind /tmp /var/tmp; cd /tmp; head -c 2m /dev/zero >full || true"
READ_ONLY = "mount -o remount,bind,ro /; ! mountpoint -q /tmp || mount -o remount,bind,ro /tmp"


@pytest.mark.parametrize(
    ("script", "number"), [(FULL, errno.ENOSPC), (READ_ONLY, errno.EROFS)], ids=["full", "read-only"]
)
async def test_nothing_can_be_written(script: str, number: int, tmp_path: Path) -> None:
    with running_daemon(tmp_path, "websocket", prefix=apart(script), env={"TMPDIR": "/tmp"}) as daemon:
        async with open_neighbour(daemon.url) as neighbour, connected(daemon.url) as peer:
            path = "file:///tmp/one" if number == errno.EROFS else "file:///tmp/larger"
            code, _, data = await peer.refused("fs/writeFile", {"path": path, "dataBase64": b64(bytes(100_000))})
            assert data == {"kind": "file-failed", "errno": number}, (code, data)
            exit_code, _, _ = await peer.run("a", ["sh", "-c", "head -c 100000 /dev/zero >/tmp/more"])
            assert exit_code != 0
            assert (await peer.call("environment/info"))["cwd"].startswith("file:///")
            await neighbour.answered()
            assert await peer.run("b", ["sh", "-c", "seq 3"]) == (0, b"1\n2\n3\n", b"")
        await check_usable(daemon)


async def test_without_proc(transport: str, tmp_path: Path) -> None:
    """Nothing could be promised there, so it does not start, and says why."""
    prefix = apart("mount -t tmpfs none /proc")
    with (
        pytest.raises(AssertionError, match=r"(?s)did not start: execsrv: .*cannot keep hold of processes .*/proc"),
        running_daemon(tmp_path, transport, prefix=prefix),
    ):
        pass


# -- helpers and clocks --


@pytest.fixture
def daemon(transport: str, tmp_path: Path) -> Iterator[Daemon]:
    with running_daemon(tmp_path, transport) as daemon:
        yield daemon


async def test_a_server_that_was_stopped(daemon: Daemon) -> None:
    mark = new_mark()
    async with open_neighbour(daemon.url) as neighbour:
        async with connected(daemon.url) as peer:
            await peer.start("a", ["sh", "-c", DEAF], env=marked_env(mark))
            await until_alive(mark, 2)
            kill(daemon.pid, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check_usable, daemon)
            await trio.sleep(0.2)  # they are at the door
            kill(daemon.pid, signal.SIGCONT)
        await neighbour.answered()
        await until_gone(mark)
    daemon.check()


async def test_a_crowd_that_connects_to_a_stopped_server(daemon: Daemon) -> None:
    """Of more than 128, by default, some would lose their places at the door to others."""

    async def run() -> None:
        async with connect(daemon.url) as client:
            assert (await client.run(["echo", "fine"])).stdout == b"fine\n"

    async with open_neighbour(daemon.url):
        kill(daemon.pid, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            for _ in range(120):
                nursery.start_soon(run)
            await trio.sleep(0.2)  # they are at the door
            kill(daemon.pid, signal.SIGCONT)
    daemon.check()


@pytest.mark.parametrize("first", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_a_guardian_that_was_harmed(daemon: Daemon, first: signal.Signals) -> None:
    """It goes on or another takes its place, nobody notices, and a server that is killed later leaves nothing."""
    mark = new_mark()
    async with connected(daemon.url) as peer:
        await peer.start("a", ["sh", "-c", DEAF], env=marked_env(mark))
        await until_alive(mark, 2)
        guardian = await until_guarded(daemon.pid)
        try:
            async with open_neighbour(daemon.url):
                kill(guardian, first)
                if first == signal.SIGSTOP:
                    await until(lambda: proc.state(guardian) == "T", lambda: "it was not stopped")
                    await until(lambda: proc.state(guardian) != "T", lambda: "it is still stopped")
                else:
                    await until_guarded(daemon.pid, but=guardian)
                await until_alive(mark, 2)
            daemon.check()
            daemon.process.kill()
            await until_gone(mark)
        finally:
            kill(guardian)


@pytest.mark.parametrize(
    "seconds", [315_360_000, -315_360_000, 3600], ids=["ten years on", "ten years back", "an hour"]
)
async def test_the_time_of_day_jumps(transport: str, seconds: int, tmp_path: Path) -> None:
    mark = new_mark()
    env, jump = jumping_clock(tmp_path)
    with running_daemon(tmp_path, transport, "--resume-grace", "30", env=env) as daemon:
        async with open_neighbour(daemon.url) as neighbour, connected(daemon.url) as peer:
            await peer.start("lasts", ["sleep", "1000"], env=marked_env(mark), timeoutMs=600_000, idleTimeoutMs=600_000)
            await peer.start("ends", ["sh", "-c", DEAF], env=marked_env(mark), timeoutMs=1000)
            waiting = await peer.post("process/wait", {"processId": "lasts", "timeoutMs": 1500})
            jump(seconds)
            await neighbour.answered()
            assert (await peer.until_told("ends", "exited"))["reason"] == "timeout"
            answer = await peer.answer(waiting)
            assert isinstance(answer, Response)
            assert answer.result["running"] is True
            assert len((await peer.call("process/list", {}))["processes"]) == 2
            jump(0)
            await neighbour.answered()
            await peer.call("process/terminate", {"processId": "lasts"})
            await until_gone(mark)
        await check_usable(daemon)
