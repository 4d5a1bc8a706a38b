"""Measure commands in a container beside docker-py: `python -m tests.benchmarks.beside_docker CONTAINER --rounds 3`.

With docker-py installed, and a container that runs and has Python 3 of this version, `true`, `head` and `sh`. Either
side asks the same Docker, and the two take turns. Printed are medians over the rounds, and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from importlib import import_module

import trio

import execsrv

MB = 1_000_000
COMMANDS = 50
PRINT = ["head", "-c", str(100 * MB), "/dev/zero"]
ROWS = f"{COMMANDS} commands, one by one", "100 MB of output"


async def by_execsrv(container: str) -> list[float]:
    async with execsrv.connect(f"docker://{container}") as client:
        times = [time.perf_counter()]
        for _ in range(COMMANDS):
            await client.run(["true"], check=True)
        times.append(time.perf_counter())
        assert len((await client.run(PRINT, max_bytes=200 * MB)).stdout) == 100 * MB
        times.append(time.perf_counter())
    return times


def by_docker_py(container: str) -> list[float]:
    box = import_module("docker").from_env().containers.get(container)  # which our own suite does without
    times = [time.perf_counter()]
    for _ in range(COMMANDS):
        assert box.exec_run(["true"]).exit_code == 0
    times.append(time.perf_counter())
    assert len(box.exec_run(PRINT).output) == 100 * MB
    times.append(time.perf_counter())
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("container")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rounds = [(trio.run(by_execsrv, options.container), by_docker_py(options.container)) for _ in range(options.rounds)]
    for number, row in enumerate(ROWS):
        ours, theirs = (statistics.median(r[side][number + 1] - r[side][number] for r in rounds) for side in (0, 1))
        print(f"{row:32} {ours * 1000:9.1f} ms   docker-py {theirs * 1000:9.1f} ms   ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
