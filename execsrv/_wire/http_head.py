"""The HTTP request in front of a websocket: health checks are answered here, and what is no upgrade is refused.

It reads one request head and never a body. A web page must not reach a server on the loopback address, so an `Origin`
is refused before anything else, unless it is listed, or our own. A browser has our own only where we serve a page. Our
own is that of the `Host`, and any name may be made to lead here: so whoever asks for an upgrade, or for the page, has
to name a host that is us. The rules are those of RFC 9110 and RFC 6455 section 4.2.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import Enum, auto
from http import HTTPStatus
from typing import NamedTuple

import h11
import trio

from execsrv._wire.quoting import quoted

_END = b"\r\n\r\n"
_TLS = b"\x16\x03"
"""The beginning of a TLS handshake, to which nobody here would answer."""
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_BROWSER = b"mozilla/"
"""Begins the `User-Agent` of every browser, and no page can change it."""

_PROXIES = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")
"""What a proxy adds to say that it speaks for somebody else."""

PROTOCOL = "execsrv"
TOKEN_PROTOCOL = "execsrv.token."
"""Begins the subprotocol that is a token, for clients that cannot set a header: a page in a browser."""


class Visitor(Enum):
    """Who asks for an upgrade, by what a page in a browser cannot hide."""

    PROGRAM = auto()
    """No page, or one whose origin is listed, where that is as good."""
    OUR_PAGE = auto()
    """A page of ours, which is let in by a token alone, whoever has the browser."""
    LISTED_PAGE = auto()
    """A page of a listed origin, at a server that has a page: it may be that page, behind a proxy."""


class Upgrade(NamedTuple):
    """A request that is to become a websocket.

    The head is for the websocket library, with what it has to know of it: header lines of one name are one list, which
    that library does not know, nor what is not ASCII.
    """

    head: bytes
    token: str | None
    """The token of whoever asks, from a header or a subprotocol."""
    is_forwarded: bool
    """True where it came through a proxy, so that the peer is not who asks."""
    subprotocol: str | None
    visitor: Visitor

    def __repr__(self) -> str:
        """Show neither token nor head."""
        return f"<Upgrade {'with' if self.token else 'without'} a token>"


class PageRequest(NamedTuple):
    """A request for a file of the page that we have."""

    path: bytes


class Pages(NamedTuple):
    """The paths of a page of ours, and what gives the response to a request for one of them, in pieces."""

    paths: Collection[bytes]
    response: Callable[[bytes], Awaitable[Sequence[bytes | memoryview]]]


async def _no_page(path: bytes) -> Sequence[bytes | memoryview]:
    raise LookupError(path)


NO_PAGES = Pages((), _no_page)


class Names(NamedTuple):
    """The hosts under which we are reached, beside our addresses, and the origins that may come in, beside our own.

    Over TLS (`is_secure`) the name of the host is not asked for: no certificate of ours has the name of somebody else.
    `pages` are the paths of a page of ours, none where we have none.
    """

    hosts: Collection[str] = ()
    origins: Collection[str] = ()
    is_secure: bool = False
    pages: Collection[bytes] = ()


async def receive_head(stream: trio.abc.ReceiveStream, max_bytes: int) -> bytes | None:
    """Return the bytes up to the end of a request head, and perhaps beyond. None if the end never came."""
    head = bytearray()
    while _END not in head and not head.startswith(_TLS) and len(head) <= max_bytes:
        data = await stream.receive_some(max_bytes)
        if not data:
            return None
        head += data
    return bytes(head)


def answer_to(head: bytes, max_bytes: int, names: Names, *, is_ready: bool = True) -> bytes | Upgrade | PageRequest:
    """Return the whole response to a request, the upgrade that it asks for, or the page."""
    request = _parsed(head, max_bytes)
    if isinstance(request, bytes):
        return request
    method, path, headers = request
    if refusal := _refusal_of_origin(headers, names):
        return refusal
    if path == b"/readyz" and not is_ready:
        return _response(HTTPStatus.SERVICE_UNAVAILABLE, "the server is shutting down")
    if path in (b"/livez", b"/readyz", b"/healthz"):
        return _response(HTTPStatus.OK)
    if path in names.pages and method == b"GET" and b"upgrade" not in headers:
        return _refusal_of_host(headers, names) or PageRequest(path)
    if path != b"/":
        return _response(HTTPStatus.NOT_FOUND)
    if method != b"GET":
        return _response(HTTPStatus.METHOD_NOT_ALLOWED, "Request method must be GET")
    return _refusal_of_handshake(headers) or _refusal_of_host(headers, names) or _upgrade(headers, names)


def _parsed(head: bytes, max_bytes: int) -> tuple[bytes, bytes, Mapping[bytes, bytes]] | bytes:
    """Return method, path and headers of a request, or the whole response to what is none."""
    end = head.find(_END)
    if head.startswith(_TLS):
        return _response(HTTPStatus.BAD_REQUEST, "this server speaks no TLS: use `ws://`")
    if end < 0 or end > max_bytes:
        return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"request head is larger than {max_bytes} bytes")
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=max_bytes + len(_END))
    try:
        parser.receive_data(head[: end + len(_END)])
        request = parser.next_event()
    except h11.RemoteProtocolError as error:
        return _response(HTTPStatus.BAD_REQUEST, str(error))
    assert isinstance(request, h11.Request)
    headers: dict[bytes, bytes] = {}
    for field, value in request.headers:
        headers[field] = headers[field] + b", " + value if field in headers else value
    return request.method, request.target.partition(b"?")[0], headers


def _refusal_of_handshake(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the response to what asks for no websocket, nothing where it does.

    Whatever the websocket library would refuse is refused here: it would leave the connection open.
    """
    if b"upgrade" not in [token.strip().lower() for token in headers.get(b"connection", b"").split(b",")]:
        return _response(HTTPStatus.BAD_REQUEST, "Connection header did not include 'upgrade'")
    if b"websocket" not in [token.strip().lower() for token in headers.get(b"upgrade", b"").split(b",")]:
        return _response(HTTPStatus.BAD_REQUEST, "Upgrade header did not include 'websocket'")
    if headers.get(b"sec-websocket-version") != b"13":
        text = "Sec-WebSocket-Version header must be 13"
        return _response(HTTPStatus.UPGRADE_REQUIRED, text, "Sec-WebSocket-Version: 13\r\n")
    for name in ("Sec-WebSocket-Key", "Host"):
        if not headers.get(name.lower().encode()):
            return _response(HTTPStatus.BAD_REQUEST, f"{name} header is missing")
    if not _KEY.fullmatch(headers[b"sec-websocket-key"]):
        return _response(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key header must be 16 bytes in base64")
    return b""


def _upgrade(headers: Mapping[bytes, bytes], names: Names) -> Upgrade | bytes:
    """Return the upgrade that a handshake asks for, or the whole response to one whose token is none."""
    protocols = [word.strip().decode("latin-1") for word in headers.get(b"sec-websocket-protocol", b"").split(b",")]
    try:
        token = _token(headers.get(b"authorization"), protocols)
    except ValueError as error:
        return unauthorized(str(error))
    fields = b"Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    subprotocol = PROTOCOL if PROTOCOL in protocols else None
    if subprotocol:
        fields += f"Sec-WebSocket-Protocol: {subprotocol}\r\n".encode()
    plain = b"GET / HTTP/1.1\r\n" + fields + b"Sec-WebSocket-Key: " + headers[b"sec-websocket-key"] + _END
    is_forwarded = any(name in headers for name in _PROXIES)
    return Upgrade(plain, token, is_forwarded, subprotocol, _visitor(headers, names))


def _visitor(headers: Mapping[bytes, bytes], names: Names) -> Visitor:
    """Return who asks, whose origin is not refused."""
    if b"origin" not in headers or not _is_browser(headers):
        return Visitor.PROGRAM
    if not _is_listed(headers, names):
        return Visitor.OUR_PAGE
    return Visitor.LISTED_PAGE if names.pages else Visitor.PROGRAM


def unauthorized(text: str) -> bytes:
    """Return the response to somebody whom nobody knows."""
    return _response(HTTPStatus.UNAUTHORIZED, text, "WWW-Authenticate: Bearer\r\n")


def _refusal_of_origin(headers: Mapping[bytes, bytes], names: Names) -> bytes:
    """Return the response to an origin that may not come in, nothing to one that may, or where there is none."""
    if b"origin" not in headers:
        return b""
    origin = headers[b"origin"].decode("latin-1").lower()
    own = f"{'https' if names.is_secure else 'http'}://{_host(headers)}"
    # Without pages, a browser that has one of ours got it from who had this port before us, or has it on `[::1]`.
    if (origin == own and (names.pages or not _is_browser(headers))) or _is_listed(headers, names):
        return b""
    why = (
        f"the origin {quoted(origin)} is refused, so that no web page can reach this server: list it in"
        " allowed_origins, or leave the Origin header out in a client that is no browser"
    )
    return _response(HTTPStatus.FORBIDDEN, why)


def _is_browser(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"user-agent", b"").lower().startswith(_BROWSER)


def _is_listed(headers: Mapping[bytes, bytes], names: Names) -> bool:
    return headers[b"origin"].decode("latin-1").lower() in [listed.lower() for listed in names.origins]


def _refusal_of_host(headers: Mapping[bytes, bytes], names: Names) -> bytes:
    """Return the response to a host that is not us, nothing where it is.

    Who has the name of a host can have it lead anywhere. Over TLS the certificate says it.
    """
    host = _host(headers)
    name = host.rpartition(":")[0] if re.search(r"[^:]:[0-9]*\Z", host) and not host.endswith("]") else host
    name = name.removesuffix(".")
    if names.is_secure or _is_address(name):
        return b""
    known = {"localhost", socket.gethostname().lower(), *(listed.lower() for listed in names.hosts)}
    if name in known or name.endswith(".localhost"):
        return b""
    why = f"the host {quoted(name)} is not known to be us: connect to an address, or list it in allowed_hosts"
    return _response(HTTPStatus.FORBIDDEN, why)


def _host(headers: Mapping[bytes, bytes]) -> str:
    return headers.get(b"host", b"").decode("latin-1").lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        return False
    return True


def _token(authorization: bytes | None, protocols: list[str]) -> str | None:
    """Return the token of a request, None where it has none. Raises `ValueError`, also for two: one may be wrong."""
    tokens = {word.removeprefix(TOKEN_PROTOCOL) for word in protocols if word.startswith(TOKEN_PROTOCOL)}
    if authorization is not None:
        scheme, _, token = authorization.decode("latin-1").strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip() or not token.isascii():
            raise ValueError("invalid authorization header")
        tokens.add(token.strip())
    if len(tokens) > 1:
        raise ValueError("the request has several tokens that differ")
    return next(iter(tokens), None)


def _response(status: HTTPStatus, text: str = "", fields: str = "") -> bytes:
    body = text.encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{fields}"
    if body:
        head += "Content-Type: text/plain; charset=utf-8\r\n"
    return head.encode() + b"\r\n" + body
