"""The log of a daemon, and all else that it prints for people: it holds nobody up, and nobody can forge or flood it."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

import execsrv.sync
from execsrv import connect_unix
from execsrv._cli.daemon_log import OutletHandler
from execsrv._cli.log_forms import Text
from execsrv._doors.tokens import new_token
from execsrv._outlet import log_line, open_outlet
from tests.peers import PATIENCE
from tests.processes import new_mark, until_gone, until_marked
from tests.test_daemon import EXECSRV, daemon, until_listening
from tests.web import open_web

# -- nobody reads --


def full_pipe(stack: ExitStack) -> int:
    """The writing end of a pipe in which there is no room, and which nobody reads."""
    reader, writer = os.pipe()
    stack.callback(os.close, reader)
    stack.callback(os.close, writer)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    return writer


def stopped_terminal(stack: ExitStack) -> int:
    """A terminal whose user has pressed Ctrl-S."""
    master, slave = pty.openpty()
    stack.callback(os.close, master)
    stack.callback(os.close, slave)
    termios.tcflow(slave, termios.TCOOFF)
    return slave


def pipe_without_reader(stack: ExitStack) -> int:
    """The writing end of a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    stack.callback(os.close, writer)
    return writer


def full_disk(stack: ExitStack) -> int:
    """A file for which there is no room."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    stack.callback(os.close, descriptor)
    return descriptor


@pytest.mark.few
@pytest.mark.parametrize("stuck", [full_pipe, stopped_terminal, pipe_without_reader, full_disk])
@pytest.mark.parametrize(
    "streams",
    [
        pytest.param(["stdout"], marks=pytest.mark.slow),
        pytest.param(["stderr"], marks=pytest.mark.slow),
        ["stdout", "stderr"],
    ],
    ids="+".join,
)
async def test_a_server_whose_words_nobody_reads(
    stuck: Callable[[ExitStack], int], streams: list[str], tmp_path: Path
) -> None:
    """It serves, hears hang-ups and deadlines, and ends when it is told to."""
    path = tmp_path / "socket"
    hung_up, over = new_mark(), new_mark()
    with ExitStack() as stack:
        nowhere = stuck(stack)
        ends = {name: nowhere if name in streams else subprocess.DEVNULL for name in ("stdout", "stderr")}
        argv = [*EXECSRV, "serve", "--listen", f"unix://{path}"]
        process = stack.enter_context(subprocess.Popen(argv, stdout=ends["stdout"], stderr=ends["stderr"]))  # noqa: ASYNC220
        stack.callback(process.kill)
        await trio.to_thread.run_sync(until_listening, path, process)
        with trio.fail_after(PATIENCE):
            for _ in range(300):  # far more than fits into a pipe
                with socket.socket(socket.AF_UNIX) as nonsense:
                    nonsense.connect(str(path))
                    nonsense.sendall(json.dumps({"method": "x" * 900}).encode() + b"\n")
                    await trio.lowlevel.wait_readable(nonsense)
            async with connect_unix(path) as client:
                started = client.start(["bash", "-c", f"exec -a {over} sleep 1000"], timeout=3)
                assert (await client.run(["echo", "hi"])).stdout == b"hi\n"
                async with started as process_over:
                    assert (await process_over.wait()).reason == "timeout"
            async with connect_unix(path) as client, client.start(["bash", "-c", f"exec -a {hung_up} sleep 1000"]):
                await until_marked(hung_up, 1)
            await until_gone(hung_up)
            await until_gone(over)
        process.terminate()
        assert await trio.to_thread.run_sync(process.wait, PATIENCE) == 0


def reset(url: str, said: bytes = b"", *, read: bool = False) -> None:
    """Connect, say something, perhaps read an answer, and reset the connection."""
    host, port = url.removeprefix("ws://").rsplit(":", 1)
    with socket.create_connection((host, int(port))) as peer:
        peer.settimeout(PATIENCE)
        peer.sendall(said)
        if read:
            peer.recv(1000)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_resets_with_an_unread_log() -> None:
    with daemon("ws://127.0.0.1:0") as (process, url):
        for _ in range(60):
            reset(url)
        with execsrv.sync.connect(url) as client:
            assert client.run(["echo", "hi"], text=True).text == "hi\n"
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_an_unread_log_on_stdio() -> None:
    with ExitStack() as stack:
        stderr = full_pipe(stack)
        argv = [*EXECSRV, "serve"]
        process = stack.enter_context(
            subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
        )
        stack.callback(process.kill)
        said, _ = process.communicate(b'{"method":"nonsense"}\n', timeout=PATIENCE)
        assert b"nonsense" in said
        assert process.returncode == 0


def test_what_was_dropped_is_counted_and_told() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    count = 1000
    with open(reader, "rb") as read, open_outlet(writer) as outlet:
        for number in range(count):
            outlet.say(f"{number:<900}")
        said: list[bytes] = []
        while not said or b"dropped" not in said[-1]:
            said.append(read.readline())
        outlet.say("again")
        assert read.readline() == b"again\n"
    os.close(writer)
    found = re.fullmatch(rb"execsrv: (\d+) messages were dropped.*\n", said.pop())
    assert found
    assert [int(line) for line in said] == list(range(len(said)))
    assert len(said) + int(found[1]) == count
    assert 100 < len(said) < 500


def test_what_failed_is_counted_and_told() -> None:
    """A disk that was full for a while."""
    reader, writer = os.pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    failed: list[OSError] = []
    target = os.dup(full)
    with open(reader, "rb") as read, open_outlet(target, failed.append) as outlet:
        for _ in range(3):
            outlet.say("lost")
        while len(failed) < 3:
            os.sched_yield()
        os.dup2(writer, target)
        outlet.say("kept")
        said = [read.readline(), read.readline()]
    for descriptor in (writer, full, target):
        os.close(descriptor)
    assert said == [b"execsrv: 3 messages were dropped, since they could not be written\n", b"kept\n"]


# -- one event, one line --


Log = Callable[[Callable[[logging.Logger], None]], list[bytes]]


@pytest.fixture
def lines(tmp_path: Path) -> Log:
    """Gives what a log has after something was logged."""
    path = tmp_path / "log"

    def log(say: Callable[[logging.Logger], None]) -> list[bytes]:
        with open(path, "wb") as file, open_outlet(file.fileno()) as outlet:
            handler = OutletHandler(outlet, Text())
            logger = logging.Logger("somebody")
            logger.addHandler(handler)
            say(logger)
            handler.flush()
        return path.read_bytes().splitlines()

    return log


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\n2026-01-01 ERROR forged", rb"a\n2026-01-01 ERROR forged"),
        ("\r\x1b[2J\x00\x7f\t", rb"\r\x1b[2J\x00\x7f\t"),
        ("\x85\u2028\u202e", rb"\x85\u2028\u202e"),
        ("\udcff lone", rb"\udcff lone"),
        ("plain é", "plain é".encode()),
    ],
)
def test_no_text_can_forge_a_line(lines: Log, text: str, escaped: bytes) -> None:
    (line,) = lines(lambda logger: logger.warning("heard %s", text))
    assert line.endswith(b" WARNING somebody: heard " + escaped)


@pytest.mark.parametrize("character", ["x", "é", "\x1b", "\U0001f600"])
def test_a_line_is_cut(character: str) -> None:
    line = log_line(character * 10_000_000)
    assert 1000 < len(line) <= 1024
    assert line.endswith(b"...")
    line.decode()


def test_a_traceback_is_set_off_and_bounded(
    lines: Log,
) -> None:
    def fail(logger: logging.Logger) -> None:
        try:
            raise ValueError("forged\n2026 ERROR line\x1b" + "\n" * 1000)
        except ValueError:
            logger.exception("it failed")

    first, *rest = lines(fail)
    assert first.endswith(b"ERROR somebody: it failed")
    assert rest[0] == b"  | Traceback (most recent call last):"
    assert all(line.startswith(b"  | ") for line in rest)
    assert rb"  | 2026 ERROR line\x1b" in rest
    assert len(rest) < 300


def test_floods_are_counted(lines: Log) -> None:
    def flood(logger: logging.Logger) -> None:
        for number in range(10_000):
            logger.warning("again and again %d", number)
            if number % 1000 == 0:
                logger.warning("something else")

    said = lines(flood)
    assert len([line for line in said if b"something else" in line]) == 10
    floods = [line for line in said if b"again and again" in line]
    told = sum(int(found[1]) for line in floods if (found := re.search(rb"\(and (\d+) more like it\)", line)))
    assert len(floods) + told == 10_000
    assert len(floods) < 2000


# -- what peers do is no fault of ours --

HEAD = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
MASKED_PING = b"\x89\x80\x00\x00\x00\x00"
TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(190)


WORDS = [
    (b"", False),
    (b"GET / HT", False),
    (HEAD, False),
    (b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", False),
    (b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", True),
    (HEAD + b"\r\n", False),
    (HEAD + b"\r\n", True),
    (HEAD + b"\r\n" + MASKED_PING * 100, True),
    (HEAD + b"\r\n\xff\xff\xff\xff", True),
    (HEAD + b"Sec-WebSocket-Extensions: \xff\xfe\r\n\r\n", True),
    (HEAD + b"Sec-WebSocket-Extensions: permessage-deflate; x=\xe9\r\n\r\n", True),
    (HEAD + b"Sec-WebSocket-Protocol: \xff\xfe\r\n\r\n", True),
    (HEAD + b"Sec-WebSocket-Protocol: a, a\r\n\r\n", True),
    (HEAD.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short") + b"\r\n", True),
    (HEAD.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"\xff\xfe") + b"\r\n", True),
    (HEAD.replace(b"Host: localhost", b"Host: xn--99999999") + b"\r\n", True),
    (HEAD + b"\r\n\x81\xff" + bytes(7) + b"\x01" + bytes(5), True),  # a length that is longer than needed
    (TLS_HELLO, True),
]
"""What a peer says, and whether it reads what it is told, before it resets the connection."""


@pytest.mark.parametrize(
    "peers",
    [
        WORDS,
        # Each waits for its handshake to be too late.
        pytest.param([(b"\x00" * 100_000, True)], marks=pytest.mark.slow),
    ],
)
def test_what_a_peer_does_is_one_line_at_most(peers: list[tuple[bytes, bool]]) -> None:
    with daemon("ws://127.0.0.1:0") as (process, url):
        assert process.stderr is not None
        while "listening" not in process.stderr.readline():
            pass
        for said, read in peers:
            for _ in range(3):
                reset(url, said, read=read)
            with execsrv.sync.connect(url) as client:
                assert client.run(["echo", "hi"], text=True).text == "hi\n"
        process.terminate()
        log = process.stderr.read().splitlines()
        assert process.wait(PATIENCE) == 0
    assert "SIGTERM" in log.pop()
    assert len(log) <= 3 * len(peers)
    assert not any("ERROR" in line or "Traceback" in line for line in log)


CLOSE = b"\x88\x80\x00\x00\x00\x00"


def websocket(url: str) -> socket.socket:
    """A websocket behind its opening handshake."""
    host, port = url.removeprefix("ws://").rsplit(":", 1)
    peer = socket.create_connection((host, int(port)))
    peer.settimeout(PATIENCE)
    peer.sendall(HEAD + b"\r\n")
    heard = b""
    while b"\r\n\r\n" not in heard:
        heard += peer.recv(1000)
    return peer


def message(text: bytes) -> bytes:
    """A masked text frame."""
    if len(text) < 126:
        size = bytes([0x80 | len(text)])
    elif len(text) < 65536:
        size = b"\xfe" + struct.pack(">H", len(text))
    else:
        size = b"\xff" + struct.pack(">Q", len(text))
    return b"\x81" + size + bytes(4) + text


def test_a_ping_while_the_server_closes() -> None:
    with daemon("ws://127.0.0.1:0") as (process, url), websocket(url) as peer:
        assert process.stderr is not None
        peer.sendall(message(b"nonsense"))  # which it answers by closing
        heard = b""
        while b"malformed" not in heard or b"\x88" not in heard:
            heard += peer.recv(10_000)
        peer.sendall(MASKED_PING + CLOSE)
        while peer.recv(10_000):
            pass
        process.terminate()
        log = process.stderr.read()
        assert process.wait(PATIENCE) == 0
    assert "Traceback" not in log
    assert log.count("malformed message") == 1


@pytest.mark.few
@pytest.mark.parametrize("size", [300, 5_000_000])
@pytest.mark.parametrize("shape", ["notification", "request", "answer"])
def test_what_quotes_a_peer_is_cut(shape: str, size: int) -> None:
    name = "\x1b[2J\n" + "x" * size
    said = {
        "notification": {"method": name},
        "request": {"id": 1, "method": name},
        "answer": {"id": name, "result": 1},
    }[shape]
    with daemon("ws://127.0.0.1:0") as (process, url), websocket(url) as peer:
        assert process.stderr is not None
        peer.sendall(message(json.dumps(said).encode()))
        heard = peer.recv(100_000)
        peer.sendall(CLOSE)
        while piece := peer.recv(100_000):
            heard += piece
        process.terminate()
        log = process.stderr.read()
        assert process.wait(PATIENCE) == 0
    assert 100 < len(heard) < 5000
    assert len(log) < 3000
    assert "\x1b" not in log
    assert all(line.startswith(('{"time"', "execsrv listening")) for line in log.splitlines())


def test_a_token_in_a_message_with_a_mistake_is_not_in_the_log(tmp_path: Path) -> None:
    opaque, signed = new_token(), "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
    path = tmp_path / "s"
    with daemon(f"unix://{path}") as (process, _):
        assert process.stderr is not None
        for token in (opaque, signed):
            for said in (f'{{"id":1,"params":{{"token":"{token}"', f"Authorization: Bearer {token}", f'["{token}"]'):
                with socket.socket(socket.AF_UNIX) as peer:
                    peer.connect(str(path))
                    peer.sendall(said.encode() + b"\n")
                    assert b"malformed" in peer.recv(10_000)
        process.terminate()
        log = process.stderr.read()
    assert log.count("malformed message") == 6
    assert opaque[:12] not in log
    assert signed[:12] not in log


async def test_what_an_http_request_is_answered_is_in_no_log(tmp_path: Path) -> None:
    pytest.importorskip("httpcore")
    log, path = tmp_path / "log", tmp_path / "s"
    argv = [*EXECSRV, "serve", "--listen", f"unix://{path}", "--log-level", "debug"]
    async with open_web() as web:
        web.page("/", "Set-Cookie: session=secret", body=b"ok")
        with log.open("w") as out, ExitStack() as stack:
            process = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=out))  # noqa: ASYNC220
            stack.callback(process.kill)
            await trio.to_thread.run_sync(until_listening, path, process)
            async with connect_unix(path) as client:
                assert (await client.http.request("GET", f"{web.url}/")).body == b"ok"
            process.terminate()
            await trio.to_thread.run_sync(process.wait, PATIENCE)
    assert "ending on SIGTERM" in log.read_text()
    assert "secret" not in log.read_text()


WITHOUT_THREADS = """
import os, resource
from execsrv._outlet import open_outlet
os.setuid(int.from_bytes(os.urandom(3), "big") + 100_000)
resource.setrlimit(resource.RLIMIT_NPROC, (0, resource.getrlimit(resource.RLIMIT_NPROC)[1]))
with open_outlet(1, lambda error: os.write(2, error.strerror.encode())) as lines:
    lines.say("first")
    resource.setrlimit(resource.RLIMIT_NPROC, (1000, resource.getrlimit(resource.RLIMIT_NPROC)[1]))
    lines.say("second")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody with a limit")
def test_what_was_said_without_a_thread_comes_with_the_next_line() -> None:
    said = subprocess.run([sys.executable, "-c", WITHOUT_THREADS], capture_output=True, check=True)
    assert (said.stdout, said.stderr) == (b"first\nsecond\n", b"no thread to be had")
