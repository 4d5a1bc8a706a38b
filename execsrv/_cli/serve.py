"""`execsrv serve`: the daemon as a process, with its settings, its log, its signals and its announcement."""

from __future__ import annotations

import logging
import os
import resource
import signal
from collections.abc import Mapping
from typing import Any

import click
import trio

from execsrv._cli.config import as_toml, load
from execsrv._cli.logs import open_log
from execsrv._cli.signals import received, reset_signals
from execsrv._cli.writer_thread import Outlet, open_outlet
from execsrv._memory import give_back
from execsrv._nursery import open_helpers
from execsrv._processes import carried_limits
from execsrv._processes.own_memory import close_memory
from execsrv._processes.supervisor import open_supervisor
from execsrv._processes.withheld import Withheld
from execsrv._server.listeners import serve_url
from execsrv.errors import ExecsrvError, InvalidConfigError
from execsrv.limits import ServerConfig

logger = logging.getLogger(__name__)


def run_serve(flags: Mapping[str, Any], *, codex: bool, print_config: bool, quiet: bool) -> int:
    """Serve with these options, or print all settings; return the exit status. Raises `click.UsageError`."""
    try:
        loaded = load(flags, os.environ, codex=codex)
        if print_config:
            click.echo(as_toml(loaded).encode(), nl=False)
            return 0
    except InvalidConfigError as error:
        raise click.UsageError(str(error)) from None
    return run_daemon(loaded.listen, loaded.config, codex=codex, quiet=quiet)


def run_daemon(
    listen: str, config: ServerConfig, *, codex: bool = False, quiet: bool = False, single: bool = False
) -> int:
    """Serve until the peer hangs up or a signal comes; return the exit status.

    With `codex`, the line that tells the Codex CLI where to find it is printed. With `quiet`, warnings and errors alone
    are logged. `single` is that of `serve_url`.
    """
    reset_signals()
    _raise_descriptor_limit()
    withheld = Withheld(config.withheld_variables, config.withhold_secrets)
    close_memory(withheld, allow_debugging=config.allow_debugging)
    with open_log(logging.WARNING if quiet else logging.INFO) as log, open_outlet(1, _cannot_announce) as out:
        try:
            was_asked = trio.run(_serve, listen, config, single, _Announcement(log, out, codex))
        except (ExecsrvError, OSError) as error:
            log.say(f"execsrv: {error}")
            return 1
        except Exception:
            # Not left to the interpreter, whose words may find nobody who reads them, and would wait.
            logger.critical("the server failed", exc_info=True)
            return 1
        if not was_asked:
            log.say("execsrv: the server ended without having been asked to: this is a fault of execsrv")
            return 1
    return 0


def _raise_descriptor_limit() -> None:
    """Raise our soft limit of descriptors to the hard one. Commands get the old one."""
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return  # we serve with what we have
    if soft != hard:
        carried_limits.commands_limits = ((resource.RLIMIT_NOFILE, soft),)


async def _serve(listen: str, config: ServerConfig, single: bool, announcement: _Announcement) -> bool:
    """Serve, and return whether the end was asked for: by a signal or, on stdio or with `single`, by the peer."""
    signalled = trio.Event()
    ended = False
    async with open_helpers() as nursery:
        await nursery.start(_hear_signals, signalled)
        nursery.start_soon(give_back)
        async with open_supervisor(
            own_process=True, sole=True, cgroups=config.cgroup, guardian_patience=config.guardian_patience
        ) as supervisor:
            await serve_url(
                supervisor, listen, config, shutdown_trigger=signalled.wait, single=single, task_status=announcement
            )
            ended = single or listen == "stdio://"
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


def _cannot_announce(error: OSError) -> None:
    logger.warning("cannot print the URL on stdout: %s", error.strerror)


class _Announcement(trio.TaskStatus[str]):
    """Tells people and programs where we listen, once we do. Waits for neither."""

    def __init__(self, log: Outlet, out: Outlet, codex: bool) -> None:
        self._log = log
        self._out = out
        self._codex = codex

    def started(self, url: str | None = None) -> None:
        """Print the URL on stdout, and a line for people on stderr."""
        assert url is not None
        if url == "stdio://":
            return
        lines = os.fsencode(url)
        if self._codex and url.startswith("ws://"):
            lines += b"\nexport CODEX_EXEC_SERVER_URL=" + lines  # no other transport has a URL there
        self._out.put(lines)
        self._log.say(f"execsrv listening on {url}")
