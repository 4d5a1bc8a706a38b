"""Measure what viewers cost the owner of a flood: `python tests/benchmarks/viewers.py`.

A command prints 100 MiB/s, and its owner reads. Then twenty viewers attach to it as well: some that never read, some
that read slowly, some that read all they get. Printed are, by kind of viewer: what the owner got a second, and its
ratio to a round without viewers, just before; what one viewer got; the processor time of the server, in percent of one;
and by how much its memory grew for one viewer. With `--rate 0` the flood prints as fast as it is read.

`--only silent,eager` chooses, `--window BYTES` is what a viewer with a window lets be under way; `--viewers 20`,
`--seconds 5`, `--rounds 3`. Nothing passes or fails.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import selectors
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

from worst_case import KIB, MIB, Peer  # type: ignore[import-not-found]  # beside this script

FLOOD = """
import os, sys, time
rate, piece = float(sys.argv[1]), bytes(65536)
began, count = time.monotonic(), 0
while True:
    os.write(1, piece)
    count += 1
    if rate and (ahead := count * len(piece) / rate - (time.monotonic() - began)) > 0:
        time.sleep(ahead)
"""
SLOW_SECONDS = 0.05
TICK = os.sysconf("SC_CLK_TCK")


class Round(NamedTuple):
    """What came of one round: MiB/s of the owner and of a viewer, percent of a processor, and bytes for a viewer."""

    owner: float
    viewer: float
    processor: float
    memory: float


def owner(path: str, rate: int, seconds: float, line: Connection) -> None:
    """Start the flood, and read it; tell how many MiB of output came in a second."""
    peer = Peer(path, greets=False)
    peer.call("initialize", {"clientName": "owner", "name": "flood"})
    peer.send({"method": "initialized", "params": {}})
    peer.start("flood", [sys.executable, "-c", FLOOD, str(rate * MIB)])
    line.send(None)
    while not line.poll():  # whoever attaches finds a flood that is read
        peer.socket.recv(256 * KIB)
    line.recv()
    got, began = 0, time.monotonic()
    while time.monotonic() < began + seconds:
        got += len(peer.socket.recv(256 * KIB))
    line.send(got * 3 / 4 / MIB / (time.monotonic() - began))
    line.recv()


def viewers(path: str, kind: str, count: int, window: int, seconds: float, line: Connection) -> None:
    """Attach so many viewers, and read as their kind does; tell how many MiB one of them got in a second."""
    peers = [Peer(path) for _ in range(count)]
    for peer in peers:
        joined = peer.call("connection/join", {"connection": "flood"})
        assert "result" in joined, joined
        attach: dict[str, object] = {"connection": "flood", "processId": "flood", "attachedId": "f"}
        if kind == "window":
            attach["windowBytes"] = window
        peer.post("process/attach", attach)
    line.send(None)
    line.recv()
    got, began = 0, time.monotonic()
    with selectors.DefaultSelector() as selector:
        for peer in peers:
            selector.register(peer.socket, selectors.EVENT_READ, peer.socket)
        while (left := began + seconds - time.monotonic()) > 0:
            if kind in ("silent", "window"):
                time.sleep(left)
                continue
            for key, _ in selector.select(0.2):
                got += len(key.data.recv(64 * KIB if kind == "slow" else 256 * KIB))
            if kind == "slow":
                time.sleep(SLOW_SECONDS)
    line.send(got * 3 / 4 / MIB / (time.monotonic() - began) / count)
    line.recv()


def facts(pid: int) -> tuple[float, int]:
    """Return the seconds of processor time of a process, and its resident bytes."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK, int(fields[21]) * os.sysconf("SC_PAGESIZE")


def begun(target: Callable[..., None], *args: object) -> Connection:
    """Start a process, and return its line when it is ready."""
    line, its = multiprocessing.Pipe()
    multiprocessing.Process(target=target, args=(*args, its), daemon=True).start()
    its.close()
    line.recv()
    return line


def measure(kind: str, count: int, window: int, rate: int, seconds: float, options: list[str]) -> Round:
    """Have one server, its owner, and so many viewers of a kind."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, "-m", "execsrv", "serve", "--quiet", "--listen", f"unix://{folder}/s", *options]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            try:
                assert server.stdout is not None
                path = server.stdout.readline().strip().removeprefix("unix://")
                lines = [begun(owner, path, rate, seconds)]
                _, before = facts(server.pid)
                if count:
                    lines.append(begun(viewers, path, kind, count, window, seconds))
                time.sleep(0.5)
                used, _ = facts(server.pid)
                for line in lines:
                    line.send(None)
                time.sleep(seconds)
                after, memory = facts(server.pid)
                rates = [line.recv() for line in lines]
            finally:
                server.kill()
    grown = (memory - before) / max(1, count)
    return Round(rates[0], rates[1] if count else 0.0, 100 * (after - used) / seconds, grown)


KINDS = {
    "silent": "never read",
    "window": "never read, and have a window",
    "slow": "read slowly",
    "eager": "read all they get",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--window", type=int, default=1 * MIB, help="bytes that a viewer lets be under way")
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--option", action="append", default=[], help="one of the server")
    chosen = parser.parse_args()
    titles = ("owner alone", "with them", "ratio", "a viewer", "processor", "memory each")
    print(f"{chosen.viewers} viewers that ...".ljust(32) + "".join(f"{title:>13}" for title in titles))
    for kind in chosen.only.split(","):
        alone, together = [], []
        for _ in range(chosen.rounds):
            alone.append(measure(kind, 0, chosen.window, chosen.rate, chosen.seconds, chosen.option))
            together.append(measure(kind, chosen.viewers, chosen.window, chosen.rate, chosen.seconds, chosen.option))
        before, now = (statistics.median(each.owner for each in rounds) for rounds in (alone, together))
        ratio = statistics.median(b.owner / a.owner for a, b in zip(alone, together, strict=True))
        viewer, processor, memory = (
            statistics.median(getattr(each, name) for each in together) for name in ("viewer", "processor", "memory")
        )
        speeds = (f"{before:.1f} MiB/s", f"{now:.1f} MiB/s", f"{ratio:.3f}", f"{viewer:.2f} MiB/s")
        row = [*speeds, f"{processor:.0f} %", f"{memory / KIB:.0f} KiB"]
        print(KINDS[kind].ljust(32) + "".join(f"{cell:>13}" for cell in row), flush=True)


if __name__ == "__main__":
    main()
