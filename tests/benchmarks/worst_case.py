"""Measure how much memory peers can make a server take: `python tests/benchmarks/worst_case.py [--held-bytes 256MiB]`.

Each flood has a fresh `execsrv serve` to itself. Plain peers on a unix socket take all that they can get in one way,
and give nothing back; then the peak of the server's resident memory is read, beside what it takes without anybody.
Meanwhile a modest peer runs `echo` again and again: how long that took, and how often it was refused, is printed too.

The figures of docs/limits.md are from here. Nothing passes or fails.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

KIB = 1024
MIB = 1024 * KIB
PEERS = 48
SECONDS = float(os.environ.get("FLOOD_SECONDS", "8"))
"""So long a flood lasts."""

ENV = {"PATH": os.environ["PATH"]}


class Peer:
    """A peer on a blocking socket, which says what it is told to."""

    def __init__(self, path: str, greets: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.buffer = b""
        self.last = 0
        if greets:
            self.call("initialize", {"clientName": "flood"})
            self.send({"method": "initialized", "params": {}})

    def send(self, message: dict[str, Any]) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def post(self, method: str, params: dict[str, Any]) -> int:
        self.last += 1
        self.send({"id": self.last, "method": method, "params": params})
        return self.last

    def call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        id = self.post(method, params)
        while (message := self.hear()).get("id") != id:
            pass
        return message

    def hear(self) -> dict[str, Any]:
        while b"\n" not in self.buffer:
            if not (data := self.socket.recv(256 * KIB)):
                raise ConnectionError
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def start(self, id: str, argv: list[str], **more: Any) -> bool:
        params = {"processId": id, "argv": argv, "cwd": "/", "env": ENV, "tty": False, **more}
        return "error" not in self.call("process/start", params)

    def push(self, data: bytes, until: float) -> None:
        """Send as much as the server takes."""
        self.socket.setblocking(False)
        with suppress(ConnectionError), selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_WRITE)
            view = memoryview(data)
            while view and time.monotonic() < until:
                if selector.select(0.2):
                    view = view[self.socket.send(view[: 256 * KIB]) :]


def all_at_once(peers: list[Peer], do: Callable[[Peer], None]) -> None:
    def tried(peer: Peer) -> None:
        with suppress(ConnectionError, OSError):
            do(peer)

    threads = [threading.Thread(target=tried, args=(peer,), daemon=True) for peer in peers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS + 5)


def strangers(path: str, end: float) -> list[Peer]:
    peers = [Peer(path, greets=False) for _ in range(120)]
    all_at_once(peers, lambda peer: peer.push(b'{"method":"' + b"x" * 63 * KIB, end))
    return peers


def half_messages(path: str, end: float) -> list[Peer]:
    peers = [Peer(path) for _ in range(PEERS)]
    all_at_once(peers, lambda peer: peer.push(b'{"method":"' + b"x" * 60 * MIB, end))
    return peers


def waiting_requests(path: str, end: float) -> list[Peer]:
    peers = [Peer(path) for _ in range(PEERS)]

    def ask(peer: Peer) -> None:
        peer.start("p", ["sleep", "1000"])
        line = json.dumps({"id": 1, "method": "process/waitFor", "params": {"processId": "p", "pad": "x" * 4 * MIB}})
        while time.monotonic() < end:
            peer.push(line.encode() + b"\n", end)

    all_at_once(peers, ask)
    return peers


def deaf_commands(path: str, end: float) -> list[Peer]:
    peers = [Peer(path) for _ in range(PEERS)]
    chunk = base64.b64encode(bytes(6 * MIB)).decode()

    def write(peer: Peer) -> None:
        for number in range(1000):
            if time.monotonic() > end or not peer.start(f"p{number}", ["sleep", "1000"], pipeStdin=True):
                return
            params = {"processId": f"p{number}", "chunk": chunk, "writeId": "w"}
            line = json.dumps({"id": 10_000 + number, "method": "process/write", "params": params})
            peer.push(line.encode() + b"\n", end)
            peer.socket.setblocking(True)

    all_at_once(peers, write)
    return peers


def windows(path: str, end: float) -> list[Peer]:
    peers = [Peer(path) for _ in range(PEERS // 4)]

    def watch(peer: Peer) -> None:
        for number in range(8):
            peer.start(f"p{number}", ["cat", "/dev/zero"], windowBytes=16 * MIB)
        while time.monotonic() < end:
            peer.socket.settimeout(1)
            peer.hear()

    all_at_once(peers, watch)
    return peers


def unread_output(path: str, end: float) -> list[Peer]:
    peers = [Peer(path) for _ in range(PEERS)]

    def begin(peer: Peer) -> None:
        for number in range(50):
            peer.socket.settimeout(SECONDS)
            params = {"processId": f"p{number}", "argv": ["cat", "/dev/zero"], "cwd": "/", "env": ENV, "tty": False}
            peer.post("process/start", params)

    all_at_once(peers, begin)
    time.sleep(max(0, end - time.monotonic()))
    return peers


def unread_answers(path: str, end: float) -> list[Peer]:
    peers = [Peer(path) for _ in range(PEERS)]

    def ask(peer: Peer) -> None:
        peer.start("p", ["head", "-c", f"{MIB}", "/dev/zero"])
        while peer.hear().get("method") != "process/closed":
            pass
        question = {"id": 1, "method": "process/read", "params": {"processId": "p"}}
        peer.push((json.dumps(question).encode() + b"\n") * 10_000, end)

    all_at_once(peers, ask)
    return peers


def unread_files(path: str, end: float) -> list[Peer]:
    peers = [Peer(path) for _ in range(PEERS)]
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(31 * MIB)
        question = {"id": 1, "method": "fs/readFile", "params": {"path": file.name}}
        all_at_once(peers, lambda peer: peer.push((json.dumps(question).encode() + b"\n") * 1000, end))
        time.sleep(max(0, end - time.monotonic()))
    return peers


def retained_output(path: str, end: float) -> list[Peer]:
    peers = [Peer(path) for _ in range(PEERS // 4)]

    def run(peer: Peer) -> None:
        number = 0
        while time.monotonic() < end:
            number += 1
            peer.start(f"p{number}", ["head", "-c", f"{2 * MIB}", "/dev/zero"])
            while peer.hear().get("method") != "process/closed":
                pass

    all_at_once(peers, run)
    return peers


FLOODS = {
    flood.__name__: flood
    for flood in (
        strangers,
        half_messages,
        waiting_requests,
        deaf_commands,
        windows,
        unread_output,
        unread_answers,
        unread_files,
        retained_output,
    )
}


def neighbour(path: str, late: list[float], over: threading.Event) -> None:
    """Run `echo` again and again, and note how long each took; infinite for one that failed."""
    with suppress(ConnectionError, OSError):
        peer = Peer(path)
        peer.socket.settimeout(30)
        for number in range(1_000_000):
            if over.wait(0.05):
                return
            begun = time.monotonic()
            started = peer.start(f"n{number}", ["echo", "hi"])
            while started and peer.hear().get("method") != "process/closed":
                pass
            late.append(time.monotonic() - begun if started else float("inf"))


def memory(pid: int, what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * KIB


def measure(name: str, options: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/s"
        argv = [sys.executable, "-m", "execsrv", "serve", "--listen", f"unix://{path}", *options]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
            assert server.stdout is not None
            server.stdout.readline()
            late: list[float] = []
            over = threading.Event()
            thread = threading.Thread(target=neighbour, args=(path, late, over), daemon=True)
            thread.start()
            time.sleep(0.5)
            before = memory(server.pid, "VmRSS")
            peers = FLOODS[name](path, time.monotonic() + SECONDS)
            time.sleep(0.5)
            peak = memory(server.pid, "VmHWM")
            over.set()
            thread.join(35)
            refused = late.count(float("inf"))
            answered = [each for each in late if each < float("inf")] or [float("nan")]
            median, worst = (1000 * figure for figure in (statistics.median(answered), max(answered)))
            print(f"{name:18} idle {before / MIB:3.0f} MiB, peak {peak / MIB:5.0f} MiB", end="; ")
            print(f"neighbour: {len(answered)} runs, {refused} refused, median {median:.0f}, worst {worst:.0f} ms")
            for peer in peers:
                peer.socket.close()
            server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("floods", nargs="*", help=f"some of: {', '.join(FLOODS)}")
    parser.add_argument("--held-bytes", default="1GiB", help="the ceiling of the server")
    parser.add_argument("--principal-percent", default="100", help="the part that the peers, who are one, may have")
    wanted = parser.parse_args()
    options = ["--held-bytes", wanted.held_bytes, "--principal-percent", wanted.principal_percent]
    for name in wanted.floods or FLOODS:
        measure(name, options)


if __name__ == "__main__":
    main()
