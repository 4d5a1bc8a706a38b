"""The sessions of a server by the names that people call them by, and the way to one of them.

One that was started under a name of its own is called by that. Any other is called by its connection and its own name
there, `CONNECTION/PROCESS`. What is somebody else's is always called by the number of its connection: a name is its
owner's, and everybody may give the same one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from msgspec import UNSET

from execsrv._cli.manners import one_line
from execsrv._cli.usage import meant
from execsrv.client import Client, Process
from execsrv.errors import ExecsrvError
from execsrv.protocol import JoinRole, ListedProcess

_MOST_NAMED = 5
"""So many names are told where it is not clear which one is meant."""


class Listing:
    """The sessions of a server, each by a name that no other has."""

    def __init__(self, processes: Sequence[ListedProcess]) -> None:
        often = Counter(map(_name, processes))  # a connection that is ending may have the name of the next one
        self.by_name = {
            name if often[name := _name(listed)] == 1 else _numbered(listed): listed for listed in processes
        }

    def find(self, word: str) -> ListedProcess:
        """Return the session of that name, or else the one that is meant: of several the only one that runs.

        Raises `ExecsrvError` where that is none, or not one alone.
        """
        found = [word] if word in self.by_name else [name for name in self.by_name if word in self._others(name)]
        if len(found) > 1:
            found = [name for name in found if self.by_name[name].running] or found
        if len(found) == 1:
            return self.by_name[found[0]]
        if found:
            names = [f"`{one_line(name)}`" for name in found]
            more = f" or {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            raise ExecsrvError(f"`{one_line(word)}` may be {', '.join(names[:_MOST_NAMED])}{more}")
        hint = meant(one_line(word), map(one_line, self.by_name)) or "`execsrv ps` lists what is there"
        raise ExecsrvError(f"there is no session `{one_line(word)}`: {hint}")

    def _others(self, name: str) -> tuple[str | None, ...]:
        """Return the other words that may mean a session, none for somebody else's."""
        listed = self.by_name[name]
        return (_numbered(listed), listed.connection_name, listed.process_id) if _is_own(listed) else ()


def _is_own(listed: ListedProcess) -> bool:
    return listed.principal is UNSET


def _name(listed: ListedProcess) -> str:
    if not _is_own(listed):
        return _numbered(listed)
    connection = listed.connection_name or listed.connection_id
    return connection if connection == listed.process_id else f"{connection}/{listed.process_id}"


def _numbered(listed: ListedProcess) -> str:
    return f"{listed.connection_id}/{listed.process_id}"


def how_it_stands(listed: ListedProcess) -> str:
    """Return the state of a session, and how it ended, for people."""
    if listed.running:
        return listed.state
    how = f"exited {listed.exit_code}" if listed.signal is None else listed.signal
    if listed.reason not in ("exited", "signaled", None):
        how = f"{listed.reason} ({how})"
    return how if listed.closed else f"{how}, open"


async def listing(client: Client, *, usage: bool = False) -> Listing:
    """Return all that this client may see."""
    return Listing(await client.processes(all=True, usage=usage))


@asynccontextmanager
async def at_session(
    client: Client, listed: ListedProcess, role: JoinRole, *, after: int | None = None
) -> AsyncIterator[Process]:
    """Attach to a session that was listed, for a block: with all that is retained, or behind an entry.

    Raises `RequestError`, `ForbiddenError` among them.
    """
    async with (
        client.join(listed.connection_id, role) as joined,
        joined.attach(listed.process_id, after=after) as process,
    ):
        yield process
