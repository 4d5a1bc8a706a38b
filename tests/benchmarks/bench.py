"""Measure exec servers that speak `process/*`: execsrv, and others beside it.

One plain client, the same for every server, asks each of them to do the same things. A case starts a fresh server,
measures, and stops it; the servers take turns, case by case and round by round, so that a noisy minute hits all alike.
Printed are medians over the rounds, their spread, and the ratios to the first server. Nothing here passes or fails by
a time. A case only fails when a server does not answer, or answers wrongly.

In this order: processes, bytes and messages, the client, the server, the cases, the report, the command line.
"""

from __future__ import annotations

import argparse
import base64
import compileall
import hashlib
import io
import json
import math
import multiprocessing
import os
import platform
import runpy
import select
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import msgspec

MIB = 1 << 20
GIB = 1 << 30
LOOPBACK = "127.0.0.1"
READ_BYTES = 256 << 10
STARTUP_POLL_SECONDS = 0.002
STOP_SECONDS = 5.0

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "TERM": "xterm"}
"""What every measured command gets."""

Message = dict[str, Any]


class BenchError(Exception):
    """A server did not do what it was asked to do."""


# Processes: what the kernel says about them


class Stat(NamedTuple):
    """What `/proc/PID/stat` says, as far as we care."""

    parent: int
    state: str
    cpu_ticks: int
    started_at: int
    resident_pages: int

    @classmethod
    def of(cls, pid: int) -> Stat | None:
        """None when there is no such process."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return cls(int(fields[1]), fields[0], int(fields[11]) + int(fields[12]), int(fields[19]), int(fields[21]))


def tree_of(root: int) -> dict[int, Stat]:
    """A process and everything that descends from it."""
    everybody = {int(name): Stat.of(int(name)) for name in os.listdir("/proc") if name.isdecimal()}
    found: dict[int, Stat] = {}
    todo = [root]
    while todo:
        pid = todo.pop()
        if (stat := everybody.get(pid)) is not None:
            found[pid] = stat
            todo += [child for child, of_child in everybody.items() if of_child and of_child.parent == pid]
    return found


def working_in(folder: Path) -> dict[int, Stat]:
    """All processes, zombies aside, whose working directory is this folder."""
    found: dict[int, Stat] = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        try:
            is_there = os.readlink(f"/proc/{pid}/cwd") == str(folder)
        except OSError:
            continue  # gone, a zombie, or somebody else's
        if is_there and (stat := Stat.of(pid)) is not None:
            found[pid] = stat
    return found


def lives(pid: int, known: Stat) -> bool:
    """Whether this very process still runs: a zombie does not, nor does a stranger with the same number."""
    now = Stat.of(pid)
    return now is not None and now.started_at == known.started_at and now.state != "Z"


def kill(pid: int, known: Stat) -> None:
    """Kill this very process, if it still runs."""
    try:
        if lives(pid, known):
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it was faster


def kill_group(leader: int) -> None:
    """Kill whoever is left of a process group."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nobody


# Bytes and messages: a socket, or the two pipes of a server's stdin and stdout


class Stream:
    """Bytes to and from a server. Both ends are used as if they blocked.

    While a send waits for room, what arrives is read: a server that waits for its reader before it reads on would
    otherwise wait for us while we wait for it.
    """

    def __init__(self, source: int, target: int) -> None:
        self._source = source
        self._target = target
        self._unread = bytearray()
        os.set_blocking(source, False)
        os.set_blocking(target, False)

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._target, rest) :]
            except BlockingIOError:
                readable, _, _ = select.select([self._source], [self._target], [])
                if readable:
                    self._fill()

    def take(self, size: int) -> bytes:
        """Exactly so many bytes, from the front."""
        while len(self._unread) < size:
            self._fill()
        with memoryview(self._unread) as view:
            taken = bytes(view[:size])
        del self._unread[:size]
        return taken

    def take_through(self, mark: bytes) -> bytes:
        """All bytes up to the mark, and the mark."""
        searched = 0
        while (found := self._unread.find(mark, searched)) < 0:
            searched = max(0, len(self._unread) - len(mark) + 1)
            self._fill()
        return self.take(found + len(mark))

    def _fill(self) -> None:
        while True:
            try:
                data = os.read(self._source, READ_BYTES)
                break
            except BlockingIOError:
                select.select([self._source], [], [])
        if not data:
            raise BenchError("the server hung up")
        self._unread += data


class QuickackStream(Stream):
    """The same over a socket, with all that arrives acknowledged at once.

    A server that leaves Nagle's algorithm on holds a small frame back until the one before it is acknowledged. The
    kernel puts that off for up to 40 ms, unless it is asked not to, anew before each read.
    """

    def _fill(self) -> None:
        with socket.socket(fileno=os.dup(self._source)) as same:
            same.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        super()._fill()


class Channel(ABC):
    """Whole messages, in bytes. They are JSON unless they are packed: then they are msgpack."""

    is_packed = False

    @abstractmethod
    def send(self, message: bytes) -> None: ...

    @abstractmethod
    def receive(self) -> bytes: ...

    @abstractmethod
    def close(self) -> None: ...


class LineChannel(Channel):
    """One message a line, over a server's own stdin and stdout."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        assert process.stdout
        self._pipes = process.stdin, process.stdout
        self._stream = Stream(process.stdout.fileno(), process.stdin.fileno())

    def send(self, message: bytes) -> None:
        self._stream.send(len(message).to_bytes(4, "little") + message if self.is_packed else message + b"\n")

    def receive(self) -> bytes:
        if self.is_packed:
            return self._stream.take(int.from_bytes(self._stream.take(4), "little"))
        return self._stream.take_through(b"\n")

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()


class WebsocketChannel(Channel):
    """One message a frame, in the part of RFC 6455 that a well-behaved server needs."""

    CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
    FINAL = 0x80
    MASKED = 0x80
    MASK = bytes(4)  # masking with zeros costs the client nothing, and every server the same

    def __init__(self, port: int, is_quickack: bool) -> None:
        self._socket = socket.create_connection((LOOPBACK, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = (QuickackStream if is_quickack else Stream)(self._socket.fileno(), self._socket.fileno())
        try:
            self._shake_hands(port)
        except BaseException:
            self.close()
            raise

    def _shake_hands(self, port: int) -> None:
        lines = [
            "GET / HTTP/1.1",
            f"Host: {LOOPBACK}:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
        ]
        self._stream.send("\r\n".join([*lines, "", ""]).encode())
        status = self._stream.take_through(b"\r\n\r\n").partition(b"\r\n")[0]
        if b" 101 " not in status + b" ":
            raise BenchError(f"no websocket: {status!r}")

    def send(self, message: bytes) -> None:
        self._send_frame(self.BINARY if self.is_packed else self.TEXT, message)

    def receive(self) -> bytes:
        parts: list[bytes] = []
        while True:
            opcode, final, payload = self._receive_frame()
            if opcode == self.CLOSE:
                raise BenchError(f"the server closed the connection: {payload[2:]!r}")
            if opcode == self.PING:
                self._send_frame(self.PONG, payload)
            elif opcode in (self.CONTINUATION, self.TEXT, self.BINARY):
                parts.append(payload)
                if final:
                    return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        self._socket.close()

    def _send_frame(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            length = bytes([self.MASKED | size])
        elif size < 1 << 16:
            length = bytes([self.MASKED | 126]) + size.to_bytes(2, "big")
        else:
            length = bytes([self.MASKED | 127]) + size.to_bytes(8, "big")
        self._stream.send(bytes([self.FINAL | opcode]) + length + self.MASK + payload)

    def _receive_frame(self) -> tuple[int, bool, bytes]:
        first, size = self._stream.take(2)
        if size == 126:
            size = int.from_bytes(self._stream.take(2), "big")
        elif size == 127:
            size = int.from_bytes(self._stream.take(8), "big")
        return first & 0x0F, bool(first & self.FINAL), self._stream.take(size)


# The client


class Client:
    """One connection to a server. An error from the server ends the case."""

    def __init__(self, channel: Channel, folder: Path) -> None:
        self._channel = channel
        self._folder = folder
        self._ids = count(1)
        self._came_early: deque[Message] = deque()

    def initialize(self, encoding: str) -> None:
        if encoding == "json":
            self.call("initialize", {"clientName": "bench"})
        elif self.call("initialize", {"clientName": "bench", "encoding": encoding}).get("encoding") != encoding:
            raise BenchError(f"the server does not speak {encoding}")
        self._channel.is_packed = encoding == "msgpack"
        self._send({"method": "initialized", "params": {}})

    def _send(self, message: Message) -> None:
        self._channel.send(msgspec.msgpack.encode(message) if self._channel.is_packed else json.dumps(message).encode())

    def request(self, method: str, params: Message) -> int:
        """Send a request, without waiting for its answer; its id."""
        request_id = next(self._ids)
        self._send({"id": request_id, "method": method, "params": params})
        return request_id

    def call(self, method: str, params: Message) -> Any:
        """Send a request and wait for its answer. Notifications before it are kept for `receive`."""
        request_id = self.request(method, params)
        while True:
            message = parsed(self._channel.receive())
            if message.get("id") == request_id and "method" not in message:
                return message.get("result")
            self._came_early.append(message)

    def receive(self) -> Message:
        return self._came_early.popleft() if self._came_early else parsed(self._channel.receive())

    def until(self, method: str, process_id: str) -> None:
        """Wait for a notification about this process; what comes before it is dropped."""
        while not is_about(self.receive(), method, process_id):
            pass

    def until_closed(self, processes: int) -> list[bytes]:
        """All messages until so many processes have closed, hardly looked at: whoever measures parses them later."""
        messages = []
        closed = 0
        while closed < processes:
            message = self._channel.receive()
            messages.append(message)
            if message.startswith(PACKED_CLOSED) or b'"process/closed"' in message:
                closed += 1
            elif message.startswith(PACKED_ANSWER) or b'"id"' in message:
                parsed(message)
        return messages

    def drain(self) -> None:
        """Receive for ever, and look at nothing."""
        self._came_early.clear()
        while True:
            self._channel.receive()

    def request_start(self, process_id: str, argv: Sequence[str], *, tty: bool = False, stdin: bool = False) -> int:
        return self.request("process/start", self._start_params(process_id, argv, tty, stdin))

    def start(
        self, process_id: str, argv: Sequence[str], *, tty: bool = False, stdin: bool = False, **others: Any
    ) -> None:
        """Start a command. The `others` are parameters as they are sent."""
        self.call("process/start", self._start_params(process_id, argv, tty, stdin) | others)

    def run(self, process_id: str, argv: Sequence[str], *, tty: bool = False) -> None:
        """Start a command and wait until it has closed."""
        self.start(process_id, argv, tty=tty)
        self.until("process/closed", process_id)

    def request_write(self, process_id: str, data: bytes) -> int:
        """Send a write, without waiting for its answer; its id.

        The request is put together by hand: base64 needs no escaping, and the client should cost little.
        """
        request_id = next(self._ids)
        if self._channel.is_packed:
            params = {"processId": process_id, "writeId": f"write-{request_id}", "chunk": data}
            self._send({"id": request_id, "method": "process/write", "params": params})
            return request_id
        head = f'{{"id":{request_id},"method":"process/write","params":{{"processId":"{process_id}",'
        head += f'"writeId":"write-{request_id}","chunk":"'
        self._channel.send(head.encode() + base64.b64encode(data) + b'"}}')
        return request_id

    def terminate(self, process_id: str) -> None:
        self.call("process/terminate", {"processId": process_id})

    def close(self) -> None:
        self._channel.close()

    def _start_params(self, process_id: str, argv: Sequence[str], tty: bool, stdin: bool) -> Message:
        return {
            "processId": process_id,
            "argv": [shutil.which(argv[0], path=ENVIRONMENT["PATH"]) or argv[0], *argv[1:]],
            "cwd": self._folder.as_uri(),
            "env": ENVIRONMENT,
            "tty": tty,
            "pipeStdin": stdin,
            "arg0": None,
        }


def parsed(data: bytes) -> Message:
    message = msgspec.msgpack.decode(data) if data[0] >= FIRST_PACKED else json.loads(data)
    if not isinstance(message, dict):
        raise BenchError(f"the server sent {data[:100]!r}")
    if message.get("error"):
        raise BenchError(f"the server answered {message['error']}")
    return message


def is_about(message: Message, method: str, process_id: str) -> bool:
    return message.get("method") == method and message["params"]["processId"] == process_id


def output_in(message: Message) -> bytes:
    """The output that a message carries; empty for every other message."""
    if message.get("method") != "process/output":
        return b""
    chunk = message["params"]["chunk"]
    return chunk if isinstance(chunk, bytes) else base64.b64decode(chunk)


# The server


class Server:
    """A server that runs for one case. Made by `running`.

    All its commands run in a folder that nobody else has; that is how their processes are found.
    """

    def __init__(self, command: str, stdio: bool, folder: Path) -> None:
        self.command = command
        self.stdio = stdio
        self._encoding = "msgpack" if command.startswith(MSGPACK) else "json"
        self._is_quickack = command.startswith(QUICKACK)
        self.startup_seconds = math.nan
        self._folder = folder
        self._port = 0 if stdio else free_port()
        self._pids: list[int] = []
        listen = "stdio://" if stdio else f"ws://{LOOPBACK}:{self._port}"
        bare = command.removeprefix(MSGPACK).removeprefix(QUICKACK)
        self._started_at = time.perf_counter()
        with self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                [part.replace("{listen}", listen) for part in shlex.split(bare)],
                bufsize=0,
                stdin=subprocess.PIPE if stdio else subprocess.DEVNULL,
                stdout=subprocess.PIPE if stdio else subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, "CODEX_HOME": str(folder)},  # nobody's settings take part
                start_new_session=True,
            )

    @property
    def _stderr(self) -> Path:
        return self._folder / "stderr"

    def first_client(self) -> Client:
        """Wait until the server answers."""
        while True:
            try:
                client = self.connect()
                break
            except ConnectionRefusedError:
                if self._process.poll() is not None:
                    raise BenchError(f"the server ended with status {self._process.returncode}") from None
                time.sleep(STARTUP_POLL_SECONDS)
        self.startup_seconds = time.perf_counter() - self._started_at
        self._pids = list(tree_of(self._process.pid))
        return client

    def connect(self) -> Client:
        """A client that has shaken hands. Over stdio there can only be one."""
        channel = LineChannel(self._process) if self.stdio else WebsocketChannel(self._port, self._is_quickack)
        client = Client(channel, self._folder)
        client.initialize(self._encoding)
        return client

    def resident_mib(self) -> float:
        """Memory of the server's own processes: those that ran when it was ready, not the commands."""
        pages = sum(stat.resident_pages for stat in map(Stat.of, self._pids) if stat)
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB

    def cpu_seconds(self) -> float:
        """Processor time that the server's own processes have used so far."""
        ticks = sum(stat.cpu_ticks for stat in map(Stat.of, self._pids) if stat)
        return ticks / os.sysconf("SC_CLK_TCK")

    def commands(self) -> dict[int, Stat]:
        """The processes of the commands that run now."""
        return working_in(self._folder)

    def last_words(self) -> str:
        """The end of what it wrote to its stderr."""
        return self._stderr.read_text(errors="replace").strip()[-300:]

    def stop(self) -> None:
        """Ask it to end, then make it; neither its own processes nor its commands survive."""
        tree = tree_of(self._process.pid)
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass  # made to end below
        finally:
            for pid, stat in {**tree, **self.commands()}.items():
                kill(pid, stat)
            kill_group(self._process.pid)
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    pipe.close()


@contextmanager
def running(command: str, *, stdio: bool) -> Iterator[Server]:
    """Start a server; in the end it, its commands and its folder are gone."""
    with tempfile.TemporaryDirectory(prefix="exec-bench-", ignore_cleanup_errors=True) as folder:
        server = Server(command, stdio, Path(folder).resolve())
        try:
            yield server
        finally:
            server.stop()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        port: int = listener.getsockname()[1]
        return port


# The cases


class Figure(NamedTuple):
    """One measured number."""

    name: str
    value: float
    unit: str
    better: str = "less"


Case = Callable[[Server, Client], list[Figure]]
"""Gets a fresh server and its first client."""

START_UPS = 5
SEQUENTIAL_STARTS = 200
TERMINAL_STARTS = 100
MANY_STARTS = 600
STARTS_IN_FLIGHT = 32
LOGIN_STARTS = 20
LOGIN_FILE = "for i in {1..150}; do /bin/true; done; export MADE=yes; made() { echo yes; }; shopt -s extglob\n"
"""Some 200 ms of programs."""
CONNECTIONS = 60
PIPE_BYTES = 256 * MIB
LINES_BYTES = 64 * MIB
TERMINAL_BYTES = 32 * MIB
KEYS = 500
STDIN_BYTES = 32 * MIB
WRITE_BYTES = 64 << 10
WRITES_IN_FLIGHT = 8
CAT_BYTES_UNDER_WAY = MIB
IDLE_SESSIONS = 200
IDLE_SECONDS = 2.0
KILL_WAIT_SECONDS = 5.0
WAYS = 50
WAY_BYTES = 2 * MIB
SLOW_SECONDS = 4.0
SLOW_BYTES = GIB
PAUSE_SECONDS = 60.0
PAUSE_BYTES = 4 * GIB
PIECES = tuple(4**power for power in range(3, 11))
PIECES_BYTES = 128 * MIB
PIECES_MAX = 256 << 10
LOADS = 0, 1, 4, 16, 50
LOADED_SAMPLES = 200
LOADED_SECONDS = 2.0


def start_up(server: Server, client: Client) -> list[Figure]:
    """From the start of the server until it has answered `initialize`."""
    samples = [server.startup_seconds]
    while len(samples) < START_UPS:
        with running(server.command, stdio=server.stdio) as another:
            another.first_client()
            samples.append(another.startup_seconds)
    return [Figure("start-up", milliseconds(statistics.median(samples)), "ms")]


def spawn(server: Server, client: Client) -> list[Figure]:
    """`true`, one after the other."""
    answered, closed = [], []
    for number in range(SEQUENTIAL_STARTS):
        begin = time.perf_counter()
        client.start(f"spawn-{number}", ["true"])
        answered.append(time.perf_counter() - begin)
        client.until("process/closed", f"spawn-{number}")
        closed.append(time.perf_counter() - begin)
    return [
        Figure("spawn, answered, p50", milliseconds(percentile(answered, 50)), "ms"),
        Figure("spawn, closed, p50", milliseconds(percentile(closed, 50)), "ms"),
        Figure("spawn, closed, p99", milliseconds(percentile(closed, 99)), "ms"),
    ]


def pty_spawn(server: Server, client: Client) -> list[Figure]:
    """`true` in a terminal, one after the other."""
    closed = []
    for number in range(TERMINAL_STARTS):
        begin = time.perf_counter()
        client.run(f"spawn-{number}", ["true"], tty=True)
        closed.append(time.perf_counter() - begin)
    return [
        Figure("pty spawn, closed, p50", milliseconds(percentile(closed, 50)), "ms"),
        Figure("pty spawn, closed, p99", milliseconds(percentile(closed, 99)), "ms"),
    ]


def login_shells(server: Server, client: Client) -> list[Figure]:
    """`bash -lc true` with login files that start programs, one after the other: each time, and then as one scope."""
    argv = ["/bin/bash", "-lc", "true"]
    snapshot = {"scopeId": "bench", "shell": {"name": "bash", "path": argv[0]}}
    with tempfile.TemporaryDirectory(prefix="exec-bench-") as home:
        Path(home, ".bash_profile").write_text(LOGIN_FILE)

        def seconds(name: str, **others: Any) -> float:
            begin = time.perf_counter()
            client.start(name, argv, env={**ENVIRONMENT, "HOME": home}, **others)
            client.until("process/closed", name)
            return time.perf_counter() - begin

        plain = [seconds(f"plain-{number}") for number in range(LOGIN_STARTS)]
        first = seconds("first", shellSnapshot=snapshot)
        restored = [seconds(f"restored-{number}", shellSnapshot=snapshot) for number in range(LOGIN_STARTS)]
    return [
        Figure("login shell, closed, p50", milliseconds(percentile(plain, 50)), "ms"),
        Figure("login shell, first with snapshot", milliseconds(first), "ms"),
        Figure("login shell, with snapshot, p50", milliseconds(percentile(restored, 50)), "ms"),
    ]


def in_flight(server: Server, client: Client) -> list[Figure]:
    """`true`, many at a time."""
    started = closed = 0
    begin = time.perf_counter()
    while closed < MANY_STARTS:
        while started < MANY_STARTS and started - closed < STARTS_IN_FLIGHT:
            client.request_start(f"many-{started}", ["true"])
            started += 1
        closed += client.receive().get("method") == "process/closed"
    rate = MANY_STARTS / (time.perf_counter() - begin)
    return [Figure(f"starts, {STARTS_IN_FLIGHT} in flight", rate, "per s", "more")]


def connections(server: Server, client: Client) -> list[Figure]:
    """Connect, shake hands, run `true`, hang up."""
    samples = []
    for _ in range(CONNECTIONS):
        begin = time.perf_counter()
        another = server.connect()
        another.run("only", ["true"])
        samples.append(time.perf_counter() - begin)
        another.close()
    return [Figure("connect and run, p50", milliseconds(percentile(samples, 50)), "ms")]


def pipe(server: Server, client: Client) -> list[Figure]:
    """256 MiB of output through a pipe."""
    return stream(server, client, "pipe", ["head", "-c", str(PIPE_BYTES), "/dev/zero"], PIPE_BYTES)


def lines(server: Server, client: Client) -> list[Figure]:
    """64 MiB of short lines through a pipe."""
    script = f"yes 'the quick brown fox jumps over the lazy dog 0123456789' | head -c {LINES_BYTES}"
    return stream(server, client, "lines", ["sh", "-c", script], LINES_BYTES)


def terminal(server: Server, client: Client) -> list[Figure]:
    """32 MiB of output through a raw terminal."""
    script = f"stty raw; head -c {TERMINAL_BYTES} /dev/zero"
    return stream(server, client, "terminal", ["sh", "-c", script], TERMINAL_BYTES, tty=True)


def stream(
    server: Server, client: Client, name: str, argv: Sequence[str], size: int, *, tty: bool = False
) -> list[Figure]:
    """Let a command print, and take it all."""
    cpu_before = server.cpu_seconds()
    begin = time.perf_counter()
    client.request_start("stream", argv, tty=tty)
    messages = client.until_closed(1)
    elapsed = time.perf_counter() - begin
    cpu = server.cpu_seconds() - cpu_before
    return [
        Figure(name, size / MIB / elapsed, "MiB/s", "more"),
        Figure(f"{name}, server cpu", cpu / (size / GIB), "s/GiB"),
        Figure(f"{name}, messages", len(messages), ""),
        Figure(f"{name}, delivered", 100 * output_size(messages) / size, "%", "more"),
    ]


def echo(server: Server, client: Client) -> list[Figure]:
    """One key, through a raw terminal and `cat`, and back."""
    start_echo(client)
    samples = [seconds_of_one_key(client) for _ in range(KEYS)]
    client.terminate("echo")
    return [
        Figure("echo, p50", milliseconds(percentile(samples, 50)), "ms"),
        Figure("echo, p99", milliseconds(percentile(samples, 99)), "ms"),
    ]


def start_echo(client: Client) -> None:
    client.start("echo", ["sh", "-c", "stty raw -echo; echo ready; exec cat"], tty=True)
    client.until("process/output", "echo")
    time.sleep(0.2)  # until `cat` has taken over from the shell


def seconds_of_one_key(client: Client) -> float:
    """Until the echo is here; it then also waits for the write's answer, so that no answer is left for the next key."""
    begin = time.perf_counter()
    request_id = client.request_write("echo", b"x")
    echoed_at: float | None = None
    answered = False
    while echoed_at is None or not answered:
        message = client.receive()
        if output_in(message):
            echoed_at = time.perf_counter()
        answered = answered or message.get("id") == request_id
    return echoed_at - begin


def stdin(server: Server, client: Client) -> list[Figure]:
    """32 MiB into `wc -c`, eight writes of 64 KiB unanswered at a time."""
    client.start("stdin", ["sh", "-c", f"head -c {STDIN_BYTES} | wc -c"], stdin=True)
    piece = bytes(WRITE_BYTES)
    writes = STDIN_BYTES // WRITE_BYTES
    sent = answered = 0
    closed = False
    output = b""
    begin = time.perf_counter()
    while answered < writes or not closed:
        while sent < writes and sent - answered < WRITES_IN_FLIGHT:
            client.request_write("stdin", piece)
            sent += 1
        message = client.receive()
        output += output_in(message)
        answered += "id" in message
        closed = closed or message.get("method") == "process/closed"
    elapsed = time.perf_counter() - begin
    if output.strip() != str(STDIN_BYTES).encode():
        raise BenchError(f"{STDIN_BYTES} bytes were sent, `wc -c` says {output!r}")
    return [Figure("stdin", STDIN_BYTES / MIB / elapsed, "MiB/s", "more")]


def cat(server: Server, client: Client, mib: int = 256) -> list[Figure]:
    """256 MiB into `cat` and back, at most 1 MiB under way; what comes back must be the same."""
    client.start("cat", ["cat"], stdin=True)
    filler = os.urandom(WRITE_BYTES - 8)
    size = mib * MIB
    sent = echoed = 0
    sent_hash, echoed_hash = hashlib.sha256(), hashlib.sha256()
    begin = time.perf_counter()
    while echoed < size:
        while sent < size and sent - echoed + WRITE_BYTES <= CAT_BYTES_UNDER_WAY:
            piece = sent.to_bytes(8, "big") + filler  # no two pieces are the same, so their order counts
            client.request_write("cat", piece)
            sent_hash.update(piece)
            sent += WRITE_BYTES
        message = client.receive()
        if message.get("method") == "process/closed":
            raise BenchError(f"`cat` ended after {echoed} of {size} bytes")
        output = output_in(message)
        echoed_hash.update(output)
        echoed += len(output)
    elapsed = time.perf_counter() - begin
    client.terminate("cat")
    if echoed_hash.digest() != sent_hash.digest():
        raise BenchError(f"{sent} bytes went into `cat`, {echoed} came back, and they are not the same")
    return [Figure(f"cat, {mib} MiB there and back", mib / elapsed, "MiB/s", "more")]


def idle(server: Server, client: Client) -> list[Figure]:
    """200 sleeping commands: their cost, and how fast they are gone after a hang-up."""
    memory_before = server.resident_mib()
    for number in range(IDLE_SESSIONS):
        client.start(f"idle-{number}", ["sleep", "60"])
    memory = server.resident_mib() - memory_before
    cpu_before = server.cpu_seconds()
    time.sleep(IDLE_SECONDS)
    cpu = server.cpu_seconds() - cpu_before
    return [
        Figure("memory, no session", memory_before, "MiB"),
        Figure("memory, per idle session", memory * 1024 / IDLE_SESSIONS, "KiB"),
        Figure(f"cpu, {IDLE_SESSIONS} idle sessions", 100 * cpu / IDLE_SECONDS, "%"),
        Figure(f"{IDLE_SESSIONS} gone after hang-up", milliseconds(seconds_until_gone(server, client)), "ms"),
    ]


def seconds_until_gone(server: Server, client: Client) -> float:
    """From the hang-up until none of the commands runs, or until patience ends."""
    alive = list(server.commands().items())
    if len(alive) < IDLE_SESSIONS:
        raise BenchError(f"only {len(alive)} of {IDLE_SESSIONS} commands are there")
    begin = time.perf_counter()
    client.close()
    while alive and time.perf_counter() - begin < KILL_WAIT_SECONDS:
        if lives(*alive[-1]):
            time.sleep(0.002)
        else:
            alive.pop()
    return time.perf_counter() - begin


def fifty_ways(server: Server, client: Client) -> list[Figure]:
    """50 commands at once, 2 MiB each, over one connection."""
    begin = time.perf_counter()
    for number in range(WAYS):
        client.request_start(f"way-{number}", ["head", "-c", str(WAY_BYTES), "/dev/zero"])
    messages = client.until_closed(WAYS)
    elapsed = time.perf_counter() - begin
    size = WAYS * WAY_BYTES
    return [
        Figure(f"{WAYS} ways", size / MIB / elapsed, "MiB/s", "more"),
        Figure(f"{WAYS} ways, delivered", 100 * output_size(messages) / size, "%", "more"),
    ]


def slow_reader(server: Server, client: Client) -> list[Figure]:
    """A client that never reads what its command prints: the server's memory, others' wait."""
    memory_before = server.resident_mib()
    client.start("flood", ["head", "-c", str(SLOW_BYTES), "/dev/zero"])
    peak = memory_before
    begin = time.perf_counter()
    while time.perf_counter() - begin < SLOW_SECONDS:
        peak = max(peak, server.resident_mib())
        time.sleep(0.05)
    figures = [Figure("slow reader, memory growth", peak - memory_before, "MiB")]
    if not server.stdio:
        another = server.connect()
        begin = time.perf_counter()
        another.run("another", ["true"])
        elapsed = time.perf_counter() - begin
        another.close()
        figures.append(Figure("slow reader, other's spawn", milliseconds(elapsed), "ms"))
    return figures


def paused_reader(server: Server, client: Client) -> list[Figure]:
    """A client that stops reading for a minute while its command has 4 GiB to print, and then reads all of it."""
    script = f"head -c {PAUSE_BYTES} /dev/zero | tr '\\0' x"
    client.start("flood", ["sh", "-c", script])
    memory_before = peak = server.resident_mib()
    waits: list[float] = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < PAUSE_SECONDS:
        if not server.stdio:
            asked = time.perf_counter()
            another = server.connect()
            another.run("another", ["true"])
            another.close()
            waits.append(time.perf_counter() - asked)
        peak = max(peak, server.resident_mib())
        time.sleep(0.5)
    got = 0
    read_from = time.perf_counter()
    while True:
        message = client.receive()
        output = output_in(message)
        if output.strip(b"x"):
            raise BenchError("other bytes came than were printed")
        got += len(output)
        if is_about(message, "process/closed", "flood"):
            break
        if got % (64 * MIB) < len(output):
            peak = max(peak, server.resident_mib())
    elapsed = time.perf_counter() - read_from
    if got != PAUSE_BYTES:
        raise BenchError(f"{got} of {PAUSE_BYTES} bytes arrived")
    figures = [
        Figure("paused reader, memory growth", peak - memory_before, "MiB"),
        Figure("paused reader, when it reads on", got / MIB / elapsed, "MiB/s", "more"),
    ]
    if waits:
        figures.append(Figure("paused reader, other's connect and run, p99", milliseconds(percentile(waits, 99)), "ms"))
    return figures


def sizes(server: Server, client: Client) -> list[Figure]:
    """Output in writes of 64 B to 1 MiB. Only when it is named."""
    figures = []
    for piece in PIECES:
        argv, size = writing(piece)
        begin = time.perf_counter()
        client.request_start(f"sized-{piece}", argv)
        messages = client.until_closed(1)
        elapsed = time.perf_counter() - begin
        if output_size(messages) != size:
            raise BenchError(f"{output_size(messages)} of {size} bytes arrived")
        figures.append(Figure(f"pipe, writes of {piece} B", size / MIB / elapsed, "MiB/s", "more"))
    return figures


def writing(piece: int) -> tuple[list[str], int]:
    """A command that writes pieces of that size, each by one system call, and how many bytes in all."""
    pieces = min(PIECES_BYTES // piece, PIECES_MAX)
    return ["dd", "if=/dev/zero", f"bs={piece}", f"count={pieces}", "status=none"], piece * pieces


def load(server: Server, client: Client) -> list[Figure]:
    """`true` and a key, beside 0 to 50 commands that print. Only when it is named, not with `--stdio`."""
    figures = []
    for others in LOADS:
        with running(server.command, stdio=False) as loaded:
            one = loaded.first_client()
            with others_printing(loaded, others):
                numbers = count()
                closed = samples_under_load(partial(seconds_of_true, one, numbers))
                start_echo(one)
                keys = samples_under_load(partial(seconds_of_one_key, one))
            one.close()
        for name, samples in (("spawn, closed", closed), ("echo", keys)):
            for percent in (50, 99):
                value = milliseconds(percentile(samples, percent))
                figures.append(Figure(f"{name}, {others} others, p{percent}", value, "ms"))
    return figures


def seconds_of_true(client: Client, numbers: Iterator[int]) -> float:
    begin = time.perf_counter()
    client.run(f"true-{next(numbers)}", ["true"])
    return time.perf_counter() - begin


def samples_under_load(sample: Callable[[], float]) -> list[float]:
    """As many as there may be, or as the time allows, and one at least."""
    end = time.perf_counter() + LOADED_SECONDS
    samples = [sample()]
    while len(samples) < LOADED_SAMPLES and time.perf_counter() < end:
        samples.append(sample())
    return samples


@contextmanager
def others_printing(server: Server, others: int) -> Iterator[None]:
    """Another client, in a process of its own, whose commands print as fast as they can while it reads."""
    if not others:
        yield
        return
    processes = multiprocessing.get_context("fork")
    begun, begins = processes.Pipe(duplex=False)
    reader = processes.Process(target=read_others, args=(server, others, begins), daemon=True)
    reader.start()
    begins.close()
    try:
        begun.recv()
        yield
        if not reader.is_alive():
            raise BenchError("the client that reads the others has ended")
    except EOFError:
        raise BenchError("the others could not be started") from None
    finally:
        reader.kill()
        reader.join()
        reader.close()
        begun.close()


def read_others(server: Server, others: int, begins: Connection) -> None:
    """What that client does, until it is killed."""
    client = server.connect()
    for number in range(others):
        client.start(f"other-{number}", ["cat", "/dev/zero"])
    begins.send(None)
    client.drain()


def client_files(server: Server, client: Client) -> list[Figure]:
    """The client of execsrv and its own server: 1 GiB and many small files, there and back."""
    rows = runpy.run_path(str(Path(__file__).with_name("client_files.py")))["rows"]  # which needs execsrv
    return [Figure(name, value, unit, "less" if unit == "MiB" else "more") for name, unit, value in rows()]


CASES: dict[str, Case] = {
    "start-up": start_up,
    "spawn": spawn,
    "pty-spawn": pty_spawn,
    "login-shells": login_shells,
    "in-flight": in_flight,
    "connections": connections,
    "pipe": pipe,
    "lines": lines,
    "terminal": terminal,
    "echo": echo,
    "stdin": stdin,
    "cat": cat,
    "idle": idle,
    "50-way": fifty_ways,
    "slow-reader": slow_reader,
    "paused-reader": paused_reader,
    "client-files": client_files,
    "sizes": sizes,
    "load": load,
}
ONLY_WHEN_ASKED = {"paused-reader", "client-files", "sizes", "load"}
"""Takes minutes, is about the client, or is for a plot."""
NEEDS_CONNECTIONS = {"connections", "load"}


def output_size(messages: list[bytes]) -> int:
    return sum(len(output_in(parsed(message))) for message in messages)


def percentile(samples: list[float], percent: int) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def milliseconds(seconds: float) -> float:
    return seconds * 1000


# The rounds and the report


@dataclass
class Row:
    """One figure of the report: a value for every round, server by server."""

    case: str
    unit: str
    better: str
    values: dict[str, list[float]] = field(default_factory=dict)

    def median(self, server: str) -> float:
        return statistics.median(self.values.get(server, [math.nan]))

    def spread(self, server: str) -> float:
        """The distance from the lowest to the highest round, in percent of the median."""
        values = self.values.get(server, [])
        median = self.median(server)
        return 100 * (max(values) - min(values)) / median if len(values) > 1 and median > 0 else math.nan

    def ratio(self, server: str, base: str) -> float:
        return self.median(server) / self.median(base) if self.median(base) else math.nan

    def ratios(self, server: str, base: str) -> list[float]:
        """The ratio of each round, in order. Empty where a round of either failed."""
        pairs = self.values.get(server, []), self.values.get(base, [])
        if len(pairs[0]) != len(pairs[1]) or not all(pairs[1]):
            return []
        return sorted(value / of_base for value, of_base in zip(*pairs, strict=True))


@dataclass
class Report:
    """What all rounds gave."""

    rows: dict[str, Row] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, case: str, server: str, figures: list[Figure]) -> None:
        for figure in figures:
            row = self.rows.setdefault(figure.name, Row(case, figure.unit, figure.better))
            row.values.setdefault(server, []).append(figure.value)


def measure_all(servers: dict[str, str], cases: dict[str, Case], options: argparse.Namespace) -> Report:
    """Every case on every server, round by round; every other round begins with the last server."""
    report = Report()
    for number in range(options.rounds):
        for case_name, case in cases.items():
            names = list(servers)
            for name in names if number % 2 == 0 else reversed(names):
                show_progress(f"round {number + 1} of {options.rounds}: {case_name}, {name}")
                try:
                    figures = measure(servers[name], case, stdio=options.stdio, seconds=options.time_limit)
                    report.add(case_name, name, figures)
                except (BenchError, OSError) as error:
                    report.failures.append(f"{case_name} failed on {name} in round {number + 1}: {error}")
    show_progress("")
    return report


def measure(command: str, case: Case, *, stdio: bool, seconds: float) -> list[Figure]:
    """One case on a fresh server."""
    with running(command, stdio=stdio) as server:
        try:
            with time_limit(seconds):
                client = server.first_client()
                figures = case(server, client)
                client.close()
                return figures
        except (BenchError, OSError, LookupError, ValueError) as error:
            reason = str(error) if isinstance(error, BenchError | OSError) else f"a strange answer ({error!r})"
            words = server.last_words()
            raise BenchError(f"{reason}; its stderr: {words}" if words else reason) from error


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Whatever the block waits for, it ends after so many seconds."""

    def give_up(signum: int, frame: FrameType | None) -> None:
        raise BenchError(f"not done after {seconds:g} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def show_progress(text: str) -> None:
    """Say on a terminal what is going on, in a line that the next one replaces."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def print_report(report: Report, servers: Sequence[str], *, rounds: int) -> None:
    base, *others = servers
    heads = ["figure", "unit", "better"]
    heads += [head for server in servers for head in (server, "spread")]
    heads += [head for other in others for head in (f"{other}/{base}", "by round")]
    table = [heads]
    for name, row in report.rows.items():
        cells = [name, row.unit, row.better]
        for server in servers:
            cells += [shown(row.median(server)), shown(row.spread(server), "{:.0f}%")]
        for other in others:
            ratios = row.ratios(other, base)
            cells += [shown(row.ratio(other, base), "{:.2f}")]
            cells += [f"{ratios[0]:.2f} to {ratios[-1]:.2f}" if len(ratios) > 1 else "-"]
        table.append(cells)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print(f"medians of {rounds} rounds" if rounds > 1 else "one round")
    for cells in table:
        words = [cell.ljust(width) for cell, width in zip(cells[:3], widths[:3], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(cells[3:], widths[3:], strict=True)]
        print("  ".join(words + numbers))
    for failure in report.failures:
        print(failure, file=sys.stderr)


def shown(value: float, style: str | None = None) -> str:
    """A number with as many decimals as it deserves."""
    if math.isnan(value):
        return "-"
    return (style or ("{:.3f}" if abs(value) < 10 else "{:.1f}" if abs(value) < 1000 else "{:.0f}")).format(value)


def write_json(path: Path, report: Report, servers: dict[str, str], options: argparse.Namespace) -> None:
    """Every value of every round, and where they come from."""
    document = {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "transport": "stdio" if options.stdio else "websocket",
        "rounds": options.rounds,
        "servers": servers,
        "figures": [{"figure": name, **vars(row)} for name, row in report.rows.items()],
        "failures": report.failures,
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


# The command line

DESCRIPTION = """\
Measure execsrv, and other servers of the same protocol beside it.

Every case runs on a fresh server; the servers take turns. Medians over the
rounds are printed, with their spread and the ratios to execsrv.
"""

MSGPACK = "msgpack:"
"""In front of the command of a server that is to be spoken with in msgpack."""
QUICKACK = "quickack:"
"""In front of the command of a server whose frames are to be acknowledged at once."""
FIRST_PACKED = 0x80  # no JSON begins with such a byte
PACKED_CLOSED, PACKED_ANSWER = b"\x82\xa6method\xaeprocess/closed", b"\x82\xa2id"

EXAMPLES = """\
examples:
  python tests/benchmarks/bench.py
  python tests/benchmarks/bench.py --only spawn,echo --rounds 5
  python tests/benchmarks/bench.py --compare HEAD~1 --rounds 9
  python tests/benchmarks/bench.py "codex=codex exec-server --listen {listen}"
  python tests/benchmarks/bench.py "packed=msgpack:python -m execsrv serve --listen {listen}"
  python tests/benchmarks/bench.py --stdio "before=old/bin/python -m execsrv serve --listen {listen}"
"""


def summary_of(case: Case) -> str:
    return (case.__doc__ or "").partition("\n")[0]


def command_line() -> argparse.ArgumentParser:
    cases = "\n".join(f"  {name:14}{summary_of(case)}" for name, case in CASES.items())
    parser = argparse.ArgumentParser(
        prog="bench.py",
        description=DESCRIPTION,
        epilog=f"cases:\n{cases}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "servers",
        nargs="*",
        type=server_argument,
        metavar="NAME=COMMAND",
        help="a further server; {listen} in COMMAND becomes ws://127.0.0.1:PORT, or stdio:// with --stdio. "
        "With `msgpack:` in front of COMMAND the messages are msgpack. "
        "With `quickack:` the client acknowledges at once. "
        "The name `execsrv` replaces the server that is measured first",
    )
    parser.add_argument("--compare", metavar="REV", help="measure execsrv as it was in that commit too")
    parser.add_argument("--stdio", action="store_true", help="talk over the servers' stdin and stdout, not a websocket")
    parser.add_argument(
        "--only", type=cases_argument, metavar="CASE,...", help="measure only these cases, or `client` alone"
    )
    parser.add_argument("--rounds", type=range_argument(1, 100), default=3, metavar="N", help="default: 3")
    parser.add_argument(
        "--cat-mib",
        type=range_argument(1, 1024),
        default=256,
        metavar="MIB",
        help="what the case `cat` sends, at most 1024; default: 256",
    )
    parser.add_argument(
        "--time-limit",
        type=range_argument(1, 3600),
        default=60,
        metavar="SECONDS",
        help="give up a case on a server after this time; default: 60",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every value of every round to FILE")
    return parser


def server_argument(text: str) -> tuple[str, str]:
    name, equals, command = text.partition("=")
    if not name or not equals or "{listen}" not in command:
        raise argparse.ArgumentTypeError(f"expected NAME=COMMAND with {{listen}} in it, not {text!r}")
    return name, command


CLIENT = "client"
"""The name of what client.py measures, which has no other server beside it."""


def cases_argument(text: str) -> list[str]:
    names = text.split(",")
    if names == [CLIENT]:
        return names
    if unknown := [name for name in names if name not in CASES]:
        raise argparse.ArgumentTypeError(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    return names


def range_argument(lowest: int, highest: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        value = int(text)
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"expected {lowest} to {highest}, not {value}")
        return value

    return integer


def serving(folder: Path | None = None) -> str:
    """The command of a server of execsrv: of this Python, or of the package in that folder."""
    there = [] if folder is None else ["env", "-C", str(folder)]
    return shlex.join([*there, sys.executable, "-m", "execsrv", "serve", "--listen", "{listen}"])


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """The package as it was in a commit, compiled, in a folder of its own."""
    archive = subprocess.run(
        ["git", "archive", revision, "execsrv"], cwd=Path(__file__).parents[2], capture_output=True, check=False
    )
    if archive.returncode:
        raise BenchError(f"cannot compare with {revision}: {archive.stderr.decode(errors='replace').strip()}")
    with tempfile.TemporaryDirectory(prefix="exec-bench-") as folder:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder, filter="data")
        compileall.compile_dir(folder, quiet=2)
        yield Path(folder)


def chosen_cases(options: argparse.Namespace) -> dict[str, Case]:
    """The cases to run, in the order of `CASES`."""
    wanted = set(options.only or CASES.keys() - ONLY_WHEN_ASKED)
    if options.stdio:
        wanted -= NEEDS_CONNECTIONS
    cases: dict[str, Case] = {**CASES, "cat": partial(cat, mib=options.cat_mib)}
    return {name: case for name, case in cases.items() if name in wanted}


def end_politely(signum: int, frame: FrameType | None) -> None:
    """Leave by an exception, so that the servers and folders are cleaned up."""
    sys.exit(128 + signum)


def main() -> int:
    parser = command_line()
    options = parser.parse_args()
    if not Path("/proc/self/stat").exists():
        parser.error("this needs Linux: memory and processor time are read from /proc")
    if len(dict(options.servers)) < len(options.servers):
        parser.error("every server needs a name of its own")
    if options.only == [CLIENT]:
        programs = [Path(__file__).with_name(name) for name in ("client.py", "without_trio.py")]
        return max(subprocess.run([sys.executable, program], check=False).returncode for program in programs)
    servers = {"execsrv": serving(), **dict(options.servers)}
    signal.signal(signal.SIGTERM, end_politely)
    signal.signal(signal.SIGHUP, end_politely)
    with ExitStack() as stack:
        try:
            if options.compare is not None:
                servers[options.compare] = serving(stack.enter_context(checked_out(options.compare)))
            report = measure_all(servers, chosen_cases(options), options)
        except KeyboardInterrupt:
            return 130
        except BenchError as error:
            parser.error(str(error))
    print_report(report, list(servers), rounds=options.rounds)
    if options.json:
        write_json(options.json, report, servers, options)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
