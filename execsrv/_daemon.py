"""The daemon as a process: its log, its signals, and what it says when it listens."""

from __future__ import annotations

import logging
import signal
import sys

import trio

from execsrv.errors import ExecsrvError
from execsrv.server import serve, until_signalled


def run_daemon(listen: str) -> int:
    """Serve until the peer hangs up or a signal comes; the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("trio-websocket").setLevel(logging.WARNING)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by our parent, it would lose us every exit status
    try:
        trio.run(_serve, listen)
    except ExecsrvError as error:
        print(f"execsrv: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(listen: str) -> None:
    failure: ExecsrvError | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(_end_when_signalled, nursery.cancel_scope)
        try:
            await _serve_and_announce(listen)
        except ExecsrvError as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _end_when_signalled(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    await until_signalled(task_status=task_status)
    scope.cancel()


class _Announcement(trio.TaskStatus[str]):
    """Tells people and programs where we listen, once we do."""

    def started(self, url: str | None = None) -> None:
        if url != "stdio://":
            print(url, flush=True)
            print(f"execsrv listening on {url}", file=sys.stderr, flush=True)


async def _serve_and_announce(listen: str) -> None:
    await serve(listen, task_status=_Announcement())
