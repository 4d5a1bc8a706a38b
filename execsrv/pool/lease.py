"""A lease: a client of its own on one server of a pool, with a directory to work in.

Whoever has it ends it, or the pool does when its block is left before, in whatever task that may be.
"""

from __future__ import annotations

import logging
import posixpath
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import trio

from execsrv._nursery import happened
from execsrv.client.client import Client
from execsrv.client.connection import Connection
from execsrv.client.ending import end_for_readers
from execsrv.client.file_paths import heard
from execsrv.client.given import made
from execsrv.client.inside import connection_of
from execsrv.client.starting import LEAVE_GRACE_SECONDS
from execsrv.directories import Endpoint
from execsrv.errors import (
    BadAnswerError,
    CommandError,
    CommandFailedError,
    ConnectionFailedError,
    ConnectionLostError,
    ExecsrvError,
    RequestError,
)
from execsrv.pool.labels import labels_of
from execsrv.pool.member import Line, Member
from execsrv.pool.members import Members, closed
from execsrv.pool.refusals import Refusals, had_no_room

logger = logging.getLogger(__name__)

_REMOVAL_SECONDS = 10.0

_PAUSE_SECONDS = 0.1
"""Before a removal is tried again: where the server has no room at the moment, or the line is just being dialed."""

Connect = Callable[[Endpoint], AbstractAsyncContextManager[Client]]


class Lease(Client):
    """A client on one server of a pool. Made by `Pool.lease`; leaving its block ends all its commands.

    `server` is the URL of the server. `scratch` is a directory of this lease alone, on the server: commands start there
    where no `cwd` is given, and it goes with the lease. None where it was not wanted.
    """

    def __init__(self, connection: Connection, server: str, scratch: str | None) -> None:
        super().__init__(connection)
        self._server = server
        self._scratch = scratch

    @property
    def server(self) -> str:
        """URL of the server."""
        return self._server

    @property
    def scratch(self) -> str | None:
        """Directory of this lease on the server, None where none was wanted."""
        return self._scratch


async def open_lease(
    stack: AsyncExitStack,
    members: Members,
    leases: set[Held],
    connect: Connect,
    labels: Mapping[str, str] | None,
    share: str | None,
    with_scratch: bool,
) -> Lease:
    """Return a lease that ends with the stack, and is among `leases` until then. Raises as `Pool.lease` does."""
    refusals = Refusals(members.patience)
    is_back = False
    while True:
        member = await members.take(labels_of(labels), share, first=is_back)
        is_back = True
        async with AsyncExitStack() as attempt:
            attempt.callback(member.give)
            held = await attempt.enter_async_context(Held(member, leases))
            try:
                held.client = client = await attempt.enter_async_context(connect(member.endpoint))
                attempt.callback(held.note_its_server)
                members.check()
                if with_scratch:
                    await held.make_scratch(client)
            except (ConnectionFailedError, ConnectionLostError, BadAnswerError) as error:
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
                connection = connection_of(client)
                connection.directory = held.scratch
                return made(Lease, connection, str(member), held.scratch)


@trio.lowlevel.enable_ki_protection
async def end_all(leases: set[Held]) -> None:
    """End all leases, whoever has them, and wait until nothing is left of them. Cannot be cancelled."""
    with trio.CancelScope(shield=True):  # each keeps to times of its own
        async with trio.open_nursery() as nursery:
            for held in leases:
                nursery.start_soon(held.end)


class Held:
    """A client on a server, and a directory there, which is removed over another connection when all commands are gone.

    It is among `leases` until all of that is over.
    """

    def __init__(self, member: Member, leases: set[Held]) -> None:
        self.client: Client | None = None
        self.scratch: str | None = None
        self._member = member
        self._leases = leases
        self._is_server_lost = False
        self._removing = trio.Lock()

    async def make_scratch(self, client: Client) -> None:
        """Make the directory. Raises `CommandFailedError`, and what `Client.run` raises.

        Its name is chosen here, so that it is removed where nobody hears that it was made.
        """
        self.scratch = posixpath.join(heard("initialize", client.info.temp_dir), f"execsrv-{secrets.token_hex(8)}")
        try:
            await client.run(["mkdir", "-m", "700", "--", self.scratch], check=True)
        except (CommandError, RequestError):
            self.scratch = None  # it was not made
            raise

    def note_its_server(self) -> None:
        """Note, before the connection ends, whether its server is still there: then a broken line to it comes again."""
        assert self.client is not None
        self._is_server_lost = connection_of(self.client).calls.lost is not None

    async def __aenter__(self) -> Held:
        self._leases.add(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._remove_scratch()
        finally:
            self._leases.discard(self)

    async def end(self) -> None:
        """End its commands, then its connection, and remove the directory, while others still use all of that."""
        if self.client is not None:
            self.note_its_server()
            connection = connection_of(self.client)
            async with trio.open_nursery() as nursery:
                for mirror in connection.mirrors.values():
                    if mirror.membership == ("", ""):  # the other ones belong to other connections
                        patience = connection.config.leave_timeout
                        nursery.start_soon(end_for_readers, mirror, closed(), LEAVE_GRACE_SECONDS, patience)
            connection.end()
            await happened(connection.calls.ended)
        await self._remove_scratch()

    async def _remove_scratch(self) -> None:
        with trio.CancelScope(shield=True):
            async with self._removing:
                if self.scratch is None:
                    return
                path, self.scratch = self.scratch, None
                why = "its server is lost"
                with trio.move_on_after(_REMOVAL_SECONDS):
                    while True:
                        try:
                            if self._member.line is not None:
                                await _remove(self._member.line, path)
                                return
                        except ExecsrvError as error:
                            why = str(error)
                            if not isinstance(error, ConnectionLostError) and not (
                                isinstance(error, RequestError) and had_no_room(error)
                            ):
                                break
                        if self._is_server_lost:
                            break
                        await trio.sleep(_PAUSE_SECONDS)
                logger.warning("cannot remove the directory %s of a lease on %s: %s", path, self._member, why)


async def _remove(line: Line, path: str) -> None:
    """Remove a directory, and what is in it, be it read-only. Raises as `Client.run` does."""
    removal = ["rm", "-rf", "--", path]
    try:
        await line.run(removal, check=True)
    except CommandFailedError:
        await line.run(["chmod", "-R", "u+rwX", "--", path], check=True)
        await line.run(removal, check=True)
