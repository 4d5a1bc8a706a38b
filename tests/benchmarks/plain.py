"""Measure what plain Python takes for the work that bench.py asks of a server, without a server.

    python -m tests.benchmarks.plain

No protocol, no sessions, no limits, no second client: a loop over descriptors that knows what comes. What a server in
Python adds to that is its price, and nothing that is written in Python gets below it. Each floor has the name of the
figure of bench.py that does the same work. The floors of throughput are in least.py: there the client counts.
"""

from __future__ import annotations

import multiprocessing
import os
import pty
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from tests.benchmarks import bench
from tests.benchmarks.bench import MIB, Stat

CHUNK = 64 << 10
TRUE = "/bin/true"
SLEEP = "/bin/sleep"


def start_up() -> float:
    """From starting Python until it has imported trio: what no server on trio can do without."""
    return bench.milliseconds(statistics.median(seconds_of_trio() for _ in range(bench.START_UPS)))


def seconds_of_trio() -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import trio"], check=True)
    return time.perf_counter() - begin


def spawn() -> float:
    """`true` with two pipes, from its start to the end of both and its exit."""
    samples = []
    for _ in range(bench.SEQUENTIAL_STARTS):
        begin = time.perf_counter()
        pipes = [os.pipe(), os.pipe()]
        places = [(os.POSIX_SPAWN_DUP2, write_end, target) for target, (_, write_end) in enumerate(pipes, 1)]
        pid = os.posix_spawn(TRUE, [TRUE], bench.ENVIRONMENT, file_actions=places)
        for read_end, write_end in pipes:
            os.close(write_end)
            os.read(read_end, 1)
            os.close(read_end)
        os.waitpid(pid, 0)
        samples.append(time.perf_counter() - begin)
    return bench.milliseconds(bench.percentile(samples, 50))


def in_flight() -> float:
    """`true` without any pipe, as many at a time as there."""
    alive = 0
    begin = time.perf_counter()
    for _ in range(bench.MANY_STARTS):
        if alive == bench.STARTS_IN_FLIGHT:
            os.wait()
            alive -= 1
        os.posix_spawn(TRUE, [TRUE], bench.ENVIRONMENT)
        alive += 1
    for _ in range(alive):
        os.wait()
    return bench.MANY_STARTS / (time.perf_counter() - begin)


def echo() -> float:
    """A key over a socket to another process, from there into a raw terminal with `cat`, and all the way back."""
    with other_end(relay_terminal) as there:
        samples = []
        for _ in range(bench.KEYS):
            begin = time.perf_counter()
            there.send(b"x")
            there.recv(1)
            samples.append(time.perf_counter() - begin)
    return bench.milliseconds(bench.percentile(samples, 50))


def relay_terminal(peer: socket.socket) -> None:
    main, other = pty.openpty()
    tty.setraw(other)
    cat = subprocess.Popen(["cat"], stdin=other, stdout=other)
    with selectors.DefaultSelector() as ready:
        ready.register(peer, selectors.EVENT_READ)
        ready.register(main, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is not peer:
                    peer.send(os.read(main, CHUNK))
                elif data := peer.recv(CHUNK):
                    os.write(main, data)
                else:
                    cat.kill()
                    cat.wait()
                    return


def pipe_in_pieces(piece: int) -> float:
    """Output of a pipe, from a command that writes so many bytes at a time, sent to another process, which reads it."""
    argv, size = bench.writing(piece)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, bufsize=0) as command:
        assert command.stdout
        return rate(command.stdout.fileno(), size)


def rate(output: int, size: int) -> float:
    """MiB/s from this descriptor to another process."""
    with other_end(drain) as there:
        begin = time.perf_counter()
        while data := os.read(output, CHUNK):
            there.sendall(data)
        there.shutdown(socket.SHUT_WR)
        there.recv(1)  # it has everything
        return size / MIB / (time.perf_counter() - begin)


def drain(peer: socket.socket) -> None:
    buffer = bytearray(bench.READ_BYTES)
    while peer.recv_into(buffer):
        pass
    peer.send(b"x")


@contextmanager
def other_end(work: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """A socket whose other end is in a process of its own, which does this work there."""
    with socket.create_server((bench.LOOPBACK, 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there, _ = listener.accept()
    for end in (here, there):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    worker = multiprocessing.get_context("fork").Process(target=at_other_end, args=(work, here, there))
    worker.start()
    there.close()
    try:
        yield here
    finally:
        here.close()
        worker.join()
        worker.close()


def at_other_end(work: Callable[[socket.socket], None], here: socket.socket, there: socket.socket) -> None:
    here.close()
    with there:
        work(there)


def gone() -> float:
    """As many sleeping commands, each in a session of its own: from the first SIGTERM until the last was reaped."""
    sleeping = [
        os.posix_spawn(SLEEP, [SLEEP, "60"], bench.ENVIRONMENT, setsid=True) for _ in range(bench.IDLE_SESSIONS)
    ]
    begin = time.perf_counter()
    for pid in sleeping:
        os.kill(pid, signal.SIGTERM)
    for pid in sleeping:
        os.waitpid(pid, 0)
    return bench.milliseconds(time.perf_counter() - begin)


def memory() -> float:
    """Resident memory of a Python that has imported trio and msgspec."""
    program = "import trio, msgspec; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as python:
        assert python.stdout
        python.stdout.readline()
        stat = Stat.of(python.pid)
        assert stat
        python.communicate(b"\n")
    return stat.resident_pages * os.sysconf("SC_PAGE_SIZE") / MIB


FLOORS: dict[str, Callable[[], float]] = {
    "start-up": start_up,
    "spawn, closed, p50": spawn,
    "starts, 32 in flight": in_flight,
    "echo, p50": echo,
    "memory, no session": memory,
    f"{bench.IDLE_SESSIONS} gone after hang-up": gone,
}
SIZES: dict[str, Callable[[], float]] = {
    f"pipe, writes of {piece} B": partial(pipe_in_pieces, piece) for piece in bench.PIECES
}


def measured(floors: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each over so many rounds."""
    values = [[floor() for floor in floors.values()] for _ in range(rounds)]
    return dict(zip(floors, map(statistics.median, zip(*values, strict=True)), strict=True))


if __name__ == "__main__":
    for name, value in measured(FLOORS | SIZES, 3).items():
        print(f"{name:28}{bench.shown(value):>10}")
