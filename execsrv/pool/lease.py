"""A lease: a client of its own on one server of a pool, with a directory to work in."""

from __future__ import annotations

import logging
import posixpath
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import trio

from execsrv.client.client import Client
from execsrv.client.file_paths import heard
from execsrv.directories import Endpoint
from execsrv.errors import CommandError, ConnectionFailedError, ConnectionLostError, ExecsrvError, RequestError
from execsrv.pool.member import Member
from execsrv.pool.members import Members
from execsrv.pool.places import labels_of
from execsrv.pool.refusals import Refusals, had_no_room

logger = logging.getLogger(__name__)

_REMOVAL_SECONDS = 10.0

Connect = Callable[[Endpoint], AbstractAsyncContextManager[Client]]


class Lease(Client):
    """A client on one server of a pool. Made by `Pool.lease`; leaving its block ends all its commands.

    `server` is the URL of the server. `scratch` is a directory of this lease alone, on the server: commands start there
    where no `cwd` is given, and it goes with the lease. None where it was not wanted.
    """

    _server: str
    _scratch: str | None

    @property
    def server(self) -> str:
        """URL of the server."""
        return self._server

    @property
    def scratch(self) -> str | None:
        """Directory of this lease on the server, None where none was wanted."""
        return self._scratch

    @classmethod
    def _of(cls, client: Client, server: str, scratch: str | None) -> Lease:
        lease = cls.__new__(cls)
        lease._connection = client._connection
        lease._connection.directory = scratch
        lease._server, lease._scratch = server, scratch
        return lease


async def open_lease(
    stack: AsyncExitStack,
    members: Members,
    connect: Connect,
    labels: Mapping[str, str] | None,
    share: str | None,
    with_scratch: bool,
) -> Lease:
    """Return a lease that ends with the stack. Raises as `Pool.lease` does."""
    refusals = Refusals(members.patience)
    is_back = False
    while True:
        member = await members.take(labels_of(labels), share, first=is_back)
        is_back = True
        async with AsyncExitStack() as attempt:
            attempt.callback(member.give)
            scratch = await attempt.enter_async_context(_Scratch(member))
            try:
                client = await attempt.enter_async_context(connect(member.endpoint))
                if with_scratch:
                    await scratch.make(client)
            except (ConnectionFailedError, ConnectionLostError) as error:
                member.had_no_room(str(error))
                refusals.add(error)
            except RequestError as error:
                if not had_no_room(error):
                    error.server = str(member)
                    raise
                member.had_no_room(str(error))
                refusals.add(error)
            except CommandError as error:
                error.server = str(member)
                raise
            else:
                stack.push_async_exit(attempt.pop_all())
                return Lease._of(client, str(member), scratch.path)


class _Scratch:
    """A directory on a server, which is removed when the commands of its lease are gone, over another connection."""

    def __init__(self, member: Member) -> None:
        self.path: str | None = None
        self._member = member

    async def make(self, client: Client) -> None:
        """Make it. Raises `CommandFailedError`, and what `Client.run` raises.

        Its name is chosen here, so that it is removed where nobody hears that it was made.
        """
        self.path = posixpath.join(heard("initialize", client.info.temp_dir), f"execsrv-{secrets.token_hex(8)}")
        try:
            await client.run(["mkdir", "-m", "700", "--", self.path], check=True)
        except (CommandError, RequestError):
            self.path = None  # it was not made
            raise

    async def __aenter__(self) -> _Scratch:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.path is None:
            return
        why = "its server is lost"
        with trio.move_on_after(_REMOVAL_SECONDS, shield=True):
            try:
                if self._member.line is not None:
                    await self._member.line.run(["rm", "-rf", "--", self.path], check=True)
                    return
            except ExecsrvError as error:
                why = str(error)
        logger.warning("cannot remove the directory %s of a lease on %s: %s", self.path, self._member, why)
