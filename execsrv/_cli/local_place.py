"""The place of a command that runs here: its environment, its directory, and the children that are not its own."""

from __future__ import annotations

import os

from execsrv._cli.job import RunOptions
from execsrv._processes.command import spawn_error
from execsrv._processes.withheld import OWN_TOKEN
from execsrv.errors import SpawnError


def inherited_environment(options: RunOptions) -> dict[str, str]:
    """Return what we were started with, as it was then, with what the options change."""
    with open("/proc/self/environ", "rb") as file:
        entries = os.fsdecode(file.read()).split("\0")
    env = {name: value for name, equals, value in (entry.partition("=") for entry in entries) if equals}
    env.pop(OWN_TOKEN, None)
    if options.tty:  # it has its own size
        env.pop("COLUMNS", None)
        env.pop("LINES", None)
    if options.cwd is not None:
        env["PWD"] = os.path.join(env.get("PWD", ""), options.cwd)
        env.pop("OLDPWD", None)
    for setting in options.env:
        name, _, env[name] = setting.partition("=")
    return env


def enter(cwd: str) -> None:
    """Go to the directory of a command. Raises `SpawnError`."""
    try:
        os.chdir(cwd)
    except OSError as error:
        raise spawn_error("cwd", error.errno or 0, f"start in `{cwd}`") from None
    except ValueError:
        raise SpawnError(f"cannot start in `{cwd!r}`: no path holds a nul byte", stage="cwd") from None


def has_no_children() -> bool:
    """Return True unless this process had children when it became ours by exec: those are not ours to end."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False
