# Written by tests/facades.py from execsrv.pool.lease: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client in plain code. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

from execsrv.pool.lease import Lease as TrioLease
from execsrv.sync.client import Client


class Lease(Client, of=TrioLease):
    """A client on one server of a pool. Made by `Pool.lease`; leaving its block ends all its commands.

    `server` is the URL of the server. `scratch` is a directory of this lease alone, on the server: commands start there
    where no `cwd` is given, and it goes with the lease. None where it was not wanted.
    """

    @property
    def server(self) -> str:
        """URL of the server."""
        return self._get("server")

    @property
    def scratch(self) -> str | None:
        """Directory of this lease on the server, None where none was wanted."""
        return self._get("scratch")
