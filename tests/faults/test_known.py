"""The falls that an attack on the server has found, each by the shortest way to it that is known.

Most of them need one peer with bad manners. The right end is always the same: the peer may lose its connection, and
nobody else notices.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from execsrv._nursery import open_helpers
from execsrv.limits import KIB, MIB
from execsrv.protocol import Failure, Notification
from tests.faults.daemon import (
    Daemon,
    alive_with,
    connected,
    kill,
    marked_env,
    new_mark,
    open_neighbour,
    running_daemon,
    until,
    until_alive,
    until_gone,
)
from tests.faults.surroundings import limited, somebody
from tests.peers import ENV, PATIENCE, Peer
from tests.test_files import hanging as hanging
from tests.web import open_web

DEAF = "trap '' TERM HUP INT; while :; do sleep .1; done"
UPGRADE = (
    "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Where `hanging` makes its folder."""
    return tmp_path


@pytest.fixture(params=["unix", "websocket"])
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemon]:
    with running_daemon(tmp_path, request.param) as daemon:
        yield daemon


@pytest.fixture
def websocket_daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running_daemon(tmp_path, "websocket") as daemon:
        yield daemon


async def check_usable(daemon: Daemon) -> None:
    """See that somebody new is served."""
    async with connected(daemon.url) as peer:
        assert await peer.run("new", ["echo", "fine"]) == (0, b"fine\n", b"")
    daemon.check()


def frame(message: object) -> bytes:
    """Return a text frame of a client, its mask all zeros."""
    text = json.dumps(message).encode()
    length = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + text


def connect_raw(daemon: Daemon) -> socket.socket:
    """Connect to a websocket server, before any byte."""
    host, _, port = daemon.url.removeprefix("ws://").rpartition(":")
    return socket.create_connection((host, int(port)))


# -- one peer ends everything --


PING = b"\x89\x80\0\0\0\0"
BEYOND = [
    pytest.param(b"\x00\x81\0\0\0\0y" + PING, id="one byte more, and a ping"),
    pytest.param(b"\x00\x81\0\0\0\0y" + PING * 50, id="one byte more, and fifty"),
    pytest.param(b"\x00\x81\0\0\0\0y\x88\x80\0\0\0\0" + PING, id="one byte more, a close, and a ping"),
    pytest.param(b"\x83\x80\0\0\0\0" + PING, id="no frame, and a ping"),
]


@pytest.mark.parametrize("beyond", BEYOND)
async def test_a_message_too_large_with_a_ping_behind_it(websocket_daemon: Daemon, beyond: bytes) -> None:
    daemon, mark = websocket_daemon, new_mark()
    start = {"processId": "a", "argv": ["sleep", "1000"], "cwd": "/", "env": marked_env(mark), "tty": False}
    async with open_neighbour(daemon.url) as neighbour:
        for _ in range(3):
            with connect_raw(daemon) as raw:
                raw.sendall(f"{UPGRADE}\r\n".encode())
                raw.sendall(frame({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"clientName": "x"}}))
                raw.sendall(frame({"jsonrpc": "2.0", "method": "initialized"}))
                raw.sendall(frame({"jsonrpc": "2.0", "id": 2, "method": "process/start", "params": start}))
                await until_alive(mark)
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(raw.dup()))
                async with stream:
                    with trio.fail_after(2 * PATIENCE):
                        await stream.send_all(b"\x01\xff" + (64 * MIB).to_bytes(8, "big") + bytes(4) + b"x" * 64 * MIB)
                        await neighbour.answered()  # so that all of it has been read
                        try:
                            await stream.send_all(beyond)
                            await stream.receive_some()  # the upgrade
                            with trio.move_on_after(0.5):  # it may wait for an answer to its goodbye
                                while await stream.receive_some():
                                    pass
                        except trio.BrokenResourceError:
                            pass  # as is right
            await until_gone(mark)
    await check_usable(daemon)


PROGRAM = """
import sys, trio, execsrv
async def other():
    await trio.sleep(2)
    print("the other task went on", flush=True)
async def client():
    try:
        async with execsrv.connect(sys.argv[1]) as client:
            await client.run(["true"])
    except Exception as error:
        print("caught", type(error).__name__, flush=True)
async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        nursery.start_soon(client)
trio.run(main)
"""


async def test_a_server_that_says_too_much_does_not_end_the_program_of_its_client() -> None:
    async def misbehave(stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        found = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
        assert found is not None
        key = base64.b64encode(hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        upgraded = b"HTTP/1.1 101 \r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + key
        try:
            await stream.send_all(upgraded + b"\r\n\r\n")
            await stream.send_all(b"\x01\x7f" + (64 * MIB).to_bytes(8, "big") + b"x" * 64 * MIB)
            await trio.sleep(0.3)
            await stream.send_all(b"\x00\x01y\x89\0")
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, misbehave, [listener])
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        with trio.fail_after(2 * PATIENCE):
            done = await trio.run_process([sys.executable, "-c", PROGRAM, url], capture_stdout=True, check=False)
        nursery.cancel_scope.cancel()
    assert sorted(done.stdout.decode().splitlines()) == ["caught ConnectionFailedError", "the other task went on"]
    assert done.returncode == 0


async def in_a_nursery() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(trio.sleep_forever)


async def with_clean_up_that_fails() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise OSError("clean-up")


@pytest.mark.parametrize("block", [trio.sleep_forever, in_a_nursery, with_clean_up_that_fails])
async def test_why_a_helper_failed_is_never_lost(block: Callable[[], Awaitable[None]]) -> None:
    async def crash() -> None:
        raise RuntimeError("root cause")

    found: list[BaseException] = []

    def look(error: BaseException | None) -> None:
        if error is not None and error not in found:
            found.append(error)
            for part in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
                look(part)
            look(error.__cause__)
            look(error.__context__)

    caught: BaseException | None = None
    try:
        async with open_helpers() as helpers:
            helpers.start_soon(crash)
            await block()
    except BaseException as error:
        caught = error
    look(caught)
    assert any(isinstance(error, RuntimeError) for error in found)
    assert not isinstance(caught, trio.Cancelled)
    assert not isinstance(caught, BaseExceptionGroup) or caught.subgroup(trio.Cancelled) is None


# -- nobody reads what the server has to say --


@contextmanager
def unread_pipe(*, full: bool) -> Iterator[int]:
    """The end to write to of a pipe that nobody reads."""
    reader, writer = os.pipe()
    if full:
        os.set_blocking(writer, False)
        try:
            while os.write(writer, bytes(4096)):
                pass
        except BlockingIOError:
            os.set_blocking(writer, True)
    try:
        yield writer
    finally:
        os.close(writer)
        os.close(reader)


async def say_nonsense(daemon: Daemon) -> None:
    """Give a server much to complain about."""
    async with connected(daemon.url) as peer:
        await peer.channel.send(Notification("x" * 70_000))
        with trio.move_on_after(0.5):  # it may well be too busy to say anything
            await peer.until_ended()


@pytest.mark.parametrize("full", [True, False], ids=["full", "filled by nonsense"])
@pytest.mark.parametrize("transport", ["unix", "websocket"])
async def test_a_log_that_nobody_reads_holds_nobody_up(transport: str, full: bool, tmp_path: Path) -> None:
    mark = new_mark()
    with unread_pipe(full=full) as stderr, running_daemon(tmp_path, transport, stderr=stderr) as daemon:
        async with open_neighbour(daemon.url) as neighbour:
            await say_nonsense(daemon)
            async with connected(daemon.url) as peer:
                await peer.start("a", ["sh", "-c", DEAF], env=marked_env(mark))
                await until_alive(mark)
            await until_gone(mark)
            await neighbour.answered()
        async with connected(daemon.url) as peer:
            await peer.start("a", ["sh", "-c", DEAF], env=marked_env(mark))
            await until_alive(mark)
            daemon.process.terminate()
            assert await daemon.until_ended() == 0
        await until_gone(mark)


async def test_a_log_that_nobody_reads_on_stdio() -> None:
    with unread_pipe(full=True) as stderr:
        command = [sys.executable, "-m", "execsrv", "serve"]
        server = await trio.lowlevel.open_process(command, stdin=-1, stdout=-1, stderr=stderr)
        assert server.stdin is not None
        try:
            await server.stdin.send_all(b'{"jsonrpc":"2.0","method":"' + b"x" * 70_000 + b'"}\n')
            await server.stdin.aclose()
            with trio.fail_after(PATIENCE):
                await server.wait()
        finally:
            server.kill()
            with trio.CancelScope(shield=True):
                await server.wait()


CLOSED = {"stdout": ">&-", "stderr": "2>&-", "both": ">&- 2>&-", "all": "<&- >&- 2>&-"}


async def check_silent(path: Path, *words: str, stderr: int = subprocess.DEVNULL) -> None:
    """See that a daemon whose first line nobody hears serves all the same."""
    command = [*words, sys.executable, "-m", "execsrv", "serve", "--listen", f"unix://{path}"]
    null = subprocess.DEVNULL
    server = await trio.to_thread.run_sync(
        lambda: subprocess.Popen(command, stdin=null, stdout=null, stderr=stderr, start_new_session=True)
    )
    try:
        with trio.fail_after(PATIENCE):
            while True:
                assert server.poll() is None
                try:
                    await (await trio.open_unix_socket(str(path))).aclose()
                    break
                except OSError:
                    await trio.sleep(0.01)
        daemon = Daemon(server, f"unix://{path}", Path("/dev/null"))
        await say_nonsense(daemon)
        await check_usable(daemon)
        server.terminate()
        assert await daemon.until_ended() == 0
    finally:
        server.kill()
        await trio.to_thread.run_sync(server.wait)


@pytest.mark.parametrize("which", CLOSED)
async def test_a_server_that_was_started_with_closed_descriptors(which: str, tmp_path: Path) -> None:
    await check_silent(tmp_path / "s", "sh", "-c", f'exec "$@" {CLOSED[which]}', "sh")


async def test_a_server_whose_log_has_no_reader_any_more(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        await check_silent(tmp_path / "s", stderr=writer)
    finally:
        os.close(writer)


# -- what the log says --


@asynccontextmanager
async def unwelcome(daemon: Daemon, method: str) -> AsyncIterator[Peer]:
    """A peer that has sent a notification of that name, and was let go for it."""
    async with connected(daemon.url, ready=len(method) > 64 * KIB) as peer:  # a stranger may say no more
        await peer.channel.send(Notification(method))
        await peer.until_ended()
        yield peer


@pytest.mark.parametrize(
    "name",
    ["a\n2026-01-01 00:00:00,000 INFO execsrv: forged", "\x1b]0;title\x07\x1b[31m", "x" * (8 * MIB), "a\r\x85\u2028b"],
    ids=["a line", "a terminal's", "large", "other ends of lines"],
)
@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("transport", ["unix", "websocket"])
async def test_what_a_peer_says_goes_into_the_log_as_one_short_plain_line(
    transport: str, form: str, name: str, tmp_path: Path
) -> None:
    with running_daemon(tmp_path, transport, "--log-format", form) as daemon:
        async with unwelcome(daemon, name) as peer:
            answers = [message for message in peer.heard if isinstance(message, Failure)]
        await check_usable(daemon)
    assert all(len(answer.error.message) < 10_000 for answer in answers)
    assert len(daemon.log) < 10_000
    assert not re.search(r"[^\x20-\x7e\n]", daemon.log)
    if form == "json":
        assert all("message" in json.loads(line) for line in daemon.log.splitlines())
        return
    stamp = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} |execsrv listening on ")
    assert all(stamp.match(line) for line in daemon.log.splitlines())


RUDE = {
    "nothing": b"",
    "half a head": b"GET / HTTP/1.1\r\nHost:",
    "a health check": b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n",
    "an upgrade": f"{UPGRADE}\r\n".encode(),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an odd extension": f"{UPGRADE}Sec-WebSocket-Extensions: \xe9\r\n\r\n".encode("latin-1"),
    "an odd protocol": f"{UPGRADE}Sec-WebSocket-Protocol: \xe9\r\n\r\n".encode("latin-1"),
    "a close, and pings": f"{UPGRADE}\r\n".encode() + b"\x88\x80\0\0\0\0" + PING * 20,
    "no frame, and pings": f"{UPGRADE}\r\n".encode() + b"\x83\x80\0\0\0\0" + PING * 20,
}


@pytest.mark.parametrize("how", ["reset", "hang up", "half close"])
@pytest.mark.parametrize("said", RUDE)
async def test_a_rude_peer_is_no_fault_of_ours(websocket_daemon: Daemon, said: str, how: str) -> None:
    """One line in the log for each of them at most, and no traceback."""
    daemon = websocket_daemon
    async with open_neighbour(daemon.url):
        before = len(daemon.log.splitlines())
        for _ in range(10):
            with connect_raw(daemon) as raw:
                raw.sendall(RUDE[said])
                await trio.sleep(0.01)  # or a reset would overtake it
                if how == "reset":
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                elif how == "half close":
                    raw.shutdown(socket.SHUT_WR)
    await check_usable(daemon)
    assert len(daemon.log.splitlines()) <= before + 10


# -- the loop waits for somebody --


@pytest.mark.parametrize("where", ["cwd", "PATH", "program"])
async def test_a_start_on_a_file_system_that_hangs(
    daemon: Daemon,
    where: str,
    hanging: tuple[Path, Callable[[], None]],
) -> None:
    folder, let_go = hanging
    mark = new_mark()
    start: dict[str, Any] = {"argv": ["true"], "cwd": "/", "env": {**ENV}, "tty": False, "processId": "stuck"}
    match where:
        case "cwd":
            start["cwd"] = str(folder / "a")
        case "PATH":
            start["env"]["PATH"] = f"{folder / 'bin'}:{ENV['PATH']}"
        case _:
            start["argv"] = [str(folder / "true")]
    try:
        async with open_neighbour(daemon.url) as neighbour:
            async with connected(daemon.url) as peer:
                await peer.start("a", ["sh", "-c", DEAF], env=marked_env(mark))
                await peer.post("process/start", start)
                await neighbour.answered()
            await until_gone(mark)
            await check_usable(daemon)
    finally:
        let_go()


async def test_a_start_of_a_program_under_a_lease(daemon: Daemon, tmp_path: Path) -> None:
    """Whoever holds it may take 45 s to give it back, and any process of the same user can."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho fine\n")
    script.chmod(0o755)
    held = os.open(script, os.O_RDONLY)  # who may write would make it busy
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        try:
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            pytest.skip(f"no lease to be had here: {error}")
        async with open_neighbour(daemon.url) as neighbour, connected(daemon.url) as peer:
            await peer.post("process/start", peer.start_params("a", [str(script)]))
            await neighbour.answered()
            await check_usable(daemon)
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            os.close(held)
            held = -1
            await peer.until_told("a", "closed")
    finally:
        if held >= 0:
            os.close(held)
        signal.signal(signal.SIGIO, before)


async def test_a_disk_that_hangs_takes_the_threads_of_nobody_else(
    daemon: Daemon,
    hanging: tuple[Path, Callable[[], None]],
) -> None:
    folder, let_go = hanging
    try:
        async with open_neighbour(daemon.url) as neighbour, open_web() as web:
            web.page("/page", body=b"body")
            async with connected(daemon.url) as peer:
                for number in range(45):
                    roots = [{"id": "r", "path": (folder / f"{number}").as_uri()}]
                    await peer.post("capabilityRoots/discoverV1", {"roots": roots})
                await neighbour.answered()
            async with connected(daemon.url) as other:
                request = {"method": "GET", "url": f"{web.url}/page", "requestId": "r"}
                assert (await other.call("http/request", request))["status"] == 200
                assert await other.call("fs/readDirectory", {"path": "file:///etc/ssl"})
    finally:
        let_go()


async def test_a_debugger_at_its_prompt(daemon: Daemon) -> None:
    mark = new_mark()
    async with open_neighbour(daemon.url) as neighbour:
        async with connected(daemon.url) as peer:
            await peer.start("a", ["sleep", "1000"], env=marked_env(mark))
            await until_alive(mark)
            code = "import ctypes, os, sys; pid = int(sys.argv[1]); print(ctypes.CDLL(None).ptrace(16, pid, 0, 0), flush=True); sys.stdin.read()"  # noqa: E501
            pid = next(iter(alive_with(mark)))
            tracer = await trio.lowlevel.open_process([sys.executable, "-c", code, f"{pid}"], stdin=-1, stdout=-1)
            try:
                assert tracer.stdout is not None
                if (await tracer.stdout.receive_some())[:1] != b"0":
                    pytest.skip("nobody may trace here")
                await peer.post("process/terminate", {"processId": "a"})
                await neighbour.answered()
                await check_usable(daemon)
            finally:
                tracer.kill()
                with trio.CancelScope(shield=True):
                    await tracer.wait()
        await until_gone(mark)


# -- too many of something --


async def test_five_hundred_who_never_say_a_word(websocket_daemon: Daemon) -> None:
    daemon = websocket_daemon
    async with open_neighbour(daemon.url):
        silent = [connect_raw(daemon) for _ in range(520)]
        try:
            await check_usable(daemon)
        finally:
            for raw in silent:
                raw.close()


@pytest.mark.parametrize("transport", ["unix", "websocket"])
async def test_silent_peers_give_way_where_descriptors_are_few(transport: str, tmp_path: Path) -> None:
    """There are fewer of those than places at the door."""
    options = ("--handshake-timeout", "600")
    with running_daemon(tmp_path, transport, *options, prefix=limited("-n 64")) as daemon:
        async with open_neighbour(daemon.url), AsyncExitStack() as crowd:
            for _ in range(100):
                if transport == "unix":
                    await crowd.enter_async_context(await trio.open_unix_socket(daemon.url.removeprefix("unix://")))
                else:
                    crowd.enter_context(connect_raw(daemon))
            await check_usable(daemon)


@pytest.mark.parametrize("transport", ["unix", "websocket"])
async def test_those_who_started_nothing_need_no_grace(transport: str, tmp_path: Path) -> None:
    with running_daemon(tmp_path, transport, "--resume-grace", "600", "--max-connections", "20") as daemon:
        async with open_neighbour(daemon.url):
            for _ in range(40):
                async with connected(daemon.url, ready=False) as peer:
                    await peer.post("initialize", {"clientName": "brief"})
                    await peer.until(peer.heard.copy)
            await check_usable(daemon)


async def test_a_stray_of_another_user_ends_while_there_are_no_descriptors(open_path: Path) -> None:
    uid = 70_000 + os.getpid()
    command, env = somebody(open_path, uid)
    program = open_path / "sleep"
    shutil.copy("/bin/sleep", program)
    program.chmod(0o4755)
    mark, held = new_mark(), new_mark()
    with running_daemon(open_path, "unix", prefix=limited("-n 64"), command=command, env=env) as daemon:
        async with open_neighbour(daemon.url) as neighbour:
            async with connected(daemon.url) as peer:
                script = f"(setsid {program} 1000 >/dev/null 2>&1 &)"
                await peer.run("a", ["sh", "-c", script], env=marked_env(mark))
                await until_alive(mark)
                for number in range(100):
                    start = peer.start_params(f"{number}", ["sleep", "1000"], env=marked_env(held))
                    if isinstance(await peer.answer(await peer.post("process/start", start)), Failure):
                        break
                async with AsyncExitStack() as crowd:
                    for _ in range(30):  # more than there are descriptors left for
                        await crowd.enter_async_context(await trio.open_unix_socket(daemon.url.removeprefix("unix://")))
                    await neighbour.answered()
                    for pid in alive_with(mark):
                        kill(pid)
                    await until_gone(mark)
                    await neighbour.answered()
            await until_gone(held)
        await check_usable(daemon)


# -- what is left --

OTHER_NUMBER = (
    "import os, resource, time\n"
    "if os.fork(): os._exit(0)\n"
    "os.setsid()\n"
    "soft, hard = resource.getrlimit(resource.RLIMIT_RTTIME)\n"
    "resource.setrlimit(resource.RLIMIT_RTTIME, (soft ^ 0xFFF, hard))\n"
    "if os.fork(): os._exit(0)\n"
    "os.closerange(0, 3)\n"
    "time.sleep(1000)"
)


async def test_a_stray_that_carries_the_number_of_no_session(daemon: Daemon) -> None:
    """It is nobody's, and goes when no session runs any more."""
    mark = new_mark()
    async with connected(daemon.url) as peer:
        await peer.run("a", [sys.executable, "-I", "-S", "-c", OTHER_NUMBER], env=marked_env(mark))
        await until_alive(mark)
    await until_gone(mark)
    await check_usable(daemon)


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize(
    ("connections", "sessions", "window"),
    [
        pytest.param(1, 40, 16 * MIB, id="forty large windows"),
        pytest.param(3, 10, 16 * MIB, id="ten large windows, again and again"),
        pytest.param(20, 100, MIB, id="twenty connections of a hundred sessions"),
    ],
)
async def test_what_has_ended_gives_its_memory_back(
    tmp_path: Path, connections: int, sessions: int, window: int
) -> None:
    """Clients that read nothing leave all that their commands print to the server, and hang up."""
    printed = tmp_path / "printed"
    script = f"head -c {window * 5 // 4} /dev/zero; printf x >>{printed}"
    start = {"argv": ["sh", "-c", script], "cwd": "/", "tty": False, "windowBytes": window, "overflow": "drop"}
    said: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": {"clientName": "deaf"}},
        {"method": "initialized"},
    ]
    for id in range(2, sessions + 2):
        params = {"processId": f"{id}", "env": marked_env(new_mark())} | start
        said.append({"id": id, "method": "process/start", "params": params})
    with running_daemon(tmp_path, "unix") as daemon:
        async with open_neighbour(daemon.url) as neighbour:
            before = resident(daemon.pid)
            for _ in range(connections):
                printed.write_bytes(b"")
                async with await trio.open_unix_socket(daemon.url.removeprefix("unix://")) as stream:
                    await stream.send_all(b"".join(json.dumps({"jsonrpc": "2.0"} | m).encode() + b"\n" for m in said))
                    await until(lambda: printed.stat().st_size == sessions, lambda: f"{printed.stat().st_size} of them")
                    await neighbour.answered()
                    held = resident(daemon.pid) - before
                    assert held > 40 * MIB, f"they hold {held} bytes"
            await until(lambda: resident(daemon.pid) < before + 24 * MIB, lambda: f"{resident(daemon.pid)} of {before}")
        daemon.check()
