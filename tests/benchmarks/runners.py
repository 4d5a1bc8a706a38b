"""Measure sessions over a runner beside those of the server itself: with pipes that are passed, and all in frames.

    python -m tests.benchmarks.runners [--rounds 5] [--mib 256]

They take turns on one server, so that a noisy minute hits all of them. It asserts no time: the medians are printed, of
the clock and of the processors of server, runner and relay together, and their ratio to the server's own sessions. What
the clock says of two cores with others' work on them is a hint; the processors' time is more than that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import trio

import execsrv
from execsrv import Client
from execsrv._processes import proc
from execsrv._processes.usage import usage_of
from tests.over_runner import LAUNCH, RELAYED

MIB = 1 << 20
STARTS = 50

Case = Callable[[Client, list[str] | None, int], Awaitable[None]]


class Sample(NamedTuple):
    """The seconds that a case took, of the clock and of processors."""

    elapsed: float
    processor: float


async def read(client: Client, runner: list[str] | None, mib: int) -> None:
    got = 0
    async with client.start(["head", "-c", str(mib * MIB), "/dev/zero"], runner=runner) as process:
        while data := await process.stdout.receive_some():
            got += len(data)
    assert got == mib * MIB


async def filtered(client: Client, runner: list[str] | None, mib: int) -> None:
    result = await client.run(["cat"], input=bytes(mib * MIB), max_bytes=2 * mib * MIB, runner=runner)
    assert len(result.stdout) == mib * MIB


async def started(client: Client, runner: list[str] | None, count: int) -> None:
    for _ in range(count):
        assert (await client.run(["true"], runner=runner)).exit_code == 0


def used() -> float:
    """Return the processor seconds of everything that descends from this process, but for what has ended."""
    return usage_of(set(proc.family([os.getpid()])) - {os.getpid()}).cpu_ms / 1000


async def sample(do: Callable[[], Awaitable[None]]) -> Sample:
    start, before = time.perf_counter(), used()
    await do()
    return Sample(time.perf_counter() - start, used() - before)


def median(samples: list[Sample]) -> Sample:
    return Sample(*(statistics.median(values) for values in zip(*samples, strict=True)))


async def main(rounds: int, mib: int) -> None:
    ways: dict[str, list[str] | None] = {"direct": None, "passed": LAUNCH, "framed": RELAYED}
    cases: dict[str, tuple[Case, int]] = {"read": (read, mib), "cat": (filtered, mib // 4), "true": (started, STARTS)}
    async with execsrv.launch() as client:
        for runner in ways.values():
            await started(client, runner, 1)  # so that it is there
        for name, (case, amount) in cases.items():
            taken: dict[str, list[Sample]] = {way: [] for way in ways}
            for number in range(rounds):
                for way in list(ways)[:: -1 if number % 2 else 1]:
                    taken[way].append(await sample(partial(case, client, ways[way], amount)))
            direct = median(taken["direct"])
            for way, samples in taken.items():
                its = median(samples)
                each = (
                    f"{its.elapsed / amount * 1000:8.2f} ms"
                    if case is started
                    else f"{amount / its.elapsed:8.0f} MiB/s"
                )
                print(
                    f"{name:5} {way:7} {each}   {direct.elapsed / its.elapsed:5.2f} of direct"
                    f"   processors {its.processor:6.2f} s ({direct.processor / max(its.processor, 0.01):.2f})"
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=256)
    options = parser.parse_args()
    trio.run(main, options.rounds, options.mib)
