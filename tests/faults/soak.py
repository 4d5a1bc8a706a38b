"""Mixed sessions for minutes on one daemon, and what it has grown by: `nox -s soak -- --minutes 10`.

Eight clients come and go, by way of a line that is cut now and then. Their commands print, read, live on terminals,
leave strays, run out of time, or are left in the middle. Every second the server's memory, descriptors, threads and
zombies are counted.

A count is no plateau if both hold: the line through its floors rises by more than is allowed over the time that counts,
and at least four of its five steps are a fifth of that or more. The first quarter does not count: caches fill and the
allocator settles. The rest is cut into six windows, and a window's floor is the value that a tenth of its samples are
not above: above the floor is what the sessions of that moment need. At the end nobody is there, and everything has to
be as it was before, but for memory.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import trio

from execsrv import Client, connect
from execsrv.errors import ExecsrvError
from execsrv.limits import MIB
from execsrv.testing.faults import Fault, FaultyLine, open_faulty_line
from tests.faults.daemon import Daemon, alive_with, marked_env, new_mark, running_daemon, until, until_gone

CLIENTS = 8
SAMPLE_SECONDS = 1.0
WINDOWS = 6
RISES = 4


class Sample(NamedTuple):
    """What a server has, at one moment."""

    memory: int
    descriptors: int
    threads: int
    zombies: int

    @classmethod
    def of(cls, pid: int) -> Sample:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
        descriptors, threads = (len(os.listdir(f"/proc/{pid}/{what}")) for what in ("fd", "task"))
        return cls(resident, descriptors, threads, sum(map(_is_zombie, _children(pid))))

    def beyond(self, other: Sample) -> bool:
        """Return whether it is more than that, but for memory. Threads stay for a while, to be used again."""
        return self.descriptors > other.descriptors or self.zombies > other.zombies


ALLOWED = Sample(memory=16 * MIB, descriptors=8, threads=4, zombies=4)
"""How much the floor may rise in the time that counts. A leak of one for each session is hundreds."""


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _is_zombie(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


class Verdict(NamedTuple):
    """How one count went: its floors, how fast they rise, and whether that is a plateau."""

    floors: list[float]
    per_minute: float
    is_plateau: bool


def judge(values: list[int], allowed: int, seconds: float) -> Verdict:
    """Judge the samples of one count, taken in so many seconds, as the module says."""
    counting = values[len(values) // 4 :]
    size = max(1, len(counting) // WINDOWS)
    windows = [sorted(counting[at : at + size]) for at in range(0, size * WINDOWS, size)]
    floors = [float(window[len(window) // 10]) for window in windows if window]
    minutes = seconds * 0.75 / 60
    if len(floors) < WINDOWS:
        raise SystemExit("too short to say anything")
    slope = statistics.linear_regression(range(WINDOWS), floors).slope
    steps = WINDOWS - 1
    rises = sum(later - earlier >= allowed / steps for earlier, later in pairwise(floors))
    return Verdict(floors, slope * WINDOWS / minutes, slope * steps <= allowed or rises < RISES)


# -- what clients do --


async def prints(client: Client, mark: str) -> None:
    size = random.randrange(200_000)
    result = await client.run(["head", "-c", f"{size}", "/dev/zero"], env=marked_env(mark))
    assert len(result.stdout) == size


async def reads(client: Client, mark: str) -> None:
    typed = random.randbytes(random.randrange(100_000))
    result = await client.run(["cat"], input=typed, env=marked_env(mark))
    assert result.stdout == typed


async def types(client: Client, mark: str) -> None:
    """Use a terminal, of another size after a while."""
    argv = ["sh", "-c", "while read line; do echo got $line; done"]
    async with client.start(argv, tty=True, env=marked_env(mark)) as process:
        await process.write(b"a line\n")
        await process.next_event()
        await process.resize(30, 100)


async def strays(client: Client, mark: str) -> None:
    await client.run(["sh", "-c", "for n in 1 2 3; do setsid sleep 1000 & done >/dev/null 2>&1"], env=marked_env(mark))


async def runs_out_of_time(client: Client, mark: str) -> None:
    async with client.start(["sh", "-c", "sleep 1000 & wait"], timeout=0.05, env=marked_env(mark)) as process:
        assert (await process.wait()).reason == "timeout"


async def is_left(client: Client, mark: str) -> None:
    async with client.start(["sh", "-c", "yes & sleep 1000"], env=marked_env(mark)) as process:
        await process.next_event()


async def is_refused(client: Client, mark: str) -> None:
    try:
        await client.run(["/no/such/program"], env=marked_env(mark))
    except ExecsrvError:
        return
    raise AssertionError("it ran")


KINDS = [prints, reads, types, strays, runs_out_of_time, is_left, is_refused]


async def come_and_go(line: FaultyLine, mark: str, done: Counter[str]) -> None:
    """Connect, run some sessions, hang up, and so on, without an end. A lost connection is counted."""
    while True:
        try:
            async with connect(line.url, reconnect=random.choice([0, 20])) as client:
                done["connections"] += 1
                for _ in range(random.randrange(1, 12)):
                    await (kind := random.choice(KINDS))(client, mark)
                    done[kind.__name__] += 1
        except* ExecsrvError:
            done["lost"] += 1


async def cut(line: FaultyLine) -> None:
    """Cut whatever connection speaks next, every other second."""
    while True:
        await trio.sleep(2)
        line.expect(Fault(random.choice(["cut", "reset", "truncate"]), random.choice(["client", "server"]), 0))


async def soak(daemon: Daemon, path: str, seconds: float, mark: str) -> tuple[list[Sample], Counter[str]]:
    """Let clients come and go for that time, and count what the server has."""
    samples: list[Sample] = []
    done: Counter[str] = Counter()
    with trio.move_on_after(seconds):
        async with open_faulty_line(daemon.url, path) as line, trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(come_and_go, line, mark, done)
            nursery.start_soon(cut, line)
            while True:
                await trio.sleep(SAMPLE_SECONDS)
                assert daemon.process.poll() is None, daemon.log
                samples.append(Sample.of(daemon.pid))
    return samples, done


async def main(minutes: float, transport: str) -> int:
    """Soak a daemon, and report; the exit status."""
    mark, bad = new_mark(), []
    with tempfile.TemporaryDirectory() as folder, running_daemon(Path(folder), transport) as daemon:
        async with connect(daemon.url) as client:
            await prints(client, mark)  # from the first command on there is a guardian
        before = Sample.of(daemon.pid)
        samples, done = await soak(daemon, f"{folder}/l", minutes * 60, mark)
        print(f"{transport}, {minutes} min: {dict(sorted(done.items()))}")
        for name, values, allowed in zip(Sample._fields, zip(*samples, strict=True), ALLOWED, strict=True):
            verdict = judge(list(values), allowed, minutes * 60)
            unit, word = (MIB, " MiB") if name == "memory" else (1, "")
            floors = " ".join(f"{floor / unit:.0f}" for floor in verdict.floors)
            rate, most = f"{verdict.per_minute / unit:+.2f}{word}", f"{max(values) / unit:.0f}"
            print(f"{name:12} {rate} a minute, at most {most}; floors {floors}")
            if not verdict.is_plateau:
                bad.append(f"{name}: no plateau")
        await until_gone(mark)
        try:
            await until(lambda: not Sample.of(daemon.pid).beyond(before), str)
        except AssertionError:
            bad.append(f"more than before: {Sample.of(daemon.pid)}, {before}")
        print(f"at the end   {Sample.of(daemon.pid)}; before: {before}")
        if found := daemon.log.count("Traceback"):
            first = daemon.log[daemon.log.index("Traceback") :][:3000]
            bad.append(f"{found} tracebacks, the first: {first}")
        daemon.process.terminate()
        if (status := await daemon.until_ended()) != 0:
            bad.append(f"the server ended with {status}")
    if left := alive_with(mark):
        bad.append(f"left: {left}")
    print("\n".join(bad) or "a plateau")
    return bool(bad)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--transport", choices=["unix", "websocket"], default="websocket")
    options = parser.parse_args()
    sys.exit(trio.run(main, options.minutes, options.transport))
