"""A directory by DNS: a name that has an address for each server, as a headless service of Kubernetes has."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from execsrv.directories.endpoint import Endpoint
from execsrv.errors import ConnectionFailedError


class DnsDirectory:
    """A directory for `Pool`: a server at each address of a name, all on one port.

    With a `scheme` of "wss" the certificate of each server has to name its address.
    """

    def __init__(self, host: str, port: int, *, scheme: str = "ws", labels: Mapping[str, str] | None = None) -> None:
        self._host = host
        self._port = port
        self._scheme = scheme
        self._labels = dict(labels or {})

    def __repr__(self) -> str:
        return f"<DnsDirectory {self._host}:{self._port}>"

    async def __call__(self) -> list[Endpoint]:
        """Return the servers. Raises `ConnectionFailedError` for a name that has no address."""
        try:
            found = await trio.socket.getaddrinfo(self._host, self._port, type=trio.socket.SOCK_STREAM)
        except OSError as error:
            raise ConnectionFailedError(f"cannot look up `{self._host}`: {error.strerror or error}") from error
        addresses = dict.fromkeys(str(address[0]) for *_, address in found)
        return [Endpoint(f"{self._scheme}://{_host(each)}:{self._port}", labels=self._labels) for each in addresses]


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
