"""The files of control groups, of both versions: what is written for a limit, and what the kernel has counted.

See cgroups(7), and admin-guide/cgroup-v1 and admin-guide/cgroup-v2 of the kernel's documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

Count = Literal["cpu_seconds", "peak_memory", "oom_kills", "refused_forks", "throttled_seconds"]

PERIOD_MICROSECONDS = 100_000


class Setting(NamedTuple):
    """A file of a group and the text in it. One `of_swap` may be missing where a machine has no swap."""

    file: str
    text: str
    of_swap: bool = False


class Counter(NamedTuple):
    """A number in a file of a controller's group, behind a word where there is one, and the size of its unit."""

    controller: str
    file: str
    word: str | None = None
    unit: float = 1


class Version(NamedTuple):
    """One version. The first of several counters for the same that is there holds."""

    number: int
    settings: Mapping[str, Callable[[int], list[Setting]]]
    counters: Mapping[Count, list[Counter]]


V1 = Version(
    1,
    {
        "memory": lambda size: [
            Setting("memory.limit_in_bytes", f"{size}"),
            Setting("memory.memsw.limit_in_bytes", f"{size}", of_swap=True),
        ],
        "pids": lambda most: [Setting("pids.max", f"{most}")],
        "cpu": lambda percent: [
            Setting("cpu.cfs_period_us", f"{PERIOD_MICROSECONDS}"),
            Setting("cpu.cfs_quota_us", f"{percent * PERIOD_MICROSECONDS // 100}"),
        ],
        "cpuacct": lambda _: [],
    },
    {
        "cpu_seconds": [Counter("cpuacct", "cpuacct.usage", unit=1e-9)],
        "peak_memory": [
            Counter("memory", "memory.memsw.max_usage_in_bytes"),
            Counter("memory", "memory.max_usage_in_bytes"),
        ],
        "oom_kills": [Counter("memory", "memory.oom_control", "oom_kill")],
        "refused_forks": [Counter("pids", "pids.events", "max")],
        "throttled_seconds": [Counter("cpu", "cpu.stat", "throttled_time", 1e-9)],
    },
)


V2 = Version(
    2,
    {
        "memory": lambda size: [
            Setting("memory.max", f"{size}"),
            Setting("memory.swap.max", "0", of_swap=True),
        ],
        "pids": lambda most: [Setting("pids.max", f"{most}")],
        "cpu": lambda percent: [
            Setting("cpu.max", f"{percent * PERIOD_MICROSECONDS // 100} {PERIOD_MICROSECONDS}"),
        ],
        "cpuacct": lambda _: [],
    },
    {
        "cpu_seconds": [Counter("cpuacct", "cpu.stat", "usage_usec", 1e-6)],
        "peak_memory": [Counter("memory", "memory.peak")],
        "oom_kills": [Counter("memory", "memory.events", "oom_kill")],
        "refused_forks": [Counter("pids", "pids.events", "max")],
        "throttled_seconds": [Counter("cpu", "cpu.stat", "throttled_usec", 1e-6)],
    },
)
"""Every group counts its processor time there, whatever its controllers."""


def read(folder: Path, counter: Counter) -> float | None:
    """Return what a group has counted, None where it does not tell."""
    try:
        text = (folder / counter.file).read_text()
        number = text if counter.word is None else dict(line.split() for line in text.splitlines())[counter.word]
        return int(number) * counter.unit
    except (OSError, KeyError, ValueError):
        return None
