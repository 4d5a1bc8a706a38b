"""The parts of a command line of `execsrv run` that are for a server: how it is reached, and what the command gets."""

from __future__ import annotations

import os
import shlex
from functools import partial
from typing import Any

from execsrv._cli import terminal
from execsrv._cli.confining import policy_of
from execsrv._cli.job import RunOptions
from execsrv._cli.reach import Reach, path_there
from execsrv.client import Client
from execsrv.protocol.process_limits import ProcessLimits


def surroundings(client: Client, options: RunOptions) -> dict[str, Any]:
    """Return the directory, environment, policy and terminal that were asked for, as keywords of a start."""
    env = {"TERM": os.environ["TERM"]} if options.tty and "TERM" in os.environ else {}
    for setting in options.env:
        name, _, env[name] = setting.partition("=")
    window = terminal.window() if options.tty else None
    return {
        "cwd": None if options.cwd is None else path_there(client, options.cwd),
        "user": options.user,
        "runner": None if options.runner is None else _runner_of(options.runner),
        "env_add": env,
        "secret_env": {name: secret for name, _, secret in (it.partition("=") for it in options.secret_env)},
        "limits": _limits_of(options),
        "sandbox": policy_of(options, partial(path_there, client)),
        "tty": options.tty,
        "size": None if window is None else terminal.size_of(window),
        "modes": terminal.named_modes() if options.tty else None,
    }


def _limits_of(options: RunOptions) -> ProcessLimits | None:
    if not options.has_limits:
        return None
    from execsrv._cli.limiting import limits_of

    return limits_of(options)


def reach_of(options: RunOptions, url: str) -> Reach:
    """Return the server that was asked for."""
    return Reach(url, *(getattr(options, name) for name in Reach._fields[1:]))


def _runner_of(given: str) -> str | list[str]:
    """Return the name of a runner, or the words that launch one."""
    return shlex.split(given) if " " in given else given
