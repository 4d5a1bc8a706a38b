"""A command as an agent asks for it: a line or words, a directory that may be relative, and what it may not ask for."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from execsrv._wire.paths import path_from_wire
from execsrv.client.parameters import Path, string, words
from execsrv.client.policy import Policy, around, without
from execsrv.errors import InvalidParamsError


def command_argv(cmd: str | Sequence[str], shell: str, login: bool) -> list[str]:
    """Return the words to run: those that were given, or a shell with a line. Raises `InvalidParamsError`."""
    if not isinstance(cmd, str):
        return words(cmd)
    if not cmd.strip():
        raise InvalidParamsError("cmd must not be empty", field="cmd")
    return [shell, "-lc" if login else "-c", string("cmd", cmd)]


def confined(options: Mapping[str, Any], here: Path | None, recordings: str | None) -> dict[str, Any]:
    """Return the options of all commands with a policy that no call can widen by the directory that it names.

    `here` is the server's directory. What is recorded is out of reach.
    """
    if (policy := options.get("sandbox")) is None:
        return dict(options)
    if not isinstance(policy, Policy):
        raise TypeError(f"sandbox must be a Policy, got {type(policy).__name__}")
    folder = options.get("cwd")
    folder = here if folder is None else joined(here, string("cwd", folder))
    if folder is not None:
        policy = around(policy, path_from_wire(string("cwd", folder), "cwd"))
    if recordings is not None:
        policy = without(policy, os.path.abspath(recordings))
    return {**options, "sandbox": policy}


def added(options: Mapping[str, Any], env: Mapping[str, str] | None) -> dict[str, str]:
    """Return the variables that a command gets on top. Raises `InvalidParamsError` for one that widens its policy."""
    if env and options.get("sandbox") is not None and "TMPDIR" in env:
        raise InvalidParamsError("env: TMPDIR may not be set for a command that is confined", field="env")
    return {**(options.get("env_add") or {}), **(env or {})}


def joined(base: Path | None, cwd: str) -> str:
    """Return the absolute path of a directory that counts from another, where that is known."""
    if base is None or posixpath.isabs(string("cwd", cwd)):
        return cwd
    return posixpath.join(path_from_wire(string("cwd", base), "cwd"), cwd)
