"""Relay for the HTTP requests that one peer makes from this machine, and for the bodies that it has streamed.

    open_http (`channel`)       as long as one channel lasts
    ├─ _stream                  one for each streamed body: read a chunk, wait for room, tell it
    └─ _tidy                    while HTTP connections are kept that no request uses

The relay owns the ids of the streams, the number of requests under way, and the client with its HTTP connections. All
of them end with the channel. It does not read ahead of a slow peer: at most one chunk of each stream waits here, and
the HTTP server has to wait in its turn. It never looks at a redirect, a header or an address.
"""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import trio

from execsrv._budget.allowance import Allowance
from execsrv._http.channel import Tell
from execsrv._http.client import HttpClient, fields_of, open_body, sending
from execsrv._http.request import PreparedRequest, prepare
from execsrv._nursery import owned
from execsrv.errors import BusyError, HttpFailedError, HttpUnavailableError, InvalidParamsError, LimitExceededError
from execsrv.limits import ServerConfig
from execsrv.protocol import (
    HttpBodyDelta,
    HttpBodyPiece,
    HttpRequest,
    HttpRequestId,
    HttpResponse,
    Nothing,
    Notification,
)

if TYPE_CHECKING:
    import httpcore

_EXCHANGE_BYTES = 256 * 1024
"""The cost of an exchange: its connection, and the chunk of a body that waits to be told."""

_HEAD_BYTES = 256 * 1024
"""Bytes kept free in an answer for the response's header, of which httpcore allows 100 KiB."""


class Relay:
    """HTTP requests and streams of one channel, whose nursery ends before `aclose`."""

    def __init__(
        self,
        config: ServerConfig,
        nursery: trio.Nursery,
        tell: Tell,
        answers_left: Callable[[], Awaitable[None]],
        allowance: Allowance,
    ) -> None:
        self._allowance = allowance
        self._nursery = nursery
        self._client = HttpClient()
        self._tell = tell
        self._answers_left = answers_left
        self._config = config
        self._under_way = 0
        self._is_tidying = False
        self._streams: dict[str, _StreamedBody] = {}
        self._unanswered: dict[trio.CancelScope, str] = {}  # with their ids, of which whole ones may share one
        fitting = max(0, config.max_message_bytes - _HEAD_BYTES) * 3 // 4  # in base64, into one message
        self._max_buffered = min(config.buffered_http_bytes, fitting)
        self._buffered = 0

    def __repr__(self) -> str:
        return f"<Relay exchanges={self._under_way} streams={len(self._streams)}>"

    @property
    def is_busy(self) -> bool:
        """True while a request is under way, and until all of a streamed body was handed over."""
        return self._under_way > 0

    def request(self, params: HttpRequest) -> Coroutine[Any, Any, HttpResponse]:
        """Check a request, and return a coroutine that makes it.

        The coroutine returns the response; of a streamed one, only the header. Checking raises `HttpUnavailableError`,
        `InvalidParamsError` and `BusyError`. Awaiting raises `HttpUnavailableError`, `HttpFailedError` and
        `LimitExceededError`; cancelling hangs up on the HTTP server. No chunk is told before the awaiting task gives
        way, so that it can answer first.
        """
        if not self._config.allow_http:
            raise HttpUnavailableError("http/request is switched off on this server: allow_http is false")
        exchange = prepare(params, os.environ, self._config.http_variables)
        if _is_streamed(params) and params.request_id in self._streams:
            message = f"http/request streamResponse requestId `{params.request_id}` is already active"
            raise InvalidParamsError(message, field="requestId")
        bound = self._config.http_exchanges
        if self._under_way >= bound:
            raise BusyError(f"http_exchanges ({bound}) are under way", limit="http_exchanges", value=bound)
        self._take()
        self._under_way += 1
        body, closing = None, trio.CancelScope()
        if _is_streamed(params):
            body = self._streams[params.request_id] = _StreamedBody(params, closing)
        self._unanswered[closing] = params.request_id
        return self._run(params, exchange, body, closing)

    def _take(self) -> None:
        """Take what an exchange has from its beginning. Raises `LimitExceededError`."""
        self._allowance.exchanges.take()
        try:
            self._allowance.for_http.take(_EXCHANGE_BYTES)
        except LimitExceededError:
            self._allowance.exchanges.give()
            raise

    async def aclose(self) -> None:
        """Close every HTTP connection, and give back what exchanges have that nobody has begun or ended."""
        self._allowance.exchanges.give(self._under_way)
        self._allowance.for_http.give(self._under_way * _EXCHANGE_BYTES)
        self._under_way = 0
        await self._client.aclose()

    def _finished(self, body: _StreamedBody | None) -> None:
        self._under_way -= 1
        self._allowance.exchanges.give()
        self._allowance.for_http.give(_EXCHANGE_BYTES)
        if body is not None and self._streams.get(body.id) is body:
            del self._streams[body.id]
        if not self._is_tidying:
            self._is_tidying = True
            self._nursery.start_soon(owned, self._tidy)

    async def _tidy(self) -> None:
        try:
            await self._client.close_unused()
        finally:
            self._is_tidying = False

    async def _run(
        self, params: HttpRequest, exchange: PreparedRequest, streamed: _StreamedBody | None, closing: trio.CancelScope
    ) -> HttpResponse:
        deadline = math.inf if params.timeout_ms is None else trio.current_time() + params.timeout_ms / 1000
        streaming = False
        try:
            with closing:
                with trio.move_on_at(deadline) as patience:
                    response = await self._client.send(exchange, params.redirect_policy == "follow")
                if patience.cancelled_caught:
                    raise HttpFailedError(f"{sending(exchange)}: {_too_slow(params)}", url=exchange.target.url)
                body = b""
                if streamed is not None:
                    self._nursery.start_soon(owned, self._stream, params, response, deadline, streamed)
                    streaming = True
                else:
                    body = await self._read(params, response, deadline)
                return HttpResponse(response.status, fields_of(response), body)
            raise HttpFailedError(f"{sending(exchange)}: it was closed by its peer", url=exchange.target.url)
        finally:
            del self._unanswered[closing]
            if not streaming:
                self._finished(streamed)

    async def _read(self, params: HttpRequest, response: httpcore.Response, deadline: float) -> bytes:
        """Return the whole body, once the answers before it have left, so that bodies cannot pile up for a slow peer.

        Raises `HttpFailedError` for a body that is cut, `LimitExceededError` for one that is too large.
        """
        body = bytearray()  # chunks may have a byte each, and an object for each would cost much more
        held = self._allowance.for_http
        try:
            with trio.move_on_at(deadline) as patience:
                async with open_body(response) as chunks:
                    async for chunk in chunks:
                        held.take(len(chunk))
                        body += chunk
                        self._buffered += len(chunk)
                        if self._buffered > self._max_buffered:
                            raise self._too_large()
            if patience.cancelled_caught:
                raise HttpFailedError(f"error decoding response body: {_too_slow(params)}")
            await self._answers_left()
        except HttpFailedError as error:
            raise HttpFailedError(f"failed to read http/request response body: {error}") from error
        finally:
            self._buffered -= len(body)
            held.give(len(body))
        return bytes(body)

    def _too_large(self) -> LimitExceededError:
        bound = self._max_buffered
        message = f"buffered_http_bytes ({bound}) would be exceeded by a response body: it can be streamed"
        return LimitExceededError(message, limit="buffered_http_bytes", value=bound)

    async def _stream(
        self, params: HttpRequest, response: httpcore.Response, deadline: float, body: _StreamedBody
    ) -> None:
        """Hand the body over chunk by chunk, told or each when it is asked for, then its end, and free the id."""
        if body.is_pulled:

            async def give(chunk: bytes) -> None:
                await body.give.send(HttpBodyPiece(chunk))

            with body.scope, body.give:
                problem = await self._hand_over(params, response, deadline, give)
                await body.give.send(HttpBodyPiece(b"", done=True, error=problem))
        else:
            told = 0

            async def tell(chunk: bytes) -> None:
                nonlocal told
                await self._tell_delta(HttpBodyDelta(params.request_id, told + 1, chunk))
                told += 1

            problem = await self._hand_over(params, response, deadline, tell)
            await self._tell_delta(HttpBodyDelta(params.request_id, told + 1, b"", done=True, error=problem))
        self._finished(body)

    async def _hand_over(
        self,
        params: HttpRequest,
        response: httpcore.Response,
        deadline: float,
        take: Callable[[bytes], Awaitable[None]],
    ) -> str | None:
        """Await `take` with each chunk of the body. Return why that is not whole, None where it is."""
        try:
            with trio.move_on_at(deadline) as patience:
                async with open_body(response) as chunks:
                    async for chunk in chunks:
                        await take(chunk)
        except HttpFailedError as error:
            return error.message
        return f"error decoding response body: {_too_slow(params)}" if patience.cancelled_caught else None

    def read(self, params: HttpRequestId) -> Coroutine[Any, Any, HttpBodyPiece]:
        """Return a coroutine that waits for the next piece of a pulled body. Raises `HttpFailedError` for none."""
        body = self._streams.get(params.request_id)
        if body is None or not body.is_pulled:
            raise HttpFailedError(f"no body is to be pulled for requestId `{params.request_id}`")
        return body.next()

    def close(self, params: HttpRequestId) -> Nothing:
        """Hang up on the HTTP server of a pulled body, or those that have not answered, and free the id.

        An id of neither is accepted.
        """
        for closing, id in self._unanswered.items():
            if id == params.request_id:
                closing.cancel()
        body = self._streams.get(params.request_id)
        if body is not None and (body.is_pulled or body.closing in self._unanswered):
            body.scope.cancel()
            del self._streams[body.id]
        return Nothing()

    async def _tell_delta(self, delta: HttpBodyDelta) -> None:
        await self._tell(Notification("http/request/bodyDelta", delta))


class _StreamedBody:
    """The body of one response on its way to who is told it, or asks for it. Nothing of it waits in here."""

    def __init__(self, params: HttpRequest, closing: trio.CancelScope) -> None:
        """`closing` ends its request as long as that is not answered, and `scope` the body where it is pulled."""
        self.id, self.is_pulled = params.request_id, params.pull_response
        self.closing = closing
        self.scope = trio.CancelScope()
        self.give, self._take = trio.open_memory_channel[HttpBodyPiece](0)

    async def next(self) -> HttpBodyPiece:
        try:
            return await self._take.receive()
        except trio.EndOfChannel:
            raise HttpFailedError("the body was closed while it was read") from None


def _is_streamed(params: HttpRequest) -> bool:
    return params.stream_response or params.pull_response


def _too_slow(params: HttpRequest) -> str:
    return f"not complete within {params.timeout_ms} ms"
