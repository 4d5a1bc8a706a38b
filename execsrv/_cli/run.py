"""`execsrv run`: one command, here or through a server, and its end as the end of this process.

`local` runs it here, where nothing lies between it and its caller; `remote` on a server.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from execsrv._cli.heard_signals import Signals, die_of, heard_signals
from execsrv._cli.job import Ended, RunOptions, failed
from execsrv._cli.register.kinds import OWN_FAILURE
from execsrv._cli.streams import say
from execsrv._cli.variables import variables
from execsrv.errors import ExecsrvError, RequestError, SpawnError

_OUR_DEATHS = {name: signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGPIPE")}
"""Signals that a command may well have died of for our sake: so do we then, for a shell to act on it."""


def run(*, command: Sequence[str], **options: Any) -> int:
    """Run a command by the words of a command line; return the exit status, or end as the command did."""
    asked = RunOptions(command, **options)
    try:
        asked = asked._replace(env=variables(asked.env_file, asked.env))
    except ExecsrvError as error:
        return failed(str(error)).code
    return run_once(asked)


def run_once(options: RunOptions) -> int:
    """Run a command; return the exit status for this process, or end it by the signal that the command died of."""
    began = time.monotonic()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    logging.getLogger("execsrv").setLevel(logging.ERROR)  # stderr is the command's
    try:
        _check(options)
        if options.detach:
            from execsrv._cli.detaching import start_detached

            trio.run(start_detached, options)
            return 0
        with heard_signals(stops=options.url is not None and not options.tty) as signals:
            ended = trio.run(_run, options, signals)
    except SpawnError as error:
        say(f"execsrv: {error}")
        if error.stage not in ("program", "permission", "format"):
            return OWN_FAILURE
        return 127 if error.errno in (errno.ENOENT, errno.ENOTDIR) else 126
    except OSError as error:
        ended = failed(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
    except ExecsrvError as error:
        from execsrv._cli.doing import explained

        ended = failed(f"{error} ({error.kind})" if isinstance(error, RequestError) else explained(error, options.url))
    except KeyboardInterrupt:
        ended = Ended(128 + signal.SIGINT, "SIGINT")
    if options.verbose:
        say(f"execsrv: it ended with status {ended.code} after {time.monotonic() - began:.3f} s")
    if options.as_json:
        facts = {"exitCode": ended.code, "signal": ended.signal, "seconds": round(time.monotonic() - began, 3)}
        say(msgspec.json.encode(facts).decode())
    if ended.signal in _OUR_DEATHS:
        die_of(_OUR_DEATHS[ended.signal])
    return ended.code


async def _run(options: RunOptions, signals: Signals) -> Ended:
    if options.url is None:
        from execsrv._cli.local import run_here

        return await run_here(options, signals)
    from execsrv._cli.remote import run_there

    return await run_there(options, options.url, signals)


def _check(options: RunOptions) -> None:
    """Raises `ExecsrvError` for options that cannot be kept."""
    for setting in options.secret_env:
        if not all(setting.partition("=")):
            raise ExecsrvError(f"invalid --secret-env `{setting}`; expected `NAME=SECRET`")
    if options.detach:
        for name in ("leave", "record", "pass_fd", "no_stdin"):
            if getattr(options, name):
                raise ExecsrvError(f"cannot use --{name.replace('_', '-')} with --detach")
    elif options.name is not None and options.url is None:
        raise ExecsrvError("cannot use --name without --url or --detach: it is a server that others ask for it")
    if options.url is None and options.secret_env and not options.detach:
        raise ExecsrvError("cannot use --secret-env without --url: it is the server that has secrets")
    if options.url is not None and options.leave:
        raise ExecsrvError("cannot use --leave with --url: a server ends what it has started")
    if options.tty and options.leave:
        raise ExecsrvError("cannot use --leave with --tty: the terminal ends with the command")
    if options.url is not None and options.pass_fd:
        raise ExecsrvError("cannot use --pass-fd with --url: a descriptor cannot be sent")
    for descriptor in options.pass_fd:
        try:
            # Those that we were started with are not closed by an exec; all others here are our own.
            is_ours = fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        except OSError:
            is_ours = True
        if is_ours:
            raise ExecsrvError(f"cannot pass descriptor {descriptor}: {os.strerror(errno.EBADF)}")
