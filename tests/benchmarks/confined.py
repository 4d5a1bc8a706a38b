"""What confinement and limits cost a start: each kind in turns with plain ones, and where the time goes.

$ python tests/benchmarks/confined.py

A round starts each kind once; times are from the call until the command has been closed. The second table takes the
parts of a confined start alone. Look at p25 and at the processor time on a busy machine: ours, with that of the
commands, until each is reaped.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

import execsrv
from execsrv import Policy, ProcessLimits
from execsrv._policies.resolver import Resolver
from execsrv._processes.command import settle
from execsrv._processes.confine import layers, start, starter
from execsrv._processes.confine.table import Table
from execsrv.client.policy import sandbox_of

WORKSPACE = Policy.workspace_write("/var/tmp", network=False)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "read only": {"sandbox": Policy.read_only(network=False)},
    "workspace-write": {"sandbox": WORKSPACE},
    "limits of each process": {"limits": ProcessLimits(open_files=100)},
    "limits of all of it": {"limits": ProcessLimits(memory_bytes=1 << 30, processes=100, cpu_percent=100)},
}


def processor_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def row(name: str, seconds: list[float], processor: list[float]) -> str:
    p25, p50, _ = statistics.quantiles(seconds, n=4)
    cells = min(seconds), p25, p50, statistics.fmean(processor)
    return f"{name:28}" + "".join(f"{1000 * cell:10.2f}" for cell in cells)


async def measure(rounds: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in KINDS}
    processor: dict[str, list[float]] = {name: [] for name in KINDS}
    async with execsrv.connect_in_process(own_process=True) as client:
        for number in range(rounds + 5):
            for name, kind in KINDS.items():
                begun, used = time.perf_counter(), processor_seconds()
                await client.run(["/bin/true"], cwd="/", env={}, **kind)
                if number >= 5:
                    seconds[name].append(time.perf_counter() - begun)
                    processor[name].append(processor_seconds() - used)
    print(f"{'start to closed, ms':28}{'min':>10}{'p25':>10}{'p50':>10}{'cpu':>10}")
    for name in KINDS:
        print(row(name, seconds[name], processor[name]))
    above = statistics.median(seconds["workspace-write"]) - statistics.median(seconds["plain"])
    print(f"{'confined above plain, p50':28}{1000 * above:30.2f}")


def parts(rounds: int) -> None:
    means = start.needed_means()
    command = settle(["/bin/true"], "/", {}, None)
    resolved = Resolver(sandbox_of(WORKSPACE), "/").resolve(None)
    by = starter.interpreter()
    bare = Table()
    bare.report(starter.READY)
    bare.call("exec", "execve", bare.text(b"/bin/true"), bare.texts((b"true",)), bare.texts(()))
    whole = layers.table(command, resolved, means)

    def carry_out(table: Table) -> None:
        pids = starter.carry_out(table, by, child=ctypes.c_int())
        os.waitpid(pids.leader, 0)
        if pids.reaper is not None:
            os.kill(pids.reaper, 9)
            os.waitpid(pids.reaper, 0)

    each: dict[str, Callable[[], object]] = {
        "policy resolved": lambda: Resolver(sandbox_of(WORKSPACE), "/").resolve(None),
        f"table made ({len(whole.rows)} rows)": lambda: layers.table(command, resolved, means),
        "bare table carried out": lambda: carry_out(bare),
        "whole table carried out": lambda: carry_out(whole),
    }
    print(f"\n{'parts, ms':28}{'min':>10}{'p25':>10}{'p50':>10}{'cpu':>10}")
    for name, do in each.items():
        seconds, processor = [], []
        for _ in range(rounds):
            begun, used = time.perf_counter(), processor_seconds()
            do()
            seconds.append(time.perf_counter() - begun)
            processor.append(processor_seconds() - used)
        print(row(name, seconds, processor))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    trio.run(measure, rounds)
    parts(rounds)


if __name__ == "__main__":
    main()
