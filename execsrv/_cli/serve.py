"""The daemon as a process: its log, its signals, and what it says when it listens."""

from __future__ import annotations

import logging
import signal
import sys

import trio

from execsrv._cli.signals import received
from execsrv._nursery import open_helpers
from execsrv._processes.supervisor import open_supervisor
from execsrv._server.listeners import serve_url
from execsrv.errors import ExecsrvError
from execsrv.limits import ServerConfig

logger = logging.getLogger(__name__)


def run_daemon(listen: str, config: ServerConfig, *, codex: bool = False) -> int:
    """Serve until the peer hangs up or a signal comes; the exit status. `codex`: say how the Codex CLI finds it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("trio-websocket").setLevel(logging.WARNING)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by our parent, it would lose us every exit status
    try:
        trio.run(_serve, listen, config, _Announcement(codex))
    except (ExecsrvError, OSError) as error:
        print(f"execsrv: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(listen: str, config: ServerConfig, announcement: _Announcement) -> None:
    signalled = trio.Event()
    async with open_helpers() as nursery:
        await nursery.start(_hear_signals, signalled)
        async with open_supervisor(own_process=True, sole=True, cgroups=config.cgroup) as supervisor:
            await serve_url(supervisor, listen, config, shutdown_trigger=signalled.wait, task_status=announcement)


async def _hear_signals(
    signalled: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """The first signal ends the server. Further ones change nothing: the end is bounded, and not to be interrupted."""
    with received() as signals:
        task_status.started()
        async for number in signals:
            logger.info("ending on %s", signal.Signals(number).name)
            signalled.set()


class _Announcement(trio.TaskStatus[str]):
    """Tells people and programs where we listen, once we do."""

    def __init__(self, codex: bool) -> None:
        self._codex = codex

    def started(self, url: str | None = None) -> None:
        if url != "stdio://":
            print(url)
            if self._codex and str(url).startswith("ws://"):
                print(f"export CODEX_EXEC_SERVER_URL={url}")  # no other transport has a URL there
            sys.stdout.flush()
            print(f"execsrv listening on {url}", file=sys.stderr, flush=True)
