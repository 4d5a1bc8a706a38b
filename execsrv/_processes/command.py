"""Settling a command before anything runs: its program, arguments, environment and directory.

Only questions are asked here (which file, may it run); nothing is started and nothing changed.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import dropwhile
from typing import Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from execsrv._lent import Lent
from execsrv._processes.accounts import Account
from execsrv._processes.confine.places import Confinement
from execsrv._processes.inherited import Inherited
from execsrv.errors import InvalidParamsError, SpawnError
from execsrv.protocol.process_limits import ProcessLimits

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a bare program name is looked up when the command's environment has no PATH."""


MOST_STRING_BYTES = 131071
"""The kernel takes no longer string in argv and env: MAX_ARG_STRLEN of <linux/binfmts.h>, with its end."""

MOST_BYTES = 6 * 1024 * 1024
"""The kernel takes no more of all strings and their pointers together, however large the stack: execve(2)."""

_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

_PATH_CHARACTERS, _PATH_FOLDERS = 32 * 1024, 1024
"""A longer PATH is not searched."""


class File(NamedTuple):
    """A file to write to: emptied, or with `append` kept."""

    path: bytes
    append: bool = False


Output = Literal["pipe", "null", "stdout"] | File | Lent
"""The place where a command's output goes. "stdout", for its stderr, is wherever its stdout goes."""


class Named(NamedTuple):
    """A file that a command opens by the name which a variable has: /dev/fd/N. Nobody else can find it."""

    variable: bytes
    file: Lent


class Command(Struct, frozen=True):
    """A command with nothing left to decide, as the bytes that the operating system takes.

    `program` holds a slash; where it is relative, it is so to `cwd`. `env` are NAME=VALUE strings. Without a `cwd` it
    inherits ours, which needs no name. The rest are wishes, None for what it inherits.
    """

    program: bytes
    argv: tuple[bytes, ...]
    env: tuple[bytes, ...]
    cwd: bytes | None
    umask: int | None = None
    nice: int | None = None
    oom_score_adj: int | None = None
    account: Account | None = None
    inherited: Inherited | None = None
    stdout: Output = "pipe"
    stderr: Output = "pipe"
    stdin: Lent | None = None
    """Its stdin, where that is one of ours."""
    confinement: Confinement | None = None
    """The things that it may do, where those are fewer than we may."""
    limits: ProcessLimits | None = None
    """The most that it may take, where that is bounded."""
    named: Named | None = None
    is_found: bool = False
    """True where the program was looked up in its PATH, with our rights."""

    def env_with(self, number: int) -> tuple[bytes, ...]:
        """Return its variables, the one of its `named` file for the descriptor of that number."""
        if self.named is None:
            return self.env
        begin = self.named.variable + b"="
        return (*(entry for entry in self.env if not entry.startswith(begin)), b"%s/dev/fd/%d" % (begin, number))

    def __repr__(self) -> str:
        return f"<Command {self.program!r} argv={self.argv} cwd={self.cwd!r}>"  # and no variables: some may be secrets

    @property
    def has_wishes(self) -> bool:
        """True when something of its process is to differ from ours, beside what every command has of its own."""
        return self.account is not None or not (self.umask is self.nice is self.oom_score_adj is None)


class Wishes(NamedTuple):
    """The things that a command may have different from its server."""

    umask: int | None = None
    nice: int | None = None
    oom_score_adj: int | None = None
    account: Account | None = None


def settle(
    argv: Sequence[str],
    cwd: str | None,
    env: Mapping[str, str],
    arg0: str | None = None,
    wishes: Wishes = Wishes(),  # noqa: B008
    outputs: tuple[Output, Output] = ("pipe", "pipe"),
) -> Command:
    """Decide what is to run. `cwd` is absolute, None for ours; a bare `argv[0]` is looked up in the PATH of `env`.

    `outputs` are the places of its stdout and its stderr. Blocks as long as the file systems of the PATH do.

    Raises `InvalidParamsError` for an empty argv and a PATH that is too long to be searched, and `SpawnError` for what
    the operating system would refuse.
    """
    if not argv:
        raise InvalidParamsError("argv must not be empty", field="argv")
    _check_amount(argv, env)
    arguments = tuple(_encoded(f"argv[{i}]", value) for i, value in enumerate(argv))
    variables = _all_encoded([f"{name}={value}" for name, value in env.items()])
    if variables is None:
        variables = tuple(_encoded(f"env[{name!r}]", f"{name}={value}") for name, value in env.items())
    if arg0 is not None:
        arguments = (_encoded("arg0", arg0), *arguments[1:])
    directory = None if cwd is None else _encoded("cwd", cwd)
    program = _find(argv[0], cwd or ".", env.get("PATH"))
    return Command(program, arguments, variables, directory, *wishes, None, *outputs, is_found="/" not in argv[0])


def later(command: Command) -> Iterator[Command]:
    """Give the same command with each program of that name that comes behind its own in the PATH."""
    if not command.is_found:
        return
    path = next((os.fsdecode(entry[5:]) for entry in command.env if entry.startswith(b"PATH=")), DEFAULT_PATH)
    name, cwd = os.path.basename(os.fsdecode(command.program)), os.fsdecode(command.cwd or b".")
    candidates = (os.fsencode(place) for place in _places(name, cwd, path) if _is_program(place))
    for program in dropwhile(lambda candidate: candidate != command.program, candidates):
        if program != command.program:
            yield replace(command, program=program)


def _check_amount(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Raise `SpawnError` for more than any kernel takes, before any work is done for each of the strings."""
    amount = 9 * (len(argv) + len(env)) + sum(map(len, argv)) + sum(map(len, env)) + sum(map(len, env.values()))
    if amount > MOST_BYTES:
        doing = f"start, argv and env have {amount} bytes or more and the kernel takes at most {MOST_BYTES} of all"
        raise spawn_error("arguments", errno.E2BIG, doing)


def spawn_error(stage: str, number: int, doing: str) -> SpawnError:
    """Return a `SpawnError` with the operating system's own text."""
    text = f"{os.strerror(number)} (os error {number})"
    # A path may hold bytes that are no text; the message is text.
    message = os.fsencode(f"cannot {doing}: {text}").decode(errors="replace")
    return SpawnError(message, stage=stage, errno=number)


def _all_encoded(values: list[str]) -> tuple[bytes, ...] | None:
    """Return all of them encoded, None where one of them cannot be. There are many, and each is as good as sure."""
    try:
        encoded = tuple([value.encode(_ENCODING, _ERRORS) for value in values])
    except UnicodeEncodeError:
        return None
    return None if b"\0" in b"".join(encoded) else encoded


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
    path = DEFAULT_PATH if path is None else path
    if len(path) > _PATH_CHARACTERS or path.count(":") >= _PATH_FOLDERS:
        message = f"env: PATH has {len(path)} characters and {path.count(':') + 1} folders, and is searched for a"
        message += f" program only up to {_PATH_CHARACTERS} and {_PATH_FOLDERS}"
        raise InvalidParamsError(message, field="env")
    for candidate in _places(program, cwd, path):
        if is_program := _is_program(candidate):
            return os.fsencode(candidate)
        if is_program is not None:
            problem = errno.EACCES
    if problem == errno.EACCES:
        raise spawn_error("permission", problem, f"run `{program}`, found in PATH")
    raise spawn_error("program", problem, f"find `{program}` in PATH")


def _places(program: str, cwd: str, path: str) -> Iterator[str]:
    for folder in path.split(":"):
        yield f"{folder}/{program}" if folder.startswith("/") else os.path.join(cwd, folder, program)


def _is_program(place: str) -> bool | None:
    """Return whether we may run what is there, None where nothing is."""
    try:
        mode = os.stat(place).st_mode
    except (OSError, ValueError):
        return None
    return stat.S_ISREG(mode) and os.access(place, os.X_OK)
