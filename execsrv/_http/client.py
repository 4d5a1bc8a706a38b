"""HTTP client on httpcore. It sends what `request` has prepared, and knows no messages.

httpcore adds nothing to a request and takes nothing from a response, as a relay needs it. It is an extra, and is
imported in a thread at the first request: a server that relays nothing pays nothing for it. The client owns the HTTP
connections, some of which are kept for the next request to the same origin, and the threads that look up names.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit

import trio

from execsrv._http.request import MAX_REDIRECTS, PreparedRequest, Target, proxy_url, redirected
from execsrv._threads import run_with_tls
from execsrv._wire.turns import my_turn
from execsrv.errors import HttpFailedError, HttpUnavailableError
from execsrv.protocol import HttpField

if TYPE_CHECKING:
    import ssl

    import httpcore

_KEPT_CONNECTIONS = 8
_KEPT_SECONDS = 4.0
"""Less than most HTTP servers keep one: a request on one that is being closed would fail."""

_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")

_TURN_SECONDS = 0.001
"""For so long chunks that came together are handled in one turn of the loop."""


class HttpClient:
    """HTTP connections of one channel. `aclose` must follow."""

    def __init__(self) -> None:
        self._tls: ssl.SSLContext | None = None
        self._loading = trio.Lock()
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}  # by the proxy on the way, "" for none
        self._network: httpcore.AsyncNetworkBackend | None = None

    async def aclose(self) -> None:
        """Close every connection, also when cancelled."""
        for pool in self._pools.values():
            await pool.aclose()

    async def close_unused(self) -> None:
        """Close connections once they were kept for long enough, until none is kept. Cancelling leaves the rest open.

        httpcore closes them too, but only when there is another request.
        """
        while any(each.is_idle() and not each.is_closed() for each in self._connections()):
            await trio.sleep(_KEPT_SECONDS)
            for each in self._connections():
                if each.has_expired():
                    await each.aclose()  # the pool finds it closed, and another request takes another

    def _connections(self) -> list[httpcore.AsyncConnectionInterface]:
        return [connection for pool in self._pools.values() for connection in pool.connections]

    async def send(self, exchange: PreparedRequest, follow: bool) -> httpcore.Response:
        """Return the response, or with `follow` the one at the end of all redirects. `open_body` must come next.

        Raises `HttpFailedError` and `HttpUnavailableError`. Cancelling hangs up.
        """
        await self._load()
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._send_one(exchange)
            try:
                following = redirected(exchange, response.status, fields_of(response)) if follow else None
            except HttpFailedError:
                async with open_body(response):
                    raise
            if following is None:
                return response
            async with open_body(response):
                exchange = following
        raise HttpFailedError("http/request failed: too many redirects")

    async def _send_one(self, exchange: PreparedRequest) -> httpcore.Response:
        import httpcore

        from execsrv._http.network import Stream

        target = exchange.target
        request = httpcore.Request(
            exchange.method,
            httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path),
            headers=exchange.header(),
            content=_Body(exchange.body),
        )
        pool = self._pool(target)
        try:
            response = await pool.handle_async_request(request)
        except _errors() as error:
            raise HttpFailedError(f"{sending(exchange)}: {_text_of(error)}", url=target.url) from error
        if isinstance(stream := response.extensions.get("network_stream"), Stream):
            stream.head_is_over()
        return response

    async def _load(self) -> None:
        """Import what is needed and read the certificates, in a thread, since that takes up to 100 ms.

        Cancelling waits for it, unless the disk is slow.
        """
        async with self._loading:
            if self._tls is None:
                try:
                    self._tls = await run_with_tls(_tls_context)
                except ModuleNotFoundError as error:
                    message = f"http/request needs an HTTP client: install `execsrv[http]` on the server ({error})"
                    raise HttpUnavailableError(message) from None

    def _pool(self, target: Target) -> httpcore.AsyncConnectionPool:
        """Return the connections that lead to a target, through a proxy where the environment names one.

        Raises `HttpFailedError` for a proxy that cannot be used.
        """
        import httpcore

        from execsrv._http.network import Network

        if self._network is None:
            self._network = Network()
        url = proxy_url(target, os.environ)
        if url not in self._pools:
            proxy = None
            if url:
                try:
                    proxy = _proxy(url)
                except (ValueError, ModuleNotFoundError) as error:
                    message = f"http/request failed: the proxy that the server's environment names is none: {error}"
                    raise HttpFailedError(message, url=target.url) from error
            self._pools[url] = httpcore.AsyncConnectionPool(
                ssl_context=self._tls,
                proxy=proxy,
                max_connections=None,
                max_keepalive_connections=_KEPT_CONNECTIONS,
                keepalive_expiry=_KEPT_SECONDS,
                network_backend=self._network,
            )
        return self._pools[url]


def _proxy(url: str) -> httpcore.Proxy:
    """Return the proxy of a URL. Raises `ValueError`, and `ModuleNotFoundError` for one that needs another package."""
    import httpcore

    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("its URL is malformed") from None  # the error may quote a piece of a password
    if parts.scheme not in _PROXY_SCHEMES:
        raise ValueError(f"its URL begins with none of {', '.join(_PROXY_SCHEMES)}")
    place = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if not host or not place.isascii():
        raise ValueError("its URL has no host, or is not ASCII")
    if parts.scheme.startswith("socks"):
        import_module("socksio")
    auth = (unquote_to_bytes(parts.username), unquote_to_bytes(parts.password or "")) if parts.username else None
    return httpcore.Proxy(place, auth)


def sending(exchange: PreparedRequest) -> str:
    """Return the beginning of the text for a request that got no response."""
    return f"http/request failed: error sending request for url ({exchange.target.url})"


@asynccontextmanager
async def open_body(response: httpcore.Response) -> AsyncIterator[AsyncIterator[bytes]]:
    """Give the chunks of a body as they come. Leaving before the end hangs up. Raises `HttpFailedError` for a cut body.

    Only a cancel ends all of httpcore's generators in order. So a body that was not read to its end is read on under a
    cancelled scope. At the end of one httpcore lets go of the connection only when it is asked to. It would keep one on
    which more has come than the response.
    """
    from execsrv._http.network import Stream

    chunks = _InTurns(response.aiter_stream())
    try:
        yield chunks
    except _errors() as error:
        raise HttpFailedError(f"error decoding response body: {_text_of(error)}") from error
    finally:
        with trio.CancelScope(shield=True) as end:
            end.cancel()
            try:
                async for _ in chunks:
                    pass
                if isinstance(stream := response.extensions.get("network_stream"), Stream):
                    assert isinstance(response.stream, AsyncIterable)
                    await stream.end(response.stream)
            except _errors():
                pass  # what was left of it was cut as well
            finally:
                await response.aclose()  # which httpcore shields, and which waits for nobody


class _Body:
    """The body of a request, in one piece. For bytes httpcore has a generator, which an early answer leaves open."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._left: list[bytes] = []

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._left = [self._content]
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


class _InTurns:
    """The chunks of a body, of which one read can bring thousands. They let others have their turns.

    Cancelling is noticed by who waits for more, and not between two chunks: see `open_body`.
    """

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._turn_ends = 0.0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if time.perf_counter() >= self._turn_ends:
            with trio.CancelScope(shield=True):
                await my_turn()
            self._turn_ends = time.perf_counter() + _TURN_SECONDS
        return await anext(self._chunks)


def fields_of(response: httpcore.Response) -> list[HttpField]:
    """Return the header of a response, in its order. A value that is not UTF-8 is read as Latin-1."""
    return [HttpField(name.decode("ascii").lower(), _decoded(value)) for name, value in response.headers]


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _text_of(error: Exception) -> str:
    """Return the text of an error or, where that is empty, of the first of its causes that has one."""
    cause: BaseException | None = error
    while cause is not None and not str(cause):
        cause = cause.__cause__ or cause.__context__
    return str(cause or type(error).__name__)


def _tls_context() -> ssl.SSLContext:
    import httpcore

    return httpcore.default_ssl_context()


def _errors() -> tuple[type[Exception], ...]:
    """Return the errors that httpcore raises when the network or the HTTP server fails."""
    import h11
    import httpcore

    return (
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.TimeoutException,
        httpcore.ProxyError,
        httpcore.UnsupportedProtocol,
        httpcore.ConnectionNotAvailable,
        h11.ProtocolError,  # a request that contradicts itself, such as a wrong content-length
    )
