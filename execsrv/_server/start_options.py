"""The terms of a session beside its command, its cost, and the clock that its peer may ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import trio

from execsrv._budget.allowance import SESSION_BYTES
from execsrv._log.retained import first_bytes
from execsrv._processes.streams import PIPE_CHUNK_BYTES, TERMINAL_CHUNK_BYTES
from execsrv.protocol import AtMs

_SHOWN_WORDS, _SHOWN_LETTERS = 64, 2048
"""So much of a command is kept for lists."""


class Key(NamedTuple):
    """The key of a start, and the digest of its request."""

    text: str
    digest: bytes


class StartOptions(NamedTuple):
    """The terms of a session beside the command itself. Times are in seconds."""

    timeout: float = math.inf
    idle_timeout: float = math.inf
    window_bytes: int | None = None
    drops: bool = False
    grace: float | None = None
    """The time that it has after SIGTERM at every end that nobody gives a time for. None: the server's settings."""
    ends_with_leader: bool = False
    """True where those who live on after the leader are ended, as soon as they print no more."""
    is_read_again: bool = True
    """Its peer reads what it missed when it comes back, and is told nothing before. Else it is told of it unasked."""
    times: bool = False
    """Its peer is told when things happen."""
    argv: Sequence[str] = ()
    """The command, for lists: `shown_argv`."""
    cwd: str | None = None
    """The directory, for lists. None: ours."""
    key: Key | None = None
    passes: bool | Literal["kept"] = False
    """Its client gets the other ends of its pipes: nothing of them is read or written here. "kept": the beginning and
    the end of its outputs are kept all the same."""


def shown_argv(argv: Sequence[str]) -> Sequence[str]:
    """Return a command as lists show it: its beginning, where it is long."""
    if len(argv) <= _SHOWN_WORDS and sum(map(len, argv)) <= _SHOWN_LETTERS:
        return argv
    shown, left = [], _SHOWN_LETTERS
    for word in argv[:_SHOWN_WORDS]:
        shown.append(word if len(word) <= left else f"{word[:left]}...")
        left -= len(shown[-1])
        if left <= 0:
            break
    return shown


def cost(*, is_terminal: bool) -> int:
    """Return the bytes of a budget that a session has from its start, so that it can always go on."""
    return SESSION_BYTES + first_bytes(largest_piece(is_terminal=is_terminal))


def largest_piece(*, is_terminal: bool) -> int:
    """Return the most bytes of output that are read at once."""
    return TERMINAL_CHUNK_BYTES if is_terminal else PIPE_CHUNK_BYTES


def new_clock() -> Callable[[], AtMs]:
    """Return a clock in milliseconds from now on."""
    start = trio.current_time()
    return lambda: int((trio.current_time() - start) * 1000)
