# Written by tests/facades.py from execsrv.client.http: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client under asyncio. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

from typing import Any, Self

from execsrv._portal.awaiting import Facade, Held, Opening
from execsrv.client.http import Headers, HttpAnswer
from execsrv.client.http import Http as TrioHttp
from execsrv.client.http import HttpStream as TrioHttpStream
from execsrv.client.parameters import Data


class HttpStream(Held, of=TrioHttpStream):
    """A response whose body is read while it comes: `async for chunk in response`. For one task."""

    @property
    def ok(self) -> bool:
        """True for a status below 400."""
        return self._get("ok")

    def header(self, name: str) -> str | None:
        """Return the first header field of this name, None where there is none."""
        return self._plain("header", name)

    @property
    def text(self) -> str:
        """Body as text, in the charset that its header names, or UTF-8. Raises `UnicodeDecodeError`."""
        return self._get("text")

    def json(self) -> Any:
        """Return what the body says in JSON. Raises `ValueError` for anything else."""
        return self._plain("json")

    @property
    def url(self) -> str:
        """The URL that was asked for."""
        return self._get("url")

    @property
    def status(self) -> int:
        """Status code."""
        return self._get("status")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Header fields."""
        return self._get("headers")

    @property
    def body(self) -> bytes:
        """Body as it came, compressed if the server of the web has compressed it. Empty for a stream."""
        return self._get("body")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece. Cancelling loses nothing.

        Raises `HttpFailedError` for a body that was cut, after what there is of it.
        """
        return await self._take("__anext__")


class Http(Facade, of=TrioHttp):
    """HTTP requests that the server makes, from where it is, with what only it has."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Headers = (),
        body: Data | str | None = None,
        timeout: float | None = None,
        follow_redirects: bool = True,
    ) -> HttpAnswer:
        """Make a request, and return the response with its body, whatever the status.

        `timeout` counts, in seconds, to the end of the body. Raises `HttpFailedError` for no whole response,
        `HttpUnavailableError` where the server makes no requests, `LimitExceededError` for a large body, which
        `stream` takes, and `ConnectionLostError`: a request is never made again after an interruption. Cancelling
        hangs up.
        """
        return await self._wait(
            "request", method, url, headers=headers, body=body, timeout=timeout, follow_redirects=follow_redirects
        )

    def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Headers = (),
        body: Data | str | None = None,
        timeout: float | None = None,
        follow_redirects: bool = True,
    ) -> Opening[HttpStream]:
        """Make a request, and give the response as soon as its headers have arrived. The block reads the body in
        pieces.

        A body that is read slowly makes its sender wait. Leaving the block hangs up. Raises as `request` does.
        """
        return self._enter(
            "stream", method, url, headers=headers, body=body, timeout=timeout, follow_redirects=follow_redirects
        )
