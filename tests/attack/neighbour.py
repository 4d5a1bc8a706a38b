"""Somebody else at an attacked server, in a process of his own: what he types comes back, and how long that took.

In the attacker's process he would measure the attacker. He speaks plain sockets and the standard library alone, so
that he starts at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.peers import PATIENCE

FIGURES: dict[str, list[float]] = {}
"""Seconds that each round of a neighbour took, by the test that he lived through."""

PROGRAM = r'''
import base64, json, select, socket, sys, time

UPGRADE = (b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")

class Line:
    def __init__(self, url):
        kind, _, rest = url.partition("://")
        self.is_unix, self.buffer = kind == "unix", b""
        if self.is_unix:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(rest)
            return
        host, _, port = rest.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(UPGRADE)
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        assert self.buffer.startswith(b"HTTP/1.1 101"), self.buffer
        self.buffer = self.buffer.partition(b"\r\n\r\n")[2]

    def more(self):
        data = self.socket.recv(65536)
        assert data, "the server hung up"
        self.buffer += data

    def take(self, count):
        while len(self.buffer) < count:
            self.more()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def say(self, **message):
        data = json.dumps(message).encode()
        if self.is_unix:
            data += b"\n"
        else:
            size = len(data)
            length = bytes([128 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
            data = b"\x81" + length + bytes(4) + data
        self.socket.sendall(data)

    def hear(self):
        if self.is_unix:
            while b"\n" not in self.buffer:
                self.more()
            line, _, self.buffer = self.buffer.partition(b"\n")
            return json.loads(line)
        while True:
            first, size = self.take(2)
            if size > 125:
                size = int.from_bytes(self.take(2 if size == 126 else 8), "big")
            data = self.take(size)
            if first == 0x81:
                return json.loads(data)
            assert first == 0x89, (first, data)
            self.socket.sendall(bytes([0x8A, 128 | size]) + bytes(4) + data)

    def answer(self, id, until=lambda message: False):
        """Hear until this was answered and something was heard; in whatever order."""
        answer = None
        while answer is None or not until():
            message = self.hear()
            if message.get("id") == id:
                answer = message
                assert "result" in message, message
            elif "method" in message:
                told.append(message)
        return answer["result"]

told = []
line = Line(sys.argv[1])
who = {"token": sys.argv[2]} if sys.argv[2:] else {}
line.say(id="hello", method="initialize", params={"clientName": "neighbour", **who})
line.answer("hello", lambda: True)
line.say(method="initialized", params={})
env = {"PATH": "/usr/bin:/bin"}
line.say(id="start", method="process/start",
    params={"processId": "p", "argv": ["cat"], "cwd": "/", "env": env, "tty": False, "pipeStdin": True})
line.answer("start", lambda: True)
expected = heard = b""
number = 0
while not select.select([sys.stdin], [], [], 0.02)[0]:
    number += 1
    typed = b"%d:%s\n" % (number, b"x" * (number % 100))
    began = time.monotonic()
    line.say(id=number, method="process/write",
        params={"processId": "p", "chunk": base64.b64encode(typed).decode(), "writeId": str(number)})

    def came():
        global heard
        for message in told:
            assert message["method"] == "process/output", message
            assert message["params"]["stream"] == "stdout", message
            heard += base64.b64decode(message["params"]["chunk"])
        told.clear()
        assert typed.startswith(heard), (typed, heard)
        return heard == typed

    assert line.answer(number, came) == {"status": "accepted"}
    line.say(id="status", method="environment/status")
    assert line.answer("status", lambda: True) == {"status": "ready"}
    heard = b""
    print(time.monotonic() - began, flush=True)
line.say(id="end", method="process/terminate", params={"processId": "p"})
line.answer("end", lambda: True)
'''


class Neighbour:
    """A neighbour who goes on. `rounds` has the seconds that each of his rounds has taken."""

    def __init__(self) -> None:
        self.rounds: list[float] = []
        self._news = trio.lowlevel.ParkingLot()

    async def listen(self, said: trio.abc.ReceiveStream) -> None:
        """Take in what he says until he ends."""
        rest = b""
        async for data in said:
            *lines, rest = (rest + data).split(b"\n")
            self.rounds += map(float, lines)
            self._news.unpark_all()

    async def answered(self) -> None:
        """Wait for a whole round that began after this call."""
        before = len(self.rounds)
        with trio.fail_after(2 * PATIENCE):
            while len(self.rounds) < before + 2:
                await self._news.park()


@asynccontextmanager
async def open_neighbour(url: str, *token: str) -> AsyncIterator[Neighbour]:
    """Open a neighbour for the block, who is answered exactly before it, in it and behind it.

    With a token he is another principal than the attackers.
    """
    argv = [sys.executable, "-I", "-S", "-c", PROGRAM, url, *token]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = await trio.lowlevel.open_process(argv, **pipes)  # type: ignore[call-overload]
    neighbour = Neighbour()
    complaint = bytearray()

    async def complain() -> None:
        async for data in process.stderr:
            complaint.extend(data)
        if complaint:
            raise AssertionError(complaint.decode())

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(neighbour.listen, process.stdout)
            nursery.start_soon(complain)
            await neighbour.answered()
            del neighbour.rounds[:]  # what the start of both processes has cost is no attack's
            yield neighbour
            await neighbour.answered()
            await process.stdin.aclose()
            with trio.fail_after(PATIENCE):
                assert await process.wait() == 0, complaint.decode()
        name = os.environ.get("PYTEST_CURRENT_TEST", url).rpartition(" (")[0].rpartition("/")[2]
        FIGURES[name] = neighbour.rounds
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
