"""HTTP requests from the server's machine: `Client.http`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any, Literal

import trio
from msgspec import Struct

from execsrv.client.calls import Calls
from execsrv.client.late import undo_if_late
from execsrv.client.leaving import take_leave
from execsrv.client.parameters import Data, flag, milliseconds, string
from execsrv.client.pending import PendingCall
from execsrv.client.text import TextMode, as_bytes
from execsrv.errors import HttpFailedError
from execsrv.protocol import HttpBodyPiece, HttpHeader, HttpRequest, HttpRequestId, HttpResponse

_ids = count(1)


class ServerVariable(Struct, frozen=True):
    """The value of a header that the server has in its environment, put after `prefix`: the client never sees it.

    The server's `http_variables` must name it.
    """

    name: str
    prefix: str = ""


Headers = Mapping[str, str | ServerVariable] | Sequence[tuple[str, str | ServerVariable]]


class HttpAnswer:
    """The response to a request, of any status. Header names are in lower case, repeats in their order."""

    def __init__(self, url: str, response: HttpResponse) -> None:
        self.url: str = url
        """The URL that was asked for."""
        self.status: int = response.status
        """Status code."""
        self.headers: list[tuple[str, str]] = [(field.name, field.value) for field in response.headers]
        """Header fields."""
        self.body: bytes = response.body_base64
        """Body as it came, compressed if the server of the web has compressed it. Empty for a stream."""

    def __repr__(self) -> str:
        return f"<HttpAnswer {self.status} {self.url!r}>"

    @property
    def ok(self) -> bool:
        """True for a status below 400."""
        return self.status < 400

    def header(self, name: str) -> str | None:
        """Return the first header field of this name, None where there is none."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    @property
    def text(self) -> str:
        """Body as text, in the charset that its header names, or UTF-8. Raises `UnicodeDecodeError`."""
        _, _, charset = (self.header("content-type") or "").lower().partition("charset=")
        charset = charset.partition(";")[0].strip(" \"'")
        try:
            return self.body.decode(charset)
        except UnicodeDecodeError:
            raise
        except (LookupError, ValueError):  # it is unknown, or none for text
            return self.body.decode("utf-8")

    def json(self) -> Any:
        """Return what the body says in JSON. Raises `ValueError` for anything else."""
        return json.loads(self.body)


class HttpStream(HttpAnswer):
    """A response whose body is read while it comes: `async for chunk in response`. For one task."""

    def __init__(self, url: str, response: HttpResponse, calls: Calls, id: str) -> None:
        super().__init__(url, response)
        self._calls = calls
        self._id = id
        self._asked: PendingCall | None = None
        self._over = False
        self._busy = False

    def __aiter__(self) -> HttpStream:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece. Cancelling loses nothing.

        Raises `HttpFailedError` for a body that was cut, after what there is of it.
        """
        if self._over:
            raise StopAsyncIteration
        if self._busy:
            raise trio.BusyResourceError(f"another task is reading the body of {self.url!r}")
        self._busy = True
        try:
            if self._asked is None:  # else the one before was cancelled, and the piece is on its way
                self._asked = await self._calls.post("http/read", HttpRequestId(self._id))
            piece = await self._calls.answer_to(self._asked, HttpBodyPiece)
            undo_if_late(partial(self._give_back, self._asked))
            self._asked = None
        finally:
            self._busy = False
        if piece.done:
            self._over = True
            if piece.error is not None:
                raise HttpFailedError(f"the body of {self.url!r} is not whole: {piece.error}", url=self.url)
            raise StopAsyncIteration
        return piece.chunk

    def _give_back(self, asked: PendingCall) -> None:
        """Let the piece that was asked for be the next again."""
        self._asked, self._over = asked, False


class Http:
    """HTTP requests that the server makes, from where it is, with what only it has."""

    def __init__(self, calls: Calls, patience: float) -> None:
        self._calls = calls
        self._patience = patience

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Headers = (),
        body: Data | str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the server's to keep
        follow_redirects: bool = True,
    ) -> HttpAnswer:
        """Make a request, and return the response with its body, whatever the status.

        `timeout` counts, in seconds, to the end of the body. Raises `HttpFailedError` for no whole response,
        `HttpUnavailableError` where the server makes no requests, `LimitExceededError` for a large body, which
        `stream` takes, and `ConnectionLostError`: a request is never made again after an interruption. Cancelling
        hangs up.
        """
        params = _params(method, url, headers, body, timeout, follow_redirects, pull=False)
        try:
            return HttpAnswer(url, await self._calls.call("http/request", params, HttpResponse))
        except trio.Cancelled:
            await self._close(params.request_id)
            raise

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Headers = (),
        body: Data | str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the server's to keep
        follow_redirects: bool = True,
    ) -> AsyncIterator[HttpStream]:
        """Make a request, and give the response as soon as its headers have arrived. The block reads the body in
        pieces.

        A body that is read slowly makes its sender wait. Leaving the block hangs up. Raises as `request` does.
        """
        params = _params(method, url, headers, body, timeout, follow_redirects, pull=True)
        try:
            response = await self._calls.call("http/request", params, HttpResponse)
            yield HttpStream(url, response, self._calls, params.request_id)
        finally:
            await self._close(params.request_id)

    async def _close(self, id: str) -> None:
        """Have the server hang up, whatever has become of the request."""
        await take_leave(self._calls, "http/close", HttpRequestId(id), self._patience)


def _params(
    method: str,
    url: str,
    headers: Headers,
    body: Data | str | None,
    timeout: float | None,
    follow_redirects: bool,
    *,
    pull: bool,
) -> HttpRequest:
    body = as_bytes(body, TextMode(), "body")
    policy: Literal["follow", "stop"] = "follow" if flag("follow_redirects", follow_redirects) else "stop"
    return HttpRequest(
        method=string("method", method),
        url=string("url", url),
        request_id=f"h{next(_ids)}",
        headers=[_header(name, value) for name, value in _pairs(headers)],
        body_base64=None if body is None else bytes(body),
        timeout_ms=milliseconds("timeout", timeout),
        redirect_policy=policy,
        pull_response=pull,
    )


def _pairs(headers: Headers) -> list[tuple[str, str | ServerVariable]]:
    try:
        return [(name, value) for name, value in (headers.items() if isinstance(headers, Mapping) else headers)]
    except (TypeError, ValueError):
        raise TypeError(f"headers must be a mapping, or pairs of name and value, got {headers!r}") from None


def _header(name: str, value: str | ServerVariable) -> HttpHeader:
    if isinstance(value, ServerVariable):
        return HttpHeader(string("headers", name), string("headers", value.prefix), string("headers", value.name))
    return HttpHeader(string("headers", name), string(f"headers[{name!r}]", value))
