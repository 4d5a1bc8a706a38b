"""`execsrv serve`: the daemon as a process, with its settings, its log, its signals and its announcement."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, NamedTuple

import trio

from execsrv._cli.config import Loaded, as_toml, load
from execsrv._cli.daemon_log import Log, open_log
from execsrv._cli.descriptors import raise_descriptor_limit
from execsrv._cli.notify import Manager
from execsrv._cli.reloading import has_terminal, reload_of_settings
from execsrv._cli.signals import received, reset_signals
from execsrv._cli.streams import say
from execsrv._cli.usage import UsageError
from execsrv._doors.reloads import Reloads
from execsrv._memory import give_back
from execsrv._nursery import open_helpers
from execsrv._outlet import Outlet, open_outlet
from execsrv._processes.own_memory import close_memory
from execsrv._processes.supervisor import open_supervisor
from execsrv._processes.withheld import withheld_by
from execsrv._server.serving import serve_url
from execsrv._wire.writing import write_all
from execsrv.errors import ExecsrvError, InvalidConfigError

logger = logging.getLogger(__name__)


class DaemonOptions(NamedTuple):
    """Words on the command line that are no settings: they hold for one process only."""

    codex: bool = False
    """Print the line that tells the Codex CLI where to find it."""
    quiet: bool = False
    """Log warnings and errors alone."""
    lifeline: int | None = None
    """A descriptor. When its other end is closed, the server ends."""
    join: str | None = None
    """The file of servers that this one joins."""
    label: tuple[tuple[str, str], ...] = ()
    """The labels that it has there."""
    single: bool = False
    """That of `serve_url`."""


_SWITCH_SECONDS = 0.0005
"""So long a thread that works on files may keep the loop waiting, each time. Python's own figure is ten times that."""


def serve(
    *,
    config: str | None,
    codex: bool,
    print_config: bool,
    lifeline: int | None,
    join: str | None,
    label: tuple[tuple[str, str], ...],
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **settings: Any,
) -> int:
    """Serve with these options, or print all settings; return the exit status. Raises `UsageError`."""
    flags: Mapping[str, Any] = {"config": config, **settings}
    if as_json:
        flags = {**flags, "log_format": "json"}
    if verbose:
        flags = {**flags, "log_level": "debug"}
    options = DaemonOptions(codex, quiet, lifeline, join, label)

    def read() -> Loaded:
        return load(flags, os.environ, codex=options.codex)

    try:
        loaded = read()
        if print_config:
            write_all(1, as_toml(loaded).encode())
            return 0
    except InvalidConfigError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        say(f"execsrv: cannot print the settings: {error.strerror}")
        return 1
    if options.lifeline is not None and loaded.listen == "stdio://":
        raise UsageError("on stdio:// the server ends with its stdin: a lifeline is for those that listen")
    if options.join is not None and loaded.listen == "stdio://":
        raise UsageError("on stdio:// nobody else comes in: to join a file is for those that listen")
    if options.label and options.join is None:
        raise UsageError("--label is for a server that joins a file: with --join")
    return run_daemon(loaded, options, read)


def run_daemon(loaded: Loaded, options: DaemonOptions, read_again: Callable[[], Loaded] | None = None) -> int:
    """Serve until the peer hangs up or a signal comes; return the exit status.

    `read_again` reads the settings again. Without it, SIGHUP ends the server.
    """
    reset_signals()
    raise_descriptor_limit()
    sys.setswitchinterval(_SWITCH_SECONDS)
    close_memory(withheld_by(loaded.config), allow_debugging=loaded.config.allow_debugging)
    manager = Manager()
    reloads = None
    if read_again is not None and loaded.listen != "stdio://" and not has_terminal():
        reloads = Reloads()
        reloads.add("the settings", reload_of_settings(loaded, read_again, reloads))
    config = loaded.config
    level = "warning" if options.quiet and config.log_level != "error" else config.log_level
    with open_log(level, config.log_format) as log, open_outlet(1, _cannot_announce) as out:
        try:
            guides = os.isatty(2) and not options.quiet and not options.codex and config.log_format != "json"
            announcement = _Announcement(log, out, options.codex, manager, guides=guides, has_page=config.web)
            was_asked = trio.run(_serve, loaded, options, reloads, announcement, manager)
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


async def _serve(
    loaded: Loaded, options: DaemonOptions, reloads: Reloads | None, announcement: _Announcement, manager: Manager
) -> bool:
    """Serve, and return whether the end was asked for: by a signal, a lifeline or, on stdio or `single`, the peer."""
    asked = _Asked(manager)
    ended = False
    async with open_helpers() as nursery:
        await nursery.start(_hear_signals, asked, reloads)
        if options.lifeline is not None:
            await nursery.start(_keep_lifeline, options.lifeline, asked)
        if options.join is not None:
            from execsrv._cli.joining import keep_joined  # for servers of a pool

            wait_listening, wait_ending = announcement.wait_started, asked.to_end.wait
            nursery.start_soon(keep_joined, options.join, options.label, wait_listening, wait_ending)
        nursery.start_soon(give_back)
        config = loaded.config
        tracing: AbstractAsyncContextManager[None] = nullcontext()
        if config.traces:
            from execsrv._cli.tracing import open_tracing  # for those who want them

            tracing = open_tracing()
        opening = open_supervisor(
            own_process=True, sole=True, cgroups=config.cgroup, guardian_patience=config.guardian_patience
        )
        async with tracing, opening as supervisor:
            nursery.start_soon(manager.keep_told, lambda: supervisor.sessions)
            with trio.CancelScope() as serving:
                nursery.start_soon(_end_start, asked, announcement, serving)
                await serve_url(
                    supervisor,
                    loaded.listen,
                    config,
                    shutdown_trigger=asked.to_end.wait,
                    hurry_trigger=asked.to_hurry.wait,
                    single=options.single,
                    reloads=reloads,
                    task_status=announcement,
                )
            ended = options.single or loaded.listen == "stdio://"
    return ended or asked.to_end.is_set()


async def _end_start(asked: _Asked, announcement: _Announcement, serving: trio.CancelScope) -> None:
    """End a server that is asked to before it listens: what it reads may hang."""
    await asked.to_end.wait()
    if not announcement.is_made:
        serving.cancel()


class _Asked:
    """The wishes of others for the end of this server."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.to_end = trio.Event()
        self.to_hurry = trio.Event()

    def end(self, *, at_once: bool = False) -> None:
        """End the server. To ask again, or at once, is to have it wait for nothing that runs."""
        if at_once or self.to_end.is_set():
            self.to_hurry.set()
        self.to_end.set()
        self.manager.ending()


async def _hear_signals(
    asked: _Asked, reloads: Reloads | None, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """End the server at the first signal. A further one ends the wait for what runs, and nothing else.

    Where there is something to be read again, SIGHUP does that.
    """
    with received() as signals:
        async with open_helpers() as nursery:  # a disk that does not answer must not keep us from hearing the next
            task_status.started()
            async for number in signals:
                if number != signal.SIGHUP or reloads is None:
                    logger.info("ending on %s", signal.Signals(number).name)
                    asked.end()
                elif not asked.to_end.is_set():
                    nursery.start_soon(_reload, reloads, asked.manager)


async def _reload(reloads: Reloads, manager: Manager) -> None:
    before = manager.reloading()
    await reloads.run()
    manager.reloaded(before)


async def _keep_lifeline(
    descriptor: int, asked: _Asked, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """End the server with whoever holds the other end of a descriptor. Raises `ExecsrvError`."""
    from execsrv._cli.lifeline import open_lifeline  # for those who have one

    with open_lifeline(descriptor) as wait_closed:
        task_status.started()
        await wait_closed()
    logger.info("ending with whoever held the other end of descriptor %d", descriptor)
    asked.end(at_once=True)


def _cannot_announce(error: OSError) -> None:
    logger.warning("cannot print the URL on stdout: %s", error.strerror)


class _Announcement(trio.TaskStatus[str]):
    """Tells people and programs where we listen, once we do. Waits for neither."""

    def __init__(self, log: Log, out: Outlet, codex: bool, manager: Manager, *, guides: bool, has_page: bool) -> None:
        """It `guides` people who sit at a terminal: they are told what to do next."""
        self._log = log
        self._out = out
        self._codex = codex
        self._manager = manager
        self._guides = guides
        self._has_page = has_page
        self._is_typed_to = os.isatty(0)  # on stdio another file has its number later
        self._url: str | None = None
        self._started = trio.Event()

    @property
    def is_made(self) -> bool:
        """True once the server listens."""
        return self._started.is_set()

    async def wait_started(self) -> str:
        """Wait until the server listens, and return its URL."""
        await self._started.wait()
        assert self._url is not None
        return self._url

    def started(self, url: str | None = None) -> None:
        """Print the URL on stdout, and a line for people on stderr."""
        assert url is not None
        self._url = url
        self._started.set()
        self._manager.ready(f"listening on {url}")
        if url == "stdio://":
            if self._guides and self._is_typed_to:
                from execsrv._cli.next_steps import STDIO

                self._log.say(STDIO)
            return
        lines = os.fsencode(url)
        if self._codex and url.startswith(("ws://", "wss://")):
            lines += b"\nexport CODEX_EXEC_SERVER_URL=" + lines  # no other transport has a URL there
        self._out.put(lines)
        self._log.say(f"execsrv listening on {url}")
        if self._guides:
            from execsrv._cli.next_steps import next_steps  # for people alone

            for line in next_steps(url, has_page=self._has_page):
                self._log.say(line)
