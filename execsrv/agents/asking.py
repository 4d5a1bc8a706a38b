"""A command as an agent asks for it: a line or words, and a directory that may be relative."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from execsrv._wire.paths import path_from_wire
from execsrv.client.parameters import Path, string, words
from execsrv.errors import InvalidParamsError


def command_argv(cmd: str | Sequence[str], shell: str, login: bool) -> list[str]:
    """Return the words to run: those that were given, or a shell with a line. Raises `InvalidParamsError`."""
    if not isinstance(cmd, str):
        return words(cmd)
    if not cmd.strip():
        raise InvalidParamsError("cmd must not be empty", field="cmd")
    return [shell, "-lc" if login else "-c", string("cmd", cmd)]


def joined(base: Path | None, cwd: str) -> str:
    """Return the absolute path of a directory that counts from another, where that is known."""
    if base is None or posixpath.isabs(string("cwd", cwd)):
        return cwd
    return posixpath.join(path_from_wire(string("cwd", base), "cwd"), cwd)
