"""The server that a command asks: where it is, and how it is reached."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from execsrv._cli.register.common import DEFAULT_URL
from execsrv._wire.paths import path_from_wire
from execsrv.client import Client, connect
from execsrv.limits import ClientConfig


class Reach(NamedTuple):
    """The options of reaching a server."""

    url: str | None = None
    token_file: str | None = None
    reconnect: float = 0
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    server_uid: tuple[int, ...] = ()
    allow_plain_network: bool = False
    no_bring: bool = False

    @property
    def where(self) -> str:
        """The URL that is meant."""
        return self.url or DEFAULT_URL

    @property
    def config(self) -> ClientConfig:
        """The settings of the client."""
        return ClientConfig(
            server_uids=self.server_uid,
            allow_plain_network=self.allow_plain_network,
            tls_ca_file=self.ca_file or "",
            tls_certificate_file=self.certificate_file or "",
            tls_key_file=self.key_file or "",
        )

    @asynccontextmanager
    async def connect(self, **more: Any) -> AsyncIterator[Client]:
        """Connect. More keywords are those of `connect`. Raises `ConnectionFailedError`."""
        async with connect(
            self.where,
            token_file=self.token_file,
            reconnect=self.reconnect,
            bring=not self.no_bring,
            config=self.config,
            **more,
        ) as client:
            yield client


def path_there(client: Client, path: str) -> str:
    """Return the absolute path of one that counts from the server's own directory, or from its user's home."""
    if posixpath.isabs(path):
        return path
    base = client.info.cwd or client.info.user_home_dir
    return posixpath.normpath(posixpath.join(path_from_wire(base, "cwd"), path))
