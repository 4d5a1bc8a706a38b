# Written by tests/facades.py from execsrv.client.sharing: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client in plain code. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from execsrv._portal.blocking import Held
from execsrv.client.sharing import After
from execsrv.client.sharing import Joined as TrioJoined
from execsrv.protocol import JoinRole, ListedProcess

if TYPE_CHECKING:
    from execsrv.sync.process import Process


class Joined(Held, of=TrioJoined):
    """A connection that was joined. Made by `Client.join`; left with that block."""

    @property
    def id(self) -> str:
        """Number of the connection."""
        return self._get("id")

    @property
    def name(self) -> str | None:
        """Name of the connection, None where it has none."""
        return self._get("name")

    @property
    def role(self) -> JoinRole:
        """Role in which it was joined."""
        return self._get("role")

    @property
    def member_id(self) -> str:
        """Name of this client among those who have joined."""
        return self._get("member_id")

    def processes(self, *, usage: bool = False) -> list[ListedProcess]:
        """Return every process of the connection that the server still knows, oldest first.

        With `usage`, each has what it takes of processors and memory; a value that one lacks is `msgspec.UNSET`.
        """
        return self._wait("processes", usage=usage)

    def attach(
        self,
        process: str,
        *,
        after: After = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
    ) -> Process:
        """Attach to a process of the connection, for a block: as a `Process`, with all that the role allows.

        It begins after entry `after` of its output, by default with all that is retained; "now" is only what comes.
        Nobody waits for a reader here: if it is too slow, it gets a `Gap` among the events, and everything else goes
        on. Leaving the block leaves the process as it is. `text`, `encoding` and `errors` are those of `start`.

        Raises `UnknownProcessError`.
        """
        return self._enter("attach", process, after=after, text=text, encoding=encoding, errors=errors)

    def end(self) -> None:
        """End the connection, with all that runs there. Takes the role owner."""
        return self._wait("end")
