"""The limits that the options of a command line ask for, and the end of a command that has reached one."""

from __future__ import annotations

import math

import msgspec

from execsrv._cli.job import Ended, RunOptions
from execsrv._cli.streams import say
from execsrv.errors import ExecsrvError
from execsrv.protocol import Reason
from execsrv.protocol.process_limits import ProcessLimits, ProcessUsage

_REACHED: dict[Reason, str] = {
    "oom": "was killed, as all of it had more memory than --limit-memory",
    "cpu": "was ended, as its processor time was over: --limit-cpu-time",
    "file-size": "was ended, as it wrote a file beyond --limit-file-size",
}


def limits_of(options: RunOptions) -> ProcessLimits | None:
    """Return the limits, None without any. Raises `ExecsrvError` for a number that none of them takes."""
    wanted = {
        "memoryBytes": options.limit_memory,
        "processes": options.limit_processes,
        "cpuPercent": options.limit_cpu,
        "addressSpaceBytes": options.limit_address_space,
        "cpuSeconds": None if options.limit_cpu_time is None else math.ceil(options.limit_cpu_time),
        "openFiles": options.limit_open_files,
        "fileBytes": options.limit_file_size,
        "coreBytes": options.limit_core,
    }
    try:
        limits = msgspec.convert(wanted, ProcessLimits)
    except msgspec.ValidationError as error:
        raise ExecsrvError(f"invalid limit: {error}") from None
    return None if limits == ProcessLimits() else limits


def ended_with(options: RunOptions, ended: Ended, reason: Reason | None, usage: ProcessUsage | None) -> Ended:
    """Return an end with what was used, and say so where it was a limit that ended it."""
    why = _REACHED.get(reason, "") if reason is not None else ""
    if why and not options.quiet:
        say(f"execsrv: the command {why}")
    return ended._replace(why=why, usage=usage)
