"""Login shells that a client starts again and again, and that need not run their login files each time."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from execsrv.protocol.bounds import MOST_NAME_BYTES, Name, PathText
from execsrv.protocol.messages import Wire

Snapshotted = Literal["restored", "unused"]
"""What became of the wish for a snapshot."""


class LoginShell(Wire, frozen=True):
    """A shell whose login files make something: its short name, and the word that it is started by."""

    name: Name
    path: PathText


class ShellSnapshot(Wire, frozen=True):
    """Shells of one scope, which have their login files run once."""

    scope_id: Annotated[str, Meta(min_length=1, max_length=MOST_NAME_BYTES)]
    shell: LoginShell
