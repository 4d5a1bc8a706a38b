"""How a pool asks its directory, of whichever kind, which servers there are."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import trio

from execsrv.directories import Directory, Endpoint
from execsrv.errors import ConnectionFailedError, InvalidParamsError
from execsrv.pool.labels import is_labels

_ANSWER_SECONDS = 10.0

Ask = Callable[[], Awaitable[list[Endpoint]]]


def asks(servers: Directory | Iterable[Endpoint | str]) -> Ask:
    """Return what gives the servers that there are. Raises `TypeError` for what is no directory, and no list."""
    if isinstance(servers, str | bytes) or not (callable(servers) or isinstance(servers, Iterable)):
        raise TypeError(f"servers must be a directory, or a list of URLs, got {type(servers).__name__}")
    if callable(servers):
        return _Asked(servers)
    endpoints = _endpoints([*servers])
    if not endpoints:
        raise InvalidParamsError("servers must not be empty", field="servers")

    async def listed() -> list[Endpoint]:
        return endpoints

    return listed


class _Asked:
    """A directory that is asked each time."""

    def __init__(self, directory: Callable[[], Any]) -> None:
        self._directory = directory
        self._is_async = any(map(inspect.iscoroutinefunction, (directory, getattr(directory, "__call__", None))))  # noqa: B004
        self._thread = trio.CapacityLimiter(1)

    def __repr__(self) -> str:
        return repr(self._directory)

    async def __call__(self) -> list[Endpoint]:
        """Return the servers. Raises what the directory raises, and `ConnectionFailedError` where it takes too long."""
        with trio.move_on_after(_ANSWER_SECONDS):
            if self._is_async:
                return _endpoints(await self._directory())
            found = await trio.to_thread.run_sync(self._directory, limiter=self._thread, abandon_on_cancel=True)
            return _endpoints(await found if inspect.isawaitable(found) else found)
        raise ConnectionFailedError(f"the directory has not answered within {_ANSWER_SECONDS:g} s")


def _endpoints(found: Iterable[Endpoint | str]) -> list[Endpoint]:
    """Return each server once, by its URL. Raises `TypeError`, and `InvalidParamsError` for a field that is wrong."""
    if isinstance(found, str | bytes):
        raise TypeError(f"a directory must give a list of servers, got {found!r}")
    endpoints: dict[str, Endpoint] = {}
    for each in found:
        endpoint = Endpoint(each) if isinstance(each, str) else each
        if not isinstance(endpoint, Endpoint):
            raise TypeError(f"a server must be a URL or an Endpoint, got {type(each).__name__}")
        _check(endpoint)
        endpoints.setdefault(endpoint.url, endpoint)
    return [*endpoints.values()]


def _check(endpoint: Endpoint) -> None:
    """Raise `TypeError` for a server that is no text, and `InvalidParamsError` for one with room for less than none."""
    if not isinstance(endpoint.url, str):
        raise TypeError(f"the URL of a server must be a string, got {endpoint.url!r}")
    if not is_labels(endpoint.labels):
        raise TypeError(f"labels of {endpoint.url} must be a mapping of strings, got {endpoint.labels!r}")
    if endpoint.free is not None and (type(endpoint.free) is not int or endpoint.free < 0):
        raise InvalidParamsError(
            f"free of {endpoint.url} must be a number from 0 on, got {endpoint.free!r}", field="free"
        )
