"""`execsrv run`: one command, here or through a server, and its end as the end of this process.

`local` runs it here, where nothing lies between it and its caller; `remote` on a server.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import math
import os
import shlex
import signal
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import trio
from msgspec.structs import replace

from execsrv._cli.heard_signals import Signals, die_of, heard_signals
from execsrv._cli.job import Ended, Recorder, RunOptions, failed
from execsrv._cli.streams import say
from execsrv._cli.variables import variables
from execsrv.errors import ExecsrvError, RequestError, SpawnError

_OUR_DEATHS = {name: signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGPIPE")}
"""Signals that a command may well have died of for our sake: so do we then, for a shell to act on it."""


def run(*, command: Sequence[str], **options: Any) -> int:
    """Run a command by the words of a command line; return the exit status, or end as the command did."""
    asked = RunOptions(command, **options)
    if asked.pool is not None:
        asked = replace(asked, url=asked.pool)
    try:
        asked = replace(asked, env=variables(asked.env_file, asked.env))
    except ExecsrvError as error:
        return failed(str(error)).code
    return run_once(asked)


def init(*, command: Sequence[str], grace: float | None, quiet: bool, verbose: bool) -> int:
    """Run a command as the first process of a container; return the exit status."""
    patience = math.inf if grace is None else grace
    return run_once(RunOptions(command, grace=patience, is_init=True, quiet=quiet, verbose=verbose))


def run_once(options: RunOptions) -> int:
    """Run a command; return the exit status for this process, or end it by the signal that the command died of."""
    began = time.monotonic()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    logging.getLogger("execsrv").setLevel(logging.ERROR)  # stderr is the command's
    ended = _reported(options) if options.junit is not None else _ended(options, None)
    if ended.is_said:
        return ended.code
    if options.verbose:
        say(f"execsrv: it ended with status {ended.code} after {time.monotonic() - began:.3f} s")
    if options.as_json:
        facts: dict[str, Any] = {"exitCode": ended.code, "signal": ended.signal}
        facts["seconds"] = round(time.monotonic() - began, 3)
        if ended.usage is not None:
            facts["usage"] = ended.usage
        say(msgspec.json.encode(facts).decode())
    if ended.signal in _OUR_DEATHS:
        die_of(_OUR_DEATHS[ended.signal])
    return ended.code


def _ended(options: RunOptions, report: Recorder | None) -> Ended:
    """Run a command, and return how that ended. A failure of ours is said."""
    told: list[signal.Signals] = []
    try:
        _check(options)
        if options.detach:
            from execsrv._cli.detaching import start_detached
            from execsrv._cli.interrupts import interruptible

            with interruptible(told):
                trio.run(start_detached, options)
            return Ended(0, is_said=True)
        with heard_signals(stops=options.url is not None and not options.tty) as signals:
            return trio.run(_run, options, signals, report)
    except SpawnError as error:
        ended = failed(str(error))
        if error.stage not in ("program", "permission", "format"):
            return ended._replace(is_said=True)
        code = 127 if error.errno in (errno.ENOENT, errno.ENOTDIR) else 126
        return ended._replace(code=code, is_said=True)
    except OSError as error:
        return failed(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
    except ExecsrvError as error:
        from execsrv._cli.calling import explained

        return failed(f"{error} ({error.kind})" if isinstance(error, RequestError) else explained(error, options.url))
    except KeyboardInterrupt:
        number = told[0] if told else signal.SIGINT
        return Ended(128 + number, number.name)


def _reported(options: RunOptions) -> Ended:
    """Run a command, and write a report for the machine that runs the tests."""
    from execsrv._cli.junit import JUnitReport

    assert options.junit is not None
    ended: Ended | None = None
    try:
        report = JUnitReport(options.junit, options.argv)
        ended = _ended(options, report)
        report.write(ended)
    except OSError as error:
        behind = "" if ended is None else f", of a command that ended with status {ended.code}"
        return failed(f"cannot write the report `{options.junit}`{behind}: {error.strerror}")
    return ended


async def _run(options: RunOptions, signals: Signals, report: Recorder | None) -> Ended:
    if options.url is None:
        from execsrv._cli.local import run_here

        return await run_here(options, signals, report)
    from execsrv._cli.remote import run_there

    return await run_there(options, options.url, signals, report)


_NOBODY_ASKS = "with --pool: nobody would know where to ask for it"
_REFUSED: tuple[tuple[str, bool, str, str], ...] = (
    ("label", False, "pool", "without --pool"),
    ("detach", True, "pool", _NOBODY_ASKS),
    ("name", True, "pool", _NOBODY_ASKS),
    ("no_bring", True, "pool", "with --pool: name the server by --url"),
    *((name, True, "detach", "with --detach") for name in ("leave", "record", "junit", "pass_fd", "no_stdin")),
    ("name", False, "url detach", "without --url or --detach: it is a server that others ask for it"),
    ("secret_env", False, "url detach", "without --url: it is the server that has secrets"),
    ("runner", False, "url detach", "without --url: it is for places that a server cannot enter"),
    ("leave", True, "url", "with --url: a server ends what it has started"),
    ("leave", True, "tty", "with --tty: the terminal ends with the command"),
    ("leave", True, "confines", "for a command that is confined"),
    ("pass_fd", True, "confines", "for a command that is confined"),
    ("pass_fd", True, "url", "with --url: a descriptor cannot be sent"),
)
"""Options that cannot be kept with another one, or without one of some, and why."""


def _check(options: RunOptions) -> None:
    """Raises `ExecsrvError` for options that cannot be kept."""
    for setting in options.secret_env:
        if not all(setting.partition("=")):
            raise ExecsrvError(f"invalid --secret-env `{setting}`; expected `NAME=SECRET`")
    for name, is_with, others, why in _REFUSED:
        if _is_given(options, name) and is_with == any(_is_given(options, other) for other in others.split()):
            raise ExecsrvError(f"cannot use --{name.replace('_', '-')} {why}")
    if options.runner is not None and " " in options.runner:
        try:
            shlex.split(options.runner)
        except ValueError as error:
            raise ExecsrvError(f"invalid --runner `{options.runner}`: {error}") from None
    for descriptor in options.pass_fd:
        try:
            # Those that we were started with are not closed by an exec; all others here are our own.
            is_ours = fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        except OSError:
            is_ours = True
        if is_ours:
            raise ExecsrvError(f"cannot pass descriptor {descriptor}: {os.strerror(errno.EBADF)}")


def _is_given(options: RunOptions, name: str) -> bool:
    value = getattr(options, name)
    return value is not None and value is not False and value not in ((), [])
