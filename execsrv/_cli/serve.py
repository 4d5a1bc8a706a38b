"""`execsrv serve`: the daemon as a process, with its settings, its log, its signals and its announcement."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping
from typing import Any

import click
import trio

from execsrv._cli.config import as_toml, load
from execsrv._cli.signals import received
from execsrv._cli.streams import say, write_line
from execsrv._nursery import open_helpers
from execsrv._processes.supervisor import open_supervisor
from execsrv._server.listeners import serve_url
from execsrv.errors import ExecsrvError, InvalidConfigError
from execsrv.limits import ServerConfig

logger = logging.getLogger(__name__)

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def run_serve(flags: Mapping[str, Any], *, codex: bool, print_config: bool) -> int:
    """Serve with these options, or print all settings; return the exit status. Raises `click.UsageError`."""
    try:
        loaded = load(flags, os.environ, codex=codex)
        if print_config:
            click.echo(as_toml(loaded).encode(), nl=False)
            return 0
    except InvalidConfigError as error:
        raise click.UsageError(str(error)) from None
    return run_daemon(loaded.listen, loaded.config, codex=codex)


def run_daemon(listen: str, config: ServerConfig, *, codex: bool = False) -> int:
    """Serve until the peer hangs up or a signal comes; return the exit status.

    With `codex`, the line that tells the Codex CLI where to find it is printed.
    """
    logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT, handlers=[_Log()])
    logging.getLogger("trio-websocket").setLevel(logging.WARNING)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by our parent, it would lose us every exit status
    try:
        was_asked = trio.run(_serve, listen, config, _Announcement(codex))
    except (ExecsrvError, OSError) as error:
        say(f"execsrv: {error}")
        return 1
    if not was_asked:
        say("execsrv: the server ended without having been asked to: this is a fault of execsrv")
        return 1
    return 0


async def _serve(listen: str, config: ServerConfig, announcement: _Announcement) -> bool:
    """Serve, and return whether the end was asked for: by a signal or, on stdio, by the peer."""
    signalled = trio.Event()
    ended = False
    async with open_helpers() as nursery:
        await nursery.start(_hear_signals, signalled)
        async with open_supervisor(own_process=True, sole=True, cgroups=config.cgroup) as supervisor:
            await serve_url(supervisor, listen, config, shutdown_trigger=signalled.wait, task_status=announcement)
            ended = listen == "stdio://"
    return ended or signalled.is_set()


async def _hear_signals(
    signalled: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """End the server at the first signal. Further ones change nothing: the end is bounded, and not interrupted."""
    with received() as signals:
        task_status.started()
        async for number in signals:
            logger.info("ending on %s", signal.Signals(number).name)
            signalled.set()


class _Log(logging.Handler):
    """The log on stderr. Where nobody reads it, lines are lost, and the server goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        say(self.format(record))


class _Announcement(trio.TaskStatus[str]):
    """Tells people and programs where we listen, once we do."""

    def __init__(self, codex: bool) -> None:
        self._codex = codex

    def started(self, url: str | None = None) -> None:
        """Print the URL on stdout, and a line for people on stderr."""
        assert url is not None
        if url == "stdio://":
            return
        lines = os.fsencode(url)
        if self._codex and url.startswith("ws://"):
            lines += b"\nexport CODEX_EXEC_SERVER_URL=" + lines  # no other transport has a URL there
        if (error := write_line(1, lines)) is not None:
            logger.warning("cannot print the URL on stdout: %s", error.strerror)
        say(f"execsrv listening on {url}")
