"""`execsrv runner`: the runner as a process, with its channel, its signals and its exit status."""

from __future__ import annotations

import logging

import trio

from execsrv._cli.descriptors import raise_descriptor_limit
from execsrv._cli.logs import open_log
from execsrv._cli.signals import received, reset_signals
from execsrv._nursery import open_helpers
from execsrv._processes.own_memory import close_memory
from execsrv._processes.supervisor import open_supervisor
from execsrv._processes.withheld import NOTHING
from execsrv._runner.channel import open_channel
from execsrv._runner.serve import serve_runner
from execsrv._wire.stdio import taken_stdio
from execsrv.errors import ExecsrvError

logger = logging.getLogger(__name__)


def runner() -> int:
    """Serve over stdin and stdout; return the exit status."""
    reset_signals()
    raise_descriptor_limit()
    close_memory(NOTHING, allow_debugging=False)
    with open_log("warning", "auto") as log:
        try:
            with taken_stdio() as ends:
                return trio.run(_run, *ends)
        except (ExecsrvError, OSError) as error:
            log.say(f"execsrv: runner: {error}")
            return 1


async def _run(descriptor_in: int, descriptor_out: int) -> int:
    """Serve until the other side hangs up, or a signal comes."""
    status = 1
    async with open_helpers() as nursery:
        with trio.CancelScope() as serving:
            await nursery.start(_end_on_signal, serving)
            with open_channel(descriptor_in, descriptor_out) as channel:
                async with open_supervisor(own_process=True, sole=True) as supervisor:
                    status = await serve_runner(supervisor, channel)
    return status


async def _end_on_signal(
    serving: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with received() as signals:
        task_status.started()
        async for _ in signals:
            serving.cancel()
