"""Measure what a pool costs beside plain clients, and with `--ray` beside Ray: `python tests/benchmarks/maps.py`.

Short commands (`true`) go to three servers on this machine, 64 at a time: by three clients that have a third of them
each, by one pool, and with `--ray` as one Ray task each, on a cluster of three nodes with one processor each, which run
them by `subprocess.run`. They take turns, for some rounds. Printed are commands a second, with the lowest and the
highest round; processor time for a command, of the client alone and of all together, which hardly depends on who else
is busy; and by how much the client's memory grew over the last nine tenths.

`--commands 10000`, `--rounds 3`. Nothing passes or fails.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import trio

import execsrv
from execsrv.testing import serving

LIMIT = 64
SERVERS = 3
COMMAND = ["true"]


class Round(NamedTuple):
    """One way, once."""

    rate: float
    cpu: float
    cpu_of_all: float
    grown: int


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_of_all() -> float:
    """Return the processor time of this process and of all that descends from it, ended children included."""
    found: dict[int, tuple[int, int]] = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat") as file:
            words = file.read().rpartition(")")[2].split()
            found[int(name)] = int(words[1]), sum(map(int, words[11:15]))
    ours = {os.getpid()}
    while more := {pid for pid, (parent, _) in found.items() if parent in ours} - ours:
        ours |= more
    return sum(found[pid][1] for pid in ours) / os.sysconf("SC_CLK_TCK")


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Count:
    """The results as they come, and the memory when a tenth of them was there."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.early = 0

    def add(self, exit_code: int) -> None:
        assert exit_code == 0
        self.done += 1
        if self.done == self.total // 10:
            self.early = resident()


async def plain(urls: list[str], count: Count) -> None:
    async def one(url: str, share: int) -> None:
        async with execsrv.connect(url) as client:
            async for result in client.map([COMMAND] * share, limit=-(-LIMIT // SERVERS)):
                count.add(result.exit_code)

    async with trio.open_nursery() as nursery:
        for number, url in enumerate(urls):
            nursery.start_soon(one, url, count.total // SERVERS + (number < count.total % SERVERS))


async def pool(urls: list[str], count: Count) -> None:
    async with execsrv.Pool(urls) as servers:
        async for result in servers.map([COMMAND] * count.total, limit=LIMIT):
            count.add(result.exit_code)


def by_subprocess() -> int:
    return subprocess.run(COMMAND, capture_output=True).returncode


def ray_tasks(work: Callable[[], int], count: Count) -> None:
    import ray

    run = ray.remote(num_cpus=1)(work)
    waiting = [run.remote() for _ in range(min(LIMIT, count.total))]
    asked = len(waiting)
    while waiting:
        done, waiting = ray.wait(waiting)
        for exit_code in ray.get(done):
            count.add(exit_code)
        while asked < count.total and len(waiting) < LIMIT:
            waiting.append(run.remote())
            asked += 1


@contextmanager
def cluster() -> Iterator[None]:
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster()
    for number in range(2, 2 + SERVERS):
        nodes.add_node(num_cpus=1, node_ip_address=f"127.0.0.{number}", object_store_memory=100_000_000)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    try:
        ray_tasks(by_subprocess, Count(30))  # the workers are started by the first tasks
        yield
    finally:
        ray.shutdown()
        nodes.shutdown()


def measured(way: Callable[[Count], object], total: int) -> Round:
    count = Count(total)
    began, used, all_used = time.monotonic(), cpu(), cpu_of_all()
    way(count)
    assert count.done == total
    rate = total / (time.monotonic() - began)
    return Round(rate, (cpu() - used) / total, (cpu_of_all() - all_used) / total, resident() - count.early)


def of_trio(work: Callable[[list[str], Count], Awaitable[None]], urls: list[str], count: Count) -> None:
    trio.run(work, urls, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--commands", type=int, default=10000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        urls = [stack.enter_context(serving("ws://127.0.0.1:0")).url for _ in range(SERVERS)]
        ways: dict[str, Callable[[Count], Any]] = {
            "plain clients": partial(of_trio, plain, urls),
            "pool": partial(of_trio, pool, urls),
        }
        if options.ray:
            stack.enter_context(cluster())
            ways["ray tasks"] = partial(ray_tasks, by_subprocess)
        rounds: dict[str, list[Round]] = {name: [] for name in ways}
        for number in range(options.rounds):
            for name in list(ways) if number % 2 == 0 else reversed(list(ways)):
                rounds[name].append(measured(ways[name], options.commands))
    first = statistics.median(one.rate for one in rounds["plain clients"])
    print(f"{options.commands} commands, {LIMIT} at a time, {SERVERS} servers; {sys.version.split()[0]}")
    for name, found in rounds.items():
        rates = sorted(one.rate for one in found)
        rate = statistics.median(rates)
        spent, of_all = (1000 * statistics.median(one[place] for one in found) for place in (1, 2))
        grown = statistics.median(one.grown for one in found) / 2**20
        print(
            f"{name:14} {rate:7.0f}/s ({rates[0]:.0f} to {rates[-1]:.0f})  {first / rate:5.2f} times the time of plain"
            f" clients  {spent:.2f} ms of the client's processor, {of_all:.2f} ms of all  {grown:+.1f} MiB"
        )


if __name__ == "__main__":
    main()
