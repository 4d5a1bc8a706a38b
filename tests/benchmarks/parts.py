"""Measure where the processor time of a chunk of output goes: `python tests/benchmarks/parts.py [--pipe] [--mib 64]`.

A server streams zeros to one client over a websocket, as in `bench.py --only terminal`, with a clock around each part
of the way. Beside it stands the floor: a plain loop that reads the same terminal or pipe and does nothing else, and one
that also encodes and sends what it has read. Nothing passes or fails.

The clocks cost some microseconds a chunk themselves, which count as the rest.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib
import json
import os
import pty
import runpy
import select
import shlex
import socket
import subprocess
import sys
import tempfile
import termios
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from bench import running  # type: ignore[import-not-found]  # beside this script

CHUNK_BYTES = 128 * 1024
ASKS = 16

READER = """
import socket
source = socket.socket(fileno=0)
while source.recv(1 << 18):
    pass
"""

PARTS = {
    "read it": ("execsrv._processes.streams", "", "read"),
    "keep it in the log": ("execsrv._log.log", "OutputLog", "append"),
    "encode it": ("execsrv._wire.codecs", "Codec", "encode_into"),
    "send it": ("execsrv._wire.at_once", "AtOnce", "send"),
}
"""Functions of which none calls another: module, class and name."""


def serve(told: Path, words: list[str]) -> None:
    """Be a server with clocks, and write down what they have counted when it ends."""
    counted = {part: [0, 0] for part in PARTS}

    def clocked(function: Callable[..., Any], count: list[int]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            began = time.thread_time_ns()
            try:
                return function(*args, **options)
            finally:
                count[0] += 1
                count[1] += time.thread_time_ns() - began

        return run

    for part, (module, owner, name) in PARTS.items():
        place = importlib.import_module(module)
        place = getattr(place, owner) if owner else place
        setattr(place, name, clocked(getattr(place, name), counted[part]))
    sys.argv = ["execsrv", *words]
    try:
        runpy.run_module("execsrv", run_name="__main__")
    finally:
        told.write_text(json.dumps(counted))


def start_zeros(size: int, *, is_terminal: bool) -> tuple[subprocess.Popen[bytes], int]:
    """Start a command that prints so many zeros. Return it, and our end of its terminal or pipe."""
    read, write = pty.openpty() if is_terminal else os.pipe()
    if is_terminal:
        tty.setraw(write)
    os.set_blocking(read, False)
    command = subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=write)
    os.close(write)
    return command, read


def floor(
    size: int, take: Callable[[memoryview], object] = lambda chunk: None, *, is_terminal: bool, asks: int = 0
) -> tuple[float, float]:
    """Read so many zeros in a plain loop, and give them away. Return seconds of processor and of the wall.

    A read of an empty terminal sleeps until the task of the kernel has run. With `asks` it is asked before, up to so
    often, whether there is anything: that does not sleep. Where it was in vain, the rest of the chunk is read without.
    """
    command, source = start_zeros(size, is_terminal=is_terminal)
    room = memoryview(bytearray(CHUNK_BYTES))
    cpu, wall, left = time.process_time(), time.perf_counter(), size
    while left:
        select.select([source], [], [])
        count, patience = 0, asks
        try:
            while count < len(room) and (more := os.readv(source, [room[count:]])):
                count += more
                if patience and not has_some(source, patience):
                    patience = 0
        except OSError:  # there is no more now, or at all
            pass
        take(room[:count])
        left -= count
    spent = time.process_time() - cpu, time.perf_counter() - wall
    os.close(source)
    command.wait()
    return spent


def has_some(terminal: int, asks: int) -> bool:
    """Ask a terminal up to so often whether there is anything to be read."""
    return any(any(fcntl.ioctl(terminal, termios.FIONREAD, bytes(4))) for _ in range(asks))


def floor_with_reader(size: int, *, is_terminal: bool, asks: int = 0) -> tuple[float, float]:
    """Do as `floor`, and send each chunk as base64 to a process that reads it."""
    ours, theirs = socket.socketpair()
    with subprocess.Popen([sys.executable, "-S", "-c", READER], stdin=theirs.fileno()), theirs, ours:
        encode = msgspec.json.Encoder().encode
        return floor(size, lambda chunk: ours.sendall(encode(chunk)), is_terminal=is_terminal, asks=asks)


def measure(size: int, *, is_terminal: bool) -> tuple[float, float, dict[str, list[int]]]:
    """Have a server stream so many zeros. Return seconds of processor and of the wall, and what the clocks counted."""
    script = f"stty raw; exec head -c {size} /dev/zero" if is_terminal else f"exec head -c {size} /dev/zero"
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "told")
        words = [sys.executable, __file__, "--within", str(told), "serve", "--quiet", "--listen", "{listen}"]
        with running(shlex.join(words), stdio=False) as server:
            client = server.first_client()
            client.run("first", ["true"], tty=is_terminal)
            cpu, wall = server.cpu_seconds(), time.perf_counter()
            client.request_start("zeros", ["sh", "-c", script], tty=is_terminal)
            client.until_closed(1)
            spent = server.cpu_seconds() - cpu, time.perf_counter() - wall
            client.close()
        return *spent, json.loads(told.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--pipe", action="store_true", help="a pipe, not a terminal")
    parser.add_argument("--mib", type=int, default=64, help="so much output")
    options = parser.parse_args()
    is_terminal, size = not options.pipe, options.mib * 2**20

    def show(what: str, cpu: float, end: str) -> None:
        print(f"{what:36}{cpu * 2**30 / size:6.2f} s/GiB  {end}")

    for asks in (0, ASKS) if is_terminal else (0,):
        for what, run in {"read": floor, "read, encode, send": floor_with_reader}.items():
            cpu, wall = run(size, is_terminal=is_terminal, asks=asks)
            show(f"floor: {'ask, ' if asks else ''}{what}", cpu, f"{options.mib / wall:6.0f} MiB/s")
    cpu, wall, counted = measure(size, is_terminal=is_terminal)
    show("execsrv", cpu, f"{options.mib / wall:6.0f} MiB/s")
    chunks = counted["keep it in the log"][0]
    parts = {part: spent / 1e9 for part, (_, spent) in counted.items()}
    for part, seconds in {**parts, "the rest": cpu - sum(parts.values())}.items():
        show(f"  {part}", seconds, f"{seconds * 1e6 / chunks:6.0f} us a chunk")
    print(f"{chunks} chunks of {size // chunks} bytes")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--within"]:
        serve(Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
