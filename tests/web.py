"""A small HTTP server that says exactly what a test wants, byte for byte, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import h11
import trio

Answer = Callable[["Asked"], Awaitable[None]]


class Asked:
    """One request, and the connection to answer it on."""

    def __init__(self, request: h11.Request, body: bytes, stream: trio.abc.Stream) -> None:
        self.line = b" ".join((request.method, request.target)).decode()
        self.fields = [(name.decode(), value.decode()) for name, value in request.headers.raw_items()]
        self.body = body
        self.send = stream.send_all
        self.stream = stream

    def field(self, name: str) -> str | None:
        return next((value for key, value in self.fields if key == name), None)


class Web:
    """Answers each path with what `pages` says: bytes to send before hanging up, or a function that does more."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes | Answer] = {}
        self.asked: list[Asked] = []
        self.port = 0
        self.was_asked = trio.Event()
        self.hung_up = trio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def page(self, path: str, *fields: str, status: str = "200 OK", body: bytes = b"") -> None:
        self.pages[path] = head(*fields, f"Content-Length: {len(body)}", status=status) + body

    async def serve(self, stream: trio.abc.Stream) -> None:
        parser = h11.Connection(h11.SERVER)
        request, body = None, b""
        try:
            while not isinstance(event := parser.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    parser.receive_data(bytes(await stream.receive_some()))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    return
            assert request is not None
            asked = Asked(request, body, stream)
            self.asked.append(asked)
            self.was_asked.set()
            path = request.target.decode().partition("?")[0]
            page = self.pages.get(path, head("Content-Length: 0", status="404 Not Found"))
            if isinstance(page, bytes):
                await stream.send_all(page)
            else:
                await page(asked)
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def never(self, asked: Asked) -> None:
        """Answer nothing, until the other side hangs up."""
        while await asked.stream.receive_some():
            pass
        self.hung_up.set()

    async def half(self, asked: Asked) -> None:
        """Answer three of ten bytes."""
        await asked.send(head("Content-Length: 10") + b"abc")
        await self.never(asked)


def head(*fields: str, status: str = "200 OK") -> bytes:
    """The head of a response after which the server hangs up."""
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "Connection: close", "", ""]).encode("latin-1")


@asynccontextmanager
async def open_web(wrap: Callable[[trio.SocketStream], trio.abc.Stream] = lambda stream: stream) -> AsyncIterator[Web]:
    """A web for the block, on a free port of the loopback; `wrap` may put TLS on its streams."""
    web = Web()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        web.port = listener.socket.getsockname()[1]

        async def serve(stream: trio.SocketStream) -> None:
            await web.serve(wrap(stream))

        nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
        yield web
        nursery.cancel_scope.cancel()
