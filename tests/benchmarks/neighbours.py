"""Measure how long a modest peer waits while another one does its worst: `python tests/benchmarks/neighbours.py`.

Each way of doing harm has a fresh `execsrv serve` to itself, which plain peers on a unix socket (for TLS, on loopback)
keep busy for some seconds. Meanwhile a neighbour calls `environment/status` every 10 ms. Printed are its median, its
99th percentile and its worst, in ms, and of the server's loop the longest turn by the clock; the longest turn and the
longest step of one task in processor time, with the place where that step ended; the longest garbage collection; and
the number of calls. The processor's time is what two quiet cores would show. The clock has in it who else wants the
machine.

`--only walks,windows` chooses; `--seconds 8` is how long each lasts. Nothing passes or fails.
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from worst_case import KIB, MIB, Peer  # type: ignore[import-not-found]  # beside this script

SERVER = """
import runpy, sys, time, trio

class Turns(trio.abc.Instrument):
    '''Notes the longest time between two looks for news: all that ran in between did so in one turn.'''

    wall = cpu = step = gc = 0.0
    begun = None
    where = ""

    def after_io_wait(self, timeout):
        self.begun = time.monotonic(), time.thread_time()

    def before_io_wait(self, timeout):
        if self.begun is not None:
            self.wall = max(self.wall, time.monotonic() - self.begun[0])
            self.cpu = max(self.cpu, time.thread_time() - self.begun[1])

    def before_task_step(self, task):
        self.step_begun = time.thread_time()

    def after_task_step(self, task):
        taken = time.thread_time() - self.step_begun
        if taken > self.step:
            self.step, self.where, waits = taken, "at its end", task.coro
            while getattr(waits, "cr_frame", None) is not None:
                frame = waits.cr_frame
                name = frame.f_code.co_filename.rpartition("/")[2]
                if "/trio/" not in frame.f_code.co_filename:
                    self.where = f"{name}:{frame.f_lineno}"
                waits = waits.cr_await
            self.where = f"{task.name.rpartition('.')[2]} {self.where}"

turns = Turns()

import gc
def collected(phase, info):
    if phase == "start":
        turns.gc_begun = time.thread_time()
    else:
        turns.gc = max(turns.gc, time.thread_time() - turns.gc_begun)
gc.callbacks.append(collected)
run = trio.run
trio.run = lambda *args, **more: run(*args, **more, instruments=[turns])

import signal
def tell(number, frame):
    with open(told, "w") as file:
        file.write(f"{turns.wall} {turns.cpu} {turns.step} {turns.gc} {turns.where}")
    turns.wall = turns.cpu = turns.step = turns.gc = 0.0
told = sys.argv.pop(1)
signal.signal(signal.SIGUSR2, tell)
sys.argv[0] = "execsrv"
runpy.run_module("execsrv", run_name="__main__")
"""

Flood = Callable[[str, float], list[Peer]]


def again(peer: Peer, line: bytes, end: float, count: int = 1000) -> None:
    """Ask the same again and again, and read nothing."""
    with suppress(OSError):
        peer.push(line * count, end)


def swallow(peer: Peer, line: bytes, end: float, at_once: int = 2) -> None:
    """Ask the same again and again, and read all answers."""
    with suppress(OSError):
        peer.socket.setblocking(True)
        peer.socket.settimeout(5)
        peer.socket.sendall(line * at_once)
        while time.monotonic() < end:
            data = peer.socket.recv(MIB)
            if not data:
                return
            if count := data.count(b"\n"):
                peer.socket.sendall(line * count)


def asked(method: str, **params: object) -> bytes:
    return json.dumps({"id": 1, "method": method, "params": params}).encode() + b"\n"


def until(end: float) -> None:
    time.sleep(max(0, end - time.monotonic()))


def nothing(path: str, end: float) -> list[Peer]:
    until(end)
    return []


def unread_files(path: str, end: float) -> list[Peer]:
    peers = [Peer(path) for _ in range(8)]
    for peer in peers:
        threading.Thread(target=again, args=(peer, asked("fs/readFile", path=large_file()), end), daemon=True).start()
    until(end)
    return peers


def read_files(path: str, end: float) -> list[Peer]:
    return each(path, end, lambda peer: swallow(peer, asked("fs/readFile", path=large_file()), end), 4)


def each(path: str, end: float, do: Callable[[Peer], None], count: int) -> list[Peer]:
    peers = [Peer(path) for _ in range(count)]
    threads = [threading.Thread(target=do, args=(peer,), daemon=True) for peer in peers]
    for thread in threads:
        thread.start()
    until(end)
    return peers


def large_file() -> str:
    file = Path(tempfile.gettempdir()) / f"neighbours-{os.getpid()}"
    if not file.exists():
        with file.open("wb") as out:
            out.truncate(31 * MIB)
    return str(file)


def printed(peer: Peer) -> None:
    peer.start("p", ["head", "-c", f"{4 * MIB}", "/dev/zero"])
    while peer.hear().get("method") != "process/closed":
        pass


def snapshots(path: str, end: float) -> list[Peer]:
    def do(peer: Peer) -> None:
        printed(peer)
        swallow(peer, asked("process/snapshot", processId="p"), end, 16)

    return each(path, end, do, 4)


def reads(path: str, end: float) -> list[Peer]:
    def do(peer: Peer) -> None:
        printed(peer)
        swallow(peer, asked("process/read", processId="p"), end, 16)

    return each(path, end, do, 4)


def walks(path: str, end: float) -> list[Peer]:
    with tempfile.TemporaryDirectory() as tree:
        for number in range(50_000):
            Path(tree, f"a-name-of-some-length-{number}").touch()
        options = {"maxDepth": 4, "maxDirectories": 100, "maxEntries": 50_000, "followDirectorySymlinks": False}
        end += 5
        line = asked("fs/walk", path=tree, options=options)
        return each(path, end, lambda peer: swallow(peer, line, end, 4), 2)


def listings(path: str, end: float) -> list[Peer]:
    with tempfile.TemporaryDirectory() as tree:
        for number in range(49_000):
            Path(tree, f"a-name-of-some-length-{number}").touch()
        end += 5
        return each(path, end, lambda peer: swallow(peer, asked("fs/readDirectory", path=tree), end, 4), 2)


def windows(path: str, end: float) -> list[Peer]:
    def do(peer: Peer) -> None:
        for number in range(16):
            peer.start(f"p{number}", ["cat", "/dev/zero"], windowBytes=16 * MIB)
        with suppress(OSError):
            while peer.socket.recv(MIB):
                pass

    return each(path, end, do, 2)


def writes(path: str, end: float) -> list[Peer]:
    chunk = base64.b64encode(bytes(45 * MIB)).decode()

    def do(peer: Peer) -> None:
        number = 0
        with suppress(OSError):
            while time.monotonic() < end:
                number += 1
                peer.start(f"p{number}", ["sleep", "1"], pipeStdin=True)
                peer.push(asked("process/write", processId=f"p{number}", chunk=chunk, writeId="w"), end)
                peer.socket.setblocking(True)
                peer.hear()

    return each(path, end, do, 2)


def much_to_read(path: str, end: float) -> list[Peer]:
    """Messages of a few megabytes that are hundreds of thousands of values, and are refused."""
    start = {"processId": "p", "argv": ["true"], "cwd": "/", "env": {}, "tty": False}
    messages = [
        asked("process/start", **{**start, "argv": ["true"] + [""] * 2_000_000}),
        asked("process/start", **{**start, "env": {f"{number}": "" for number in range(400_000)}}),
        asked("environmentConfig/read", cwd="/", configPaths=[["a"]] * 800_000, requirementsPaths=[]),
        asked("capabilityRoots/discoverV1", roots=[{"id": "r", "path": "/"}] * 400_000),
    ]
    takers = iter(messages)
    return each(path, end, lambda peer: swallow(peer, next(takers), end), len(messages))


def half_messages(path: str, end: float) -> list[Peer]:
    return each(path, end, lambda peer: again(peer, b'{"method":"' + b"x" * 60 * MIB, end, 1), 16)


def starts(path: str, end: float) -> list[Peer]:
    def do(peer: Peer) -> None:
        number = 0
        with suppress(OSError):
            while time.monotonic() < end:
                for _ in range(16):
                    number += 1
                    params = {"processId": f"p{number}", "argv": ["true"], "cwd": "/", "env": {}, "tty": False}
                    peer.post("process/start", params)
                closed = 0
                while closed < 16:
                    message = peer.hear()
                    closed += message.get("method") == "process/closed" or "error" in message

    return each(path, end, do, 2)


def small_requests(path: str, end: float) -> list[Peer]:
    return each(path, end, lambda peer: swallow(peer, asked("environment/status"), end, 2000), 4)


def hang_ups(path: str, end: float) -> list[Peer]:
    """One peer has 256 sessions, with 16 MiB each as far as there is room, and goes."""
    while time.monotonic() < end:
        peer = Peer(path)
        for number in range(256):
            peer.post(
                "process/start",
                {
                    "processId": f"p{number}",
                    "argv": ["cat", "/dev/zero"],
                    "cwd": "/",
                    "env": {"PATH": os.environ["PATH"]},
                    "tty": False,
                    "windowBytes": 16 * MIB,
                },
            )
        stop = time.monotonic() + 3
        peer.socket.settimeout(1)
        with suppress(OSError):
            while time.monotonic() < stop and peer.socket.recv(MIB):
                pass
        peer.socket.close()
        time.sleep(1)
    return []


def shake_hands(url: str, end: float) -> list[Peer]:
    """Sixteen threads shake hands, and hang up, one after the other."""
    port = int(url.rpartition(":")[2])
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    done: list[int] = []

    def do() -> None:
        while time.monotonic() < end:
            with (
                suppress(OSError),
                socket.create_connection(("127.0.0.1", port), 5) as plain,
                context.wrap_socket(plain, server_hostname="localhost"),
            ):
                done.append(1)

    for _ in range(16):
        threading.Thread(target=do, daemon=True).start()
    until(end)
    print(f"    {len(done)} handshakes")
    return []


def certificate(folder: str, kind: str) -> str:
    path = f"{folder}/{kind}.pem"
    key = ["rsa:4096"] if kind == "rsa" else ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    argv = ["openssl", "req", "-x509", "-newkey", *key, "-nodes", "-keyout", path, "-out", f"{path}.crt"]
    subprocess.run([*argv, "-subj", "/CN=localhost", "-days", "2"], check=True, capture_output=True)
    with open(path, "a") as file:
        file.write(Path(f"{path}.crt").read_text())
    os.chmod(path, 0o600)
    return path


FLOODS: dict[str, Flood] = {
    flood.__name__: flood
    for flood in (
        nothing,
        unread_files,
        read_files,
        snapshots,
        reads,
        walks,
        listings,
        windows,
        writes,
        much_to_read,
        half_messages,
        starts,
        small_requests,
        hang_ups,
    )
}


def rounds(call: Callable[[], object], line: Connection) -> None:
    """Call every 10 ms. The first word on the line has it begin to note how long that takes, the second tell it."""
    late: list[float] = []
    for _ in range(2):
        late.clear()
        while not line.poll(0.01):
            begun = time.monotonic()
            call()
            late.append(time.monotonic() - begun)
        line.recv()
    line.send(late)


def neighbour(path: str, line: Connection) -> None:
    peer = Peer(path)
    peer.socket.settimeout(30)
    rounds(lambda: peer.call("environment/status", {}), line)


def secure_neighbour(url: str, line: Connection) -> None:
    """One that is in already, over TLS."""
    port = int(url.rpartition(":")[2])
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(plain, server_hostname="localhost") as stream:
            stream.sendall(
                b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % port
            )
            heard = stream.recv(64 * KIB)
            assert b" 101 " in heard, heard

            def call(text: str) -> None:
                stream.sendall(b"\x81" + bytes([0x80 | len(text)]) + bytes(4) + text.encode())
                stream.recv(64 * KIB)

            call('{"id":1,"method":"initialize","params":{"clientName":"neighbour"}}')
            stream.sendall(b"\x81" + bytes([0x80 | 36]) + bytes(4) + b'{"method":"initialized","params":{}}')
            rounds(lambda: call('{"id":2,"method":"environment/status"}'), line)


def measure(
    name: str, flood: Flood, listen: str, visit: Callable[..., None], seconds: float, options: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "told")
        argv = [sys.executable, "-c", SERVER, str(told), "serve", "--listen", listen.format(folder=folder), *options]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            path = url.removeprefix("unix://")
            line, its = multiprocessing.Pipe()  # to a process of its own: threads here would keep it waiting
            visitor = multiprocessing.Process(target=visit, args=(path, its), daemon=True)
            visitor.start()
            time.sleep(1)

            def stalls() -> tuple[float, float, float, float, str]:
                told.unlink(missing_ok=True)
                server.send_signal(12)  # SIGUSR2
                while not (told.exists() and (text := told.read_text())):
                    time.sleep(0.05)
                wall, cpu, step, collecting, where = text.split(maxsplit=4)
                return float(wall), float(cpu), float(step), float(collecting), where

            stalls()
            line.send(None)
            peers = flood(path, time.monotonic() + seconds)
            for peer in peers:
                peer.socket.close()
            time.sleep(2)
            wall, cpu, step, collecting, where = stalls()
            line.send(None)
            late = line.recv()
            server.kill()
        times = sorted(late) or [float("inf")]
        middle, most = times[len(times) // 2], times[len(times) * 99 // 100]
        row = [middle, most, times[-1], wall, cpu, step, collecting]
        print(f"{name:16}", *(f"{1000 * figure:9.1f}" for figure in row), f"{len(times):7}  {where}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=6)
    chosen = parser.parse_args()
    only = chosen.only.split(",") if chosen.only else [*FLOODS, "rsa", "ec"]
    titles = ["median", "99 %", "worst", "turn", "turn cpu", "step cpu", "gc cpu"]
    print(f"{'ms':16}", *(f"{title:>9}" for title in titles), f"{'calls':>7}")
    for name, flood in FLOODS.items():
        if name in only:
            measure(name, flood, "unix://{folder}/s", neighbour, chosen.seconds, [])
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("rsa", "ec"):
            if kind in only:
                options = ["--tls-certificate-file", certificate(folder, kind)]
                measure(kind, shake_hands, "wss://127.0.0.1:0", secure_neighbour, chosen.seconds, options)
    Path(large_file()).unlink()


if __name__ == "__main__":
    main()
