"""`http/*`: requests that the server makes for its peer."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from execsrv.protocol.bounds import Id, Name
from execsrv.protocol.messages import Wire

HeaderText = Annotated[str, Meta(max_length=64 * 1024)]
"""A URL, or the value of a header field."""


class HttpField(Wire, frozen=True):
    """One header field of a response: its name in lower case, and its value."""

    name: str
    value: str


class HttpHeader(Wire, frozen=True):
    """One header field of a request. With `value_env_var`, that variable of the server is put after `value`."""

    name: Name
    value: HeaderText
    value_env_var: Name | None = None


class HttpRequest(Wire, frozen=True):
    """Make an HTTP request from the server's machine. `timeout_ms` counts to the end of the body; None: for ever.

    With `stream_response` the answer comes with the response's header, and its body in `http/request/bodyDelta`,
    which `request_id` pairs with this request; with `pull_response` the client asks for its pieces with `http/read`.
    """

    method: Name
    url: HeaderText
    request_id: Id
    headers: Annotated[list[HttpHeader], Meta(max_length=1024)] = []
    body_base64: bytes | None = None
    timeout_ms: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    redirect_policy: Literal["follow", "stop"] = "follow"
    stream_response: bool = False
    pull_response: bool = False


class HttpRequestId(Wire, frozen=True):
    """Names a request whose body is pulled."""

    request_id: Id


class HttpBodyPiece(Wire, frozen=True):
    """A piece of a pulled body. The last is empty and `done`; `error`: it was cut."""

    chunk: bytes
    done: bool = False
    error: str | None = None


class HttpResponse(Wire, frozen=True):
    """The response, of any status. A streamed body is empty here."""

    status: int
    headers: list[HttpField]
    body_base64: bytes


class HttpBodyDelta(Struct, frozen=True, rename="camel", gc=False):
    """<- a piece of a streamed body; `seq` counts from 1. The last is empty and `done`; `error`: it was cut."""

    request_id: str
    seq: int
    delta_base64: bytes
    done: bool = False
    error: str | None = None
