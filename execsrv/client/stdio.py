"""A server on its own stdin and stdout, which may say other things before it speaks the protocol.

Login shells greet, and wrappers tell what they do. Lines before the first message are passed over, within a bound, and
quoted where no message follows.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

from execsrv._wire.codecs import Codec
from execsrv._wire.last_word import first_and_last
from execsrv._wire.lines import LineChannel
from execsrv.errors import ConnectionFailedError, ProtocolError
from execsrv.errors.command import shown
from execsrv.limits import KIB, MIB, ClientConfig
from execsrv.protocol import Message, Request

_MOST_BANNER_BYTES = 64 * KIB
_MOST_BANNER_LINES = 1000
_BLANK = b" \t\r\n\xef\xbb\xbf"
"""Nothing in front of a line: white space, and byte order marks."""
_MOST_FIRST_BYTES = MIB
_QUOTED_CHARACTERS = 200
_EXIT_SECONDS = 1.0
"""The wait for the exit status of a server that has ended the connection without a message."""


class PastBanner(trio.abc.ReceiveStream):
    """A stream of lines from its first message on. Takes ownership of the stream below.

    A line that begins with a brace is a message if it can be read as one, and if it is too long to try.
    """

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._lines = 0
        self._banner = bytearray()
        self.is_past = False
        """True once there was a message."""
        self.first: Message | None = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Return what comes, from the first message on. Raises `ProtocolError` for a banner without an end."""
        while not self.is_past:
            data = await self._stream.receive_some(max_bytes)
            if not data:
                self.first = _message(self._buffer)
                self.is_past = self.first is not None
                if self.is_past:
                    break
                return b""
            self._buffer += data
            self._pass_over()
        if self._buffer:
            data, self._buffer = self._buffer, bytearray()
            return data
        return await self._stream.receive_some(max_bytes)

    def _pass_over(self) -> None:
        while self._buffer:
            self._buffer = self._buffer.lstrip(_BLANK)
            if self._buffer.startswith(b"{"):
                line, end, _ = self._buffer.partition(b"\n")
                self.first = _message(line) if end else None
                self.is_past = self.first is not None or len(self._buffer) > _MOST_FIRST_BYTES
                if self.is_past or not end:
                    return
            end_of_line = self._buffer.find(b"\n") + 1
            self._lines += end_of_line > 0
            if len(self._banner) + (end_of_line or len(self._buffer)) > _MOST_BANNER_BYTES or (
                self._lines > _MOST_BANNER_LINES
            ):
                raise ProtocolError("the server says too much before its first message")
            if not end_of_line:
                return
            self._banner += self._buffer[:end_of_line]
            del self._buffer[:end_of_line]

    @property
    def banner(self) -> bytes:
        """All that came before the first message, with the part of a line at its end."""
        return bytes(self._banner if self.is_past else self._banner + self._buffer)

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()


def _message(line: bytes | bytearray) -> Message | None:
    try:
        return Codec().decode(bytes(line.lstrip(_BLANK)))
    except ProtocolError:
        return None


@asynccontextmanager
async def open_stdio(
    stdin: trio.abc.SendStream,
    stdout: trio.abc.ReceiveStream,
    config: ClientConfig,
    explain: Callable[[], Awaitable[str]] | None = None,
    *,
    leaves: bool = False,
) -> AsyncIterator[LineChannel]:
    """Open a channel over the stdin and stdout of a server. Takes ownership of both.

    With `leaves` it is said, when it is closed in order, to who only passes on what is said to the server.

    Raises `ConnectionFailedError` behind the block where the server has said no message in it, with what it said
    instead, and with what `explain` returns.
    """
    past = PastBanner(stdout)
    first, last = first_and_last() if leaves else (None, None)
    channel = LineChannel(stdin, past, config, last)
    if first is not None:
        with suppress(trio.BrokenResourceError):  # of which the handshake tells more
            await channel.send(first)
    failed: ConnectionFailedError | None = None
    try:
        yield channel
    except ConnectionFailedError as error:
        failed = error
    is_echo = isinstance(past.first, Request)
    if past.is_past and failed is None and not is_echo:
        return
    parts = [str(failed).removeprefix("handshake failed: ")] if failed else []
    parts += ["the server sends requests and answers none"] if is_echo else []
    parts += [await explain()] if explain is not None and not past.is_past else []
    if past.banner:
        quoted = _quoted(past.banner)
        parts.append(f"the server said {quoted}" + ("" if past.is_past else " and no message"))
    parts = [part for part in parts if part] or ["the server ended the connection without a message"]
    raise ConnectionFailedError("handshake failed: " + "; ".join(parts)) from failed


def _quoted(said: bytes) -> str:
    """Return the beginning of what a server said, in one line."""
    return f'"{shown(said[: 4 * _QUOTED_CHARACTERS].decode(errors="replace").strip(), _QUOTED_CHARACTERS)}"'


async def explain_exit(server: trio.Process, argv: list[str]) -> str:
    """Return how a server ended that has said nothing, with a guess why. Empty while it runs."""
    with trio.move_on_after(_EXIT_SECONDS):
        await server.wait()
    command = shortened(argv)
    match server.returncode:
        case None:
            return ""
        case 255 if os.path.basename(argv[0]) == "ssh":
            why = " (ssh could not connect)"
        case 127:
            why = " (a program that is not there)"
        case 126:
            why = " (a program that cannot be executed)"
        case code if code < 0:
            return f"{command} died of {signal.Signals(-code).name}"
        case _:
            why = ""
    return f"{command} ended with exit code {server.returncode}{why}"


def shortened(argv: list[str]) -> str:
    """Return a command in backquotes, in one line and cut."""
    return f"`{shown(shlex.join(argv), _QUOTED_CHARACTERS)}`"
