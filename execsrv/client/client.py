"""The client: runs commands on one server, over one connection."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property

from execsrv._nursery import check_trio, open_helpers, started
from execsrv.client.connection import Connection, OpenChannel
from execsrv.client.file_calls import FileCalls
from execsrv.client.files import Files
from execsrv.client.given import Given, made
from execsrv.client.greeting_wishes import WISHES, Wishes
from execsrv.client.http import Http
from execsrv.client.inside import mirror_of
from execsrv.client.parameters import Path, seconds
from execsrv.client.process import Process
from execsrv.client.remote_changes import RemoteChanges
from execsrv.client.running import Running
from execsrv.client.sharing import Sharing
from execsrv.client.tokens import ReadToken, no_token
from execsrv.errors import InvalidParamsError
from execsrv.limits import ClientConfig
from execsrv.protocol import EnvironmentInfo


class Client(Sharing, Running, metaclass=Given):
    """Runs commands on a server. Made by `connect_*` and `launch`; leaving their block ends all its commands."""

    _made_by = "a Client is made by `async with` and `connect`, `connect_in_process` or `launch`"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __repr__(self) -> str:
        state = "connected" if self._connection.calls.lost is None else "lost"
        return f"<Client {state} processes={len(self._connection.mirrors)}>"

    @property
    def info(self) -> EnvironmentInfo:
        """Facts of the server's machine: its shell, directories and system."""
        return self._connection.greeting.environment_info

    @property
    def connection_id(self) -> str:
        """Name that the server gave to this connection."""
        return self._connection.greeting.session_id

    @property
    def server_ends_in(self) -> float | None:
        """Seconds until the server is gone at the latest, once it has said that it ends. None before.

        What runs may go on until then, if the server has a `drain_period`; nothing new is started.
        """
        ends_at = self._connection.ends_at
        return None if ends_at is None else max(0.0, ends_at - time.monotonic())

    @cached_property
    def files(self) -> Files:
        """Files of the server's machine."""
        config = self._connection.config
        return Files(RemoteChanges(FileCalls(self._connection.calls), config))

    @cached_property
    def http(self) -> Http:
        """HTTP requests from the server's machine."""
        return Http(self._connection.calls, self._connection.config.leave_timeout)

    @asynccontextmanager
    async def record(
        self,
        process: Process,
        path: Path,
        *,
        input: bool = False,
        title: str | None = None,
        idle_time_limit: float | None = None,
    ) -> AsyncIterator[None]:
        """Record, in this block, what a process prints from here on, as an asciicast v3 in a file on this machine.

        New sizes of its terminal and its exit code are recorded too. With `input`, so is what is written to it: note
        that passwords are input. Players show `title`, and shorten a silence to `idle_time_limit` seconds.

        Readers of the process get the same as without a recording, and a slow disk never slows it down: the recording
        leaves output out instead, with a marker there. Raises `OSError` if the file cannot be opened, and at the end of
        the block if it could not be written; the file then holds what was written before.
        """
        from execsrv.client import recorder
        from execsrv.record import Recording

        if not isinstance(process, Process):
            raise TypeError(f"process must be a Process, got {type(process).__name__}")
        mirror = mirror_of(process)
        if mirror.reader.is_passed:
            message = f"process {process.id} was started with pass_streams, and cannot be recorded"
            raise InvalidParamsError(message, field="process")
        recording = recorder.recording(Recording(path, input, title, idle_time_limit), mirror.text)
        size = (await process.snapshot()).size
        async with recorder.recorded(mirror, recording, process.argv, size):
            yield


@asynccontextmanager
async def open_client(
    open_channel: OpenChannel,
    config: ClientConfig,
    reconnect: float = 0,
    wishes: Wishes = WISHES,
    read_token: ReadToken = no_token,
) -> AsyncIterator[Client]:
    """Open a client on channels of this kind, with the handshake done. Raises `ConnectionFailedError`."""
    check_trio()
    seconds("reconnect", reconnect, zero=True)
    async with open_helpers() as nursery:
        connection = Connection(config, nursery, read_token)
        await started(nursery, connection.stay, open_channel, wishes, reconnect)
        try:
            yield made(Client, connection)
        finally:
            connection.end()
