"""A listener of its own for those who watch over the server: `/livez`, `/readyz` and `/metrics`, by HTTP.

It takes one request for a connection, and never a body. It has few places and a bound for every wait, and places are
had as those at the door of the server: whoever holds them all is in nobody's way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

import trio

from execsrv._doors.accepting import accept
from execsrv._doors.metrics import CONTENT_TYPE
from execsrv._doors.newcomers import Door, origin_of, shut
from execsrv._wire.http_head import receive_head
from execsrv._wire.urls import address_in
from execsrv.errors import CannotListenError, InvalidListenURLError

_PLACES = 16
_SECONDS = 5.0
_MOST_BYTES = 8192
_TEXT = "text/plain; charset=utf-8"
_REQUEST = re.compile(rb"(GET|HEAD) (/[!-~]*) HTTP/1\.[01]\r\n")


async def serve_health(
    url: str,
    is_ready: Callable[[], bool],
    metrics: Callable[[], bytes],
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on `http://IP:PORT` until cancelled. `started` gets the URL, with the real port.

    Raises `InvalidListenURLError` and `CannotListenError`.
    """
    host, port = _parsed(url)
    try:
        (listener,) = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise CannotListenError(f"cannot listen on {url}: {error.strerror or error}") from error
    door = Door(lambda: _PLACES, "places for requests of health")

    async def serve_one(stream: trio.SocketStream) -> None:
        await _serve_one(stream, door, is_ready, metrics)

    address, port = listener.socket.getsockname()[:2]
    task_status.started(f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}")
    async with listener, trio.open_nursery() as nursery:
        await accept(listener, nursery, "a request for health", serve_one, door)


def _parsed(url: str) -> tuple[str, int]:
    """Return address and port of `http://IP:PORT`. Raises `InvalidListenURLError`."""
    invalid = InvalidListenURLError(f"invalid --metrics-listen URL `{url}`; expected `http://IP:PORT`")
    parts, host, port = address_in(url, invalid)
    if parts.scheme != "http" or parts.path not in ("", "/") or parts.query:
        raise invalid
    return host, port


async def _serve_one(
    stream: trio.SocketStream,
    door: Door,
    is_ready: Callable[[], bool],
    metrics: Callable[[], bytes],
) -> None:
    place = door.enter(origin_of(stream), partial(shut, stream))
    try:
        with trio.move_on_after(_SECONDS):
            if (head := await receive_head(stream, _MOST_BYTES)) is not None:
                await stream.send_all(_answer_to(head, is_ready, metrics))
                await stream.send_eof()
    except (trio.BrokenResourceError, OSError):
        pass  # it has gone
    finally:
        door.leave(place)
        await trio.aclose_forcefully(stream)


def _answer_to(head: bytes, is_ready: Callable[[], bool], metrics: Callable[[], bytes]) -> bytes:
    found = _REQUEST.match(head)
    if found is None:
        status = HTTPStatus.METHOD_NOT_ALLOWED if b" HTTP/1." in head.partition(b"\r\n")[0] else HTTPStatus.BAD_REQUEST
        return _response(status, status.phrase.encode() + b"\n", _TEXT)
    kind, body, status = _TEXT, b"ok\n", HTTPStatus.OK
    match found[2].partition(b"?")[0]:
        case b"/livez" | b"/healthz":
            pass  # that we answer says that the loop turns
        case b"/readyz":
            if not is_ready():
                body, status = b"not accepting\n", HTTPStatus.SERVICE_UNAVAILABLE
        case b"/metrics":
            kind, body = CONTENT_TYPE, metrics()
        case _:
            body, status = b"there are /livez, /readyz and /metrics\n", HTTPStatus.NOT_FOUND
    return _response(status, body, kind, has_body=found[1] == b"GET")


def _response(status: HTTPStatus, body: bytes, kind: str, *, has_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if has_body else b"")
