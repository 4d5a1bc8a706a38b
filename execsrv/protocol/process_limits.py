"""Limits of one command, and what it has used when it is over."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from execsrv.protocol.bounds import Whole
from execsrv.protocol.messages import Wire

Amount = Annotated[int, Meta(ge=1, le=2**53)]

Reached = Literal["oom", "cpu", "file-size"]
"""The limit that a command has died of: one of the reasons of its end."""


class ProcessLimits(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of a command. None: what its server has. What cannot be kept is refused, and so is one of another name.

    The first three hold for all that descends from it together, and take a control group. The others hold for each of
    its processes.
    """

    memory_bytes: Amount | None = None
    """Memory and swap. If more is taken, the kernel kills one of its processes."""
    processes: Annotated[int, Meta(ge=1, le=2**22)] | None = None
    """Processes and threads at a time. Beyond, none can be made."""
    cpu_percent: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    """Share of the processors: 100 is one of them. To take more, it has to wait."""
    address_space_bytes: Amount | None = None
    """Addresses of a process, in use or not. Beyond, it gets none."""
    cpu_seconds: Annotated[int, Meta(ge=1, le=2**31)] | None = None
    """Processor time of a process. It gets SIGXCPU then, and is killed a second later."""
    open_files: Annotated[int, Meta(ge=1, le=2**30)] | None = None
    """Open descriptors of a process."""
    file_bytes: Whole | None = None
    """Length of a file that a process writes. Who writes beyond gets SIGXFSZ."""
    core_bytes: Whole | None = None
    """Length of the core file that a process leaves when it crashes."""

    @property
    def takes_group(self) -> bool:
        """True if any of these limits needs a control group."""
        return not (self.memory_bytes is self.processes is self.cpu_percent is None)


class ProcessUsage(Wire, frozen=True):
    """What a command has used that had limits. The parts of a control group are None without one.

    `cpu_seconds` are those of all of it with a control group, else of the leader and those whose end it has waited for.
    `oom_kills` are processes that were killed for want of memory, `refused_forks` what could not be made because of
    `processes`, and `throttled_seconds` the time in which all of it had to wait because of `cpu_percent`.
    """

    cpu_seconds: float
    peak_memory_bytes: int | None = None
    oom_kills: int | None = None
    refused_forks: int | None = None
    throttled_seconds: float | None = None
