"""What a command on a server has around it, as the options of a command line ask for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from execsrv._cli import terminal
from execsrv._cli.confining import policy_of
from execsrv._cli.job import RunOptions
from execsrv._cli.reach import path_there
from execsrv.client import Client


def surroundings(client: Client, options: RunOptions) -> dict[str, Any]:
    """Return the directory, environment, policy and terminal that were asked for, as keywords of a start."""
    env = {"TERM": os.environ["TERM"]} if options.tty and "TERM" in os.environ else {}
    env |= _settings(options.env)
    window = terminal.window() if options.tty else None
    return {
        "cwd": None if options.cwd is None else path_there(client, options.cwd),
        "env_add": env,
        "secret_env": _settings(options.secret_env),
        "sandbox": policy_of(options, partial(path_there, client)),
        "tty": options.tty,
        "size": None if window is None else terminal.size_of(window),
        "modes": terminal.named_modes() if options.tty else None,
    }


def _settings(texts: Sequence[str]) -> dict[str, str]:
    return {name: value for name, _, value in (text.partition("=") for text in texts)}
