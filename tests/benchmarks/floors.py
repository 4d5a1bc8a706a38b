"""Measure what this machine can do at all, before asking how fast a pool is: `python -m tests.benchmarks.floors`.

From the root of the repository. Each way runs `true` so many times, or nothing where it says so, and they take turns,
for some rounds. Without anything around: `posix_spawn` and `waitid` of plain Python, in one process and in three; then
`subprocess.run` in the same way; then three servers, with plain clients and with a pool, 64 at a time; and with `--ray`
tasks on a cluster of three nodes with one processor each, 64 at a time: such that do nothing, that call
`subprocess.run`, that also have a session of their own and kill what is left in it, and that call `execsrv.run`, whose
promises are those of a server.

Printed are commands a second, with the lowest and the highest round, and the processor time of all for a command: with
so many processors, no way can have more than their number divided by that. `--commands 2000`, `--rounds 3`. Nothing
passes or fails.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import trio

import execsrv
from execsrv.testing import serving
from tests.benchmarks.maps import (
    COMMAND,
    SERVERS,
    Count,
    Round,
    by_subprocess,
    cluster,
    measured,
    of_trio,
    plain,
    pool,
    ray_tasks,
)

WITH_A_SERVER_EACH = "Ray tasks, execsrv.run"
PROGRAM = "/bin/true"
SPAWN = f"""
import os, sys
for _ in range(int(sys.argv[1])):
    os.waitid(os.P_PID, os.posix_spawn({PROGRAM!r}, [{PROGRAM!r}], {{}}), os.WEXITED)
"""
RUN = f"""
import subprocess, sys
for _ in range(int(sys.argv[1])):
    subprocess.run([{PROGRAM!r}], capture_output=True)
"""


def loops(script: str, processes: int, count: Count) -> None:
    """Run a script in some processes, each of which has its share of the commands."""
    shares = [count.total // processes + (number < count.total % processes) for number in range(processes)]
    started = [subprocess.Popen([sys.executable, "-I", "-S", "-c", script, str(share)]) for share in shares]
    for process, share in zip(started, shares, strict=True):
        assert process.wait() == 0
        for _ in range(share):
            count.add(0)


def nothing() -> int:
    return 0


def in_a_session() -> int:
    """Run a command in a session of its own, and kill what is left in its group."""
    with subprocess.Popen(COMMAND, stdout=-1, stderr=-1, start_new_session=True) as process:
        try:
            process.communicate()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode


def by_execsrv() -> int:
    """Run a command by a server in this process: nothing of it survives, whatever it does."""
    return trio.run(execsrv.run, COMMAND).exit_code


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--commands", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        urls = [stack.enter_context(serving("unix://")).url for _ in range(SERVERS)]
        ways: dict[str, Callable[[Count], Any]] = {
            "posix_spawn, one process": partial(loops, SPAWN, 1),
            "posix_spawn, three": partial(loops, SPAWN, 3),
            "subprocess.run, one process": partial(loops, RUN, 1),
            "subprocess.run, three": partial(loops, RUN, 3),
            "servers, plain clients": partial(of_trio, plain, urls),
            "servers, a pool": partial(of_trio, pool, urls),
        }
        if options.ray:
            stack.enter_context(cluster())
            ways["Ray tasks, no command"] = partial(ray_tasks, nothing)
            ways["Ray tasks, subprocess.run"] = partial(ray_tasks, by_subprocess)
            ways["Ray tasks, group killed"] = partial(ray_tasks, in_a_session)
            ways[WITH_A_SERVER_EACH] = partial(ray_tasks, by_execsrv)
        rounds: dict[str, list[Round]] = {name: [] for name in ways}
        for number in range(options.rounds):
            for name in list(ways) if number % 2 == 0 else reversed(list(ways)):
                share = 10 if name == WITH_A_SERVER_EACH else 1  # it takes long
                rounds[name].append(measured(ways[name], options.commands // share))
    print(f"{options.commands} commands on {os.cpu_count()} processors; {sys.version.split()[0]}")
    print("| way | a second | lowest, highest | ms of all processors |\n| --- | --- | --- | --- |")
    for name, found in rounds.items():
        rates = sorted(one.rate for one in found)
        spent = 1000 * statistics.median(one.cpu_of_all for one in found)
        print(f"| {name} | {statistics.median(rates):.0f} | {rates[0]:.0f}, {rates[-1]:.0f} | {spent:.2f} |")


if __name__ == "__main__":
    main()
