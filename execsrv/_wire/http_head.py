"""The HTTP request in front of a websocket: health checks are answered here, and what is no upgrade is refused.

It reads one request head and never a body. Browsers are refused by their `Origin` header before anything else: a page
must not reach a server on the loopback address. The rules are those of RFC 9110 and RFC 6455 section 4.2.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import NamedTuple

import h11
import trio

_END = b"\r\n\r\n"
_TLS = b"\x16\x03"
"""The beginning of a TLS handshake, to which nobody here would answer."""
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_NO_BROWSERS = (
    "requests with an Origin header are refused, so that no web page can reach this server; "
    "a client that is no browser has to leave the header out"
)


class Upgrade(NamedTuple):
    """A request that is to become a websocket, as far as the websocket library has to know of it.

    Header lines of one name are one list, which that library does not know, nor what is not ASCII.
    """

    head: bytes


async def receive_head(stream: trio.abc.ReceiveStream, max_bytes: int) -> bytes | None:
    """Return the bytes up to the end of a request head, and perhaps beyond. None if the end never came."""
    head = bytearray()
    while _END not in head and not head.startswith(_TLS) and len(head) <= max_bytes:
        data = await stream.receive_some(max_bytes)
        if not data:
            return None
        head += data
    return bytes(head)


def answer_to(head: bytes, max_bytes: int, *, is_ready: bool = True) -> bytes | Upgrade:
    """Return the whole response to a request, or the upgrade that it asks for.

    Whatever the websocket library would refuse is refused here: it would leave the connection open.
    """
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
    path = request.target.partition(b"?")[0]
    if b"origin" in headers:
        return _response(HTTPStatus.FORBIDDEN, _NO_BROWSERS)
    if path == b"/readyz" and not is_ready:
        return _response(HTTPStatus.SERVICE_UNAVAILABLE, "the server is shutting down")
    if path in (b"/livez", b"/readyz", b"/healthz"):
        return _response(HTTPStatus.OK)
    if path != b"/":
        return _response(HTTPStatus.NOT_FOUND)
    if request.method != b"GET":
        return _response(HTTPStatus.METHOD_NOT_ALLOWED, "Request method must be GET")
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
    key = headers[b"sec-websocket-key"]
    if not _KEY.fullmatch(key):
        return _response(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key header must be 16 bytes in base64")
    fields = b"Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    return Upgrade(b"GET / HTTP/1.1\r\n" + fields + b"Sec-WebSocket-Key: " + key + _END)


def _response(status: HTTPStatus, text: str = "", fields: str = "") -> bytes:
    body = text.encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{fields}"
    if body:
        head += "Content-Type: text/plain; charset=utf-8\r\n"
    return head.encode() + b"\r\n" + body
