"""The inside of a client and of a process, for what builds on them in this package.

Users have the objects themselves, in which nothing of this is to be seen. So there is no other way in than this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from execsrv.client.client import Client
    from execsrv.client.connection import Connection
    from execsrv.client.mirror import Mirror
    from execsrv.client.process_facts import Facts


def connection_of(client: Client) -> Connection:
    """Return the connection of a client."""
    return client._connection  # noqa: SLF001  # the one way in


def mirror_of(process: Facts) -> Mirror:
    """Return what a client knows of a process."""
    return process._mirror  # noqa: SLF001  # the one way in
