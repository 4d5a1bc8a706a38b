"""Texts to and from a server: by websocket, by unix socket, or by the stdin and stdout of a command."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from execsrv._wire.owners import default_socket
from execsrv._wire.unreachable import CONNECT_ERRORS, why_unreachable
from execsrv._wire.urls import is_unix_url, is_websocket_url, parse_unix, parse_websocket
from execsrv.client.far_commands import parse_exec
from execsrv.errors import ConnectionFailedError, InvalidListenURLError

MOST_BYTES = 64 * 1024 * 1024
"""The longest message that is taken."""


class Texts(Protocol):
    """One connection. Who has sent too much, or what is no text, has ended it."""

    async def send(self, text: str) -> None:
        """Send a message. Raises `trio.BrokenResourceError`."""

    async def receive(self) -> str | None:
        """Return the next message, None at the end."""

    async def cut(self) -> None:
        """Let go of the connection without a word of any protocol."""


class _Websocket:
    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

    async def send(self, text: str) -> None:
        try:
            await self._connection.send_message(text)
        except ConnectionClosed as error:
            raise trio.BrokenResourceError(str(error)) from None

    async def receive(self) -> str | None:
        try:
            message: str | bytes = await self._connection.get_message()
        except ConnectionClosed:
            return None
        return message if isinstance(message, str) else message.decode(errors="replace")

    async def cut(self) -> None:
        await _cut(self._connection)


async def _cut(connection: WebSocketConnection) -> None:
    await trio.aclose_forcefully(connection._stream)  # noqa: SLF001  # the library has no word for it


class _Lines:
    def __init__(self, stdin: trio.abc.SendStream, stdout: trio.abc.ReceiveStream) -> None:
        self._stdin, self._stdout = stdin, stdout
        self._waiting = bytearray()

    async def send(self, text: str) -> None:
        try:
            await self._stdin.send_all(text.encode("utf-8", "surrogatepass") + b"\n")
        except trio.ClosedResourceError as error:
            raise trio.BrokenResourceError(str(error)) from None

    async def receive(self) -> str | None:
        searched = 0
        while (end := self._waiting.find(b"\n", searched)) < 0:
            searched = len(self._waiting)
            try:
                piece = await self._stdout.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not piece or searched > MOST_BYTES:
                return None
            self._waiting += piece
        line = bytes(self._waiting[:end])
        del self._waiting[: end + 1]
        return line.decode(errors="replace")

    async def cut(self) -> None:
        await trio.aclose_forcefully(self._stdin)
        await trio.aclose_forcefully(self._stdout)


@asynccontextmanager
async def open_texts(url: str, token: str | None = None) -> AsyncIterator[Texts]:
    """Connect to the server at `ws://`, `wss://` or `unix://`, or start that of `exec:COMMAND`; hang up at the end.

    Raises `ConnectionFailedError`, for a token that would go to another machine without TLS too.
    """
    async with AsyncExitStack() as stack:
        try:
            texts = await stack.enter_async_context(_opened(url, token))
        except ConnectionFailedError:
            raise
        except InvalidListenURLError as error:
            raise ConnectionFailedError(str(error)) from error
        except CONNECT_ERRORS as error:
            why = why_unreachable(error.__cause__ or error)  # trio-websocket's own error says no more than HTTP failed
            raise ConnectionFailedError(f"cannot connect to `{url}`: {why}") from error
        yield texts


@asynccontextmanager
async def _opened(url: str, token: str | None) -> AsyncIterator[Texts]:
    if is_websocket_url(url):
        if token and not _keeps_a_secret(url):
            raise ConnectionFailedError(
                f"cannot connect to `{url}`: a token is not sent to another machine without TLS; use `wss://`"
            )
        parse_websocket(url)
        headers = [(b"Authorization", f"Bearer {token}".encode())] if token else None
        async with open_websocket_url(url, extra_headers=headers, max_message_size=MOST_BYTES) as connection:
            try:
                yield _Websocket(connection)
            finally:
                # The library leaves the socket open where the other side has closed first.
                with trio.CancelScope(shield=True):
                    await _cut(connection)
    elif is_unix_url(url):
        stream = await trio.open_unix_socket(parse_unix(url, "--url") or default_socket())
        async with stream:
            yield _Lines(stream, stream)
    elif words := parse_exec(url):
        async with _started(words) as lines:
            yield lines
    else:
        raise ConnectionFailedError(
            f"cannot check `{url}`: expected `ws://HOST:PORT`, `wss://HOST:PORT`, `unix://PATH` or `exec:COMMAND`"
        )


def _keeps_a_secret(url: str) -> bool:
    """Return True where what is sent to a websocket is read by nobody on the way: on this machine, or by TLS."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "wss" or parts.hostname == "localhost" or ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False  # a name: who answers to it is told by others


@asynccontextmanager
async def _started(argv: list[str]) -> AsyncIterator[_Lines]:
    process = await trio.lowlevel.open_process(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines = _Lines(process.stdin, process.stdout)
    try:
        yield lines
    finally:
        with trio.CancelScope(shield=True):
            await lines.cut()
            with trio.move_on_after(5):
                await process.wait()
            with suppress(ProcessLookupError):  # it leads its group, which may outlive it
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
