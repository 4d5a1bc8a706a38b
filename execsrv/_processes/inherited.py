"""The things of this process that a command shares, where it is to run as the child of a shell would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct


class Inherited(Struct, frozen=True):
    """The things of ours that a command has. It runs in our directory, which need not have a name any more.

    Without a terminal of its own it stays in our session and process group, so the keys of our terminal reach it, and
    gets `stdio` of ours, None for one that it is to have closed. A terminal of its own begins with `modes`, as
    `tcgetattr` gives them, and with `window`, a `struct winsize`. `pass_fds` keep their numbers. The signals in
    `ignored`, which we ignore, stay ignored.
    """

    stdio: Sequence[int | None] = (0, 1, 2)
    pass_fds: Sequence[int] = ()
    ignored: frozenset[int] = frozenset()
    modes: list[Any] | None = None
    window: bytes | None = None
