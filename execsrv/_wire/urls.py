"""The URLs of servers: `unix://PATH`, `ws://HOST:PORT` and `wss://HOST:PORT`. Pure: nothing is looked up."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from execsrv.errors import ConnectionFailedError, InvalidListenURLError

_UNIX = "unix://"


def is_unix_url(url: str) -> bool:
    """Return True for a URL of a unix socket."""
    return url.startswith(_UNIX)


def is_websocket_url(url: str) -> bool:
    """Return True for a URL of a websocket."""
    return url.startswith(("ws://", "wss://"))


def parse_unix(url: str, option: str = "--listen") -> str:
    """Return the path in `unix://PATH`, empty for the default one. Raises `InvalidListenURLError`.

    The error names the option of the URL.
    """
    path = url.removeprefix(_UNIX)
    if "\0" in path:
        raise InvalidListenURLError(f"invalid unix {option} URL `{url}`; expected `unix://PATH`")
    return path


class ListenAddress(NamedTuple):
    """An address of this machine to listen at, with TLS or without."""

    ip: str
    port: int
    is_secure: bool

    @property
    def is_loopback(self) -> bool:
        """Return True for an address that only this machine reaches."""
        address = ipaddress.ip_address(self.ip.partition("%")[0])
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback

    def __str__(self) -> str:
        ip = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"{'wss' if self.is_secure else 'ws'}://{ip}:{self.port}"


def parse_listen(url: str) -> ListenAddress:
    """Return the address in `ws://IP:PORT` or `wss://IP:PORT`. Raises `InvalidListenURLError`."""
    expected = "wss://IP:PORT" if url.startswith("wss:") else "ws://IP:PORT"
    invalid = InvalidListenURLError(f"invalid websocket --listen URL `{url}`; expected `{expected}`")
    parts, host, port = address_in(url, invalid)
    if parts.path or parts.query or parts.fragment:
        raise invalid
    return ListenAddress(host, port, parts.scheme == "wss")


def address_in(url: str, invalid: InvalidListenURLError) -> tuple[SplitResult, str, int]:
    """Return the parts of a URL, its IP address and its port. Raises `invalid` where it names not just these two."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        ipaddress.ip_address(host)
    except ValueError:
        raise invalid from None
    if port is None or "@" in parts.netloc:
        raise invalid
    return parts, host, port


class WebSocketAddress(NamedTuple):
    """Place of a websocket, and what to ask for there."""

    host: str
    port: int
    secure: bool
    resource: str

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_websocket(url: str) -> WebSocketAddress:
    """Return the address in `ws://HOST:PORT` or `wss://HOST:PORT`. Raises `ConnectionFailedError`."""
    try:
        parts = urlsplit(url)
        secure = parts.scheme == "wss"
        host, port = parts.hostname, parts.port or (443 if secure else 80)
    except ValueError as error:
        raise ConnectionFailedError(f"cannot connect to `{url}`: {error}", is_final=True) from None
    if parts.scheme not in ("ws", "wss") or not host:
        raise ConnectionFailedError(f"cannot connect to `{url}`: expected `ws://HOST:PORT`", is_final=True)
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return WebSocketAddress(host, port, secure, resource)


def page_url(url: str) -> str:
    """Return the address of the page of a server that listens at `ws://` or `wss://`, for browsers."""
    return f"http{url.removeprefix('ws')}/"
