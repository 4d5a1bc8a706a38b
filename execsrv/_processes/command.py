"""Settling a command before anything runs: its program, arguments, environment and directory.

Only questions are asked here (which file, may it run); nothing is started and nothing changed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from execsrv.errors import InvalidParamsError, SpawnError

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a bare program name is looked up when the command's environment has no PATH."""


INHERITED_DIRECTORY = b"."
"""The `cwd` of a command that has the directory of this process, which need not have a name."""

_PAGES_OF_A_STRING = 32
"""So many pages the kernel takes for one argument or variable, with the byte that ends it: MAX_ARG_STRLEN."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command with nothing left to decide, as the bytes that the operating system takes.

    `program` holds a slash; where it is relative, it is so to `cwd`. `env` are NAME=VALUE strings.
    """

    program: bytes
    argv: tuple[bytes, ...]
    env: tuple[bytes, ...]
    cwd: bytes


def settle(argv: Sequence[str], cwd: str, env: Mapping[str, str], arg0: str | None = None) -> Command:
    """Decide what is to run. `cwd` is absolute; a bare `argv[0]` is looked up in the PATH of `env`.

    Blocks as long as the file systems of the PATH do.

    Raises `InvalidParamsError` for an empty argv, and `SpawnError` for what the operating system would refuse.
    """
    if not argv:
        raise InvalidParamsError("argv must not be empty", field="argv")
    arguments = tuple(_encoded(f"argv[{i}]", value) for i, value in enumerate(argv))
    variables = tuple(_encoded(f"env[{name!r}]", f"{name}={value}") for name, value in env.items())
    if arg0 is not None:
        arguments = (_encoded("arg0", arg0), *arguments[1:])
    directory = _encoded("cwd", cwd)
    return Command(_find(argv[0], cwd, env.get("PATH")), arguments, variables, directory)


def spawn_error(stage: str, number: int, doing: str) -> SpawnError:
    """Return a `SpawnError` with the operating system's own text."""
    text = f"{os.strerror(number)} (os error {number})"
    # A path may hold bytes that are no text; the message is text.
    message = os.fsencode(f"cannot {doing}: {text}").decode(errors="replace")
    return SpawnError(message, stage=stage, errno=number)


def too_long(command: Command) -> SpawnError:
    """Return the error for a command that the kernel takes for too long. It names the string that is, if one is."""
    most = _PAGES_OF_A_STRING * os.sysconf("SC_PAGESIZE") - 1
    strings = {f"argv[{i}]": word for i, word in enumerate(command.argv)}
    strings |= {f"env[{word.partition(b'=')[0].decode(errors='replace')!r:.99}]": word for word in command.env}
    field, longest = max(strings.items(), key=lambda named: len(named[1]))
    facts: dict[str, object] = {}
    if len(longest) > most:
        facts["field"] = field
        text = f"{field} has {len(longest)} bytes, and the kernel takes {most} of one"
    else:
        size = sum(len(word) + 1 + 8 for word in strings.values())  # each with its end and its pointer
        text = f"arguments and environment have {size} bytes, and the kernel takes {os.sysconf('SC_ARG_MAX')}"
    program = command.program[:200].decode(errors="replace")
    message = f"cannot run `{program}`: {os.strerror(errno.E2BIG)} (os error {errno.E2BIG}): {text}"
    return SpawnError(message, stage="arguments", errno=errno.E2BIG, **facts)


def _encoded(field: str, value: str) -> bytes:
    if "\0" in value:
        message = f"cannot start: nul byte found in provided data: {field}"
        raise SpawnError(message, stage="arguments", errno=errno.EINVAL, field=field)
    try:
        return os.fsencode(value)
    except UnicodeEncodeError:
        message = f"cannot start: {field} holds a lone surrogate, which has no encoding"
        raise SpawnError(message, stage="arguments", errno=errno.EILSEQ, field=field) from None


def _find(program: str, cwd: str, path: str | None) -> bytes:
    """Return the file to execute. The faults of a name that holds a slash are left for the system to tell."""
    if not program:
        raise SpawnError("cannot start: missing program: argv[0] is empty", stage="program", errno=errno.ENOENT)
    if "/" in program:
        return os.fsencode(program)
    problem = errno.ENOENT
    for folder in (DEFAULT_PATH if path is None else path).split(":"):
        candidate = os.path.join(cwd, folder, program)
        try:
            mode = os.stat(candidate).st_mode
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(mode) and os.access(candidate, os.X_OK):
            return os.fsencode(candidate)
        problem = errno.EACCES
    if problem == errno.EACCES:
        raise spawn_error("permission", problem, f"run `{program}`, found in PATH")
    raise spawn_error("program", problem, f"find `{program}` in PATH")
