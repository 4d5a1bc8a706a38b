"""The sessions of a server by the names that people call them by, and the way to one of them.

One that was started under a name of its own is called by that. Any other is called by its connection and its own name
there, `CONNECTION/PROCESS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

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
        names = [_name(listed, listed.connection_name or listed.connection_id) for listed in processes]
        often = Counter(names)
        self.by_name = {
            name if often[name] == 1 else f"{listed.connection_id}/{listed.process_id}": listed
            for name, listed in zip(names, processes, strict=True)
        }

    def find(self, word: str) -> ListedProcess:
        """Return the session that is meant. Raises `ExecsrvError` where that is none, or not one alone."""
        meanings = (
            [listed for name, listed in self.by_name.items() if name == word],
            [listed for listed in self.by_name.values() if f"{listed.connection_id}/{listed.process_id}" == word],
            [listed for listed in self.by_name.values() if listed.connection_name == word],
            [listed for listed in self.by_name.values() if listed.process_id == word],
        )
        found = next(filter(None, meanings), [])
        if len(found) > 1:
            found = [listed for listed in found if listed.running] or found
        if len(found) == 1:
            return found[0]
        if found:
            names = [f"`{one_line(name)}`" for name, listed in self.by_name.items() if listed in found]
            more = f" or {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            raise ExecsrvError(f"`{one_line(word)}` may be {', '.join(names[:_MOST_NAMED])}{more}")
        hint = meant(one_line(word), map(one_line, self.by_name)) or "`execsrv ps` lists what is there"
        raise ExecsrvError(f"there is no session `{one_line(word)}`: {hint}")


def _name(listed: ListedProcess, connection: str) -> str:
    return connection if connection == listed.process_id else f"{connection}/{listed.process_id}"


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
