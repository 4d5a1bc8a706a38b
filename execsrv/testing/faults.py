"""A line between a client and a server, TCP or unix, that does wrong things at bytes of the test's choice."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal, NamedTuple

import trio

Kind = Literal["cut", "reset", "truncate", "delay", "duplicate", "lose"]
Side = Literal["client", "server"]

_LINGER_NOT = b"\1\0\0\0\0\0\0\0"


class Fault(NamedTuple):
    """`kind` happens to what `side` says, when `at` bytes of it have passed.

    "cut" and "reset" end both directions, "truncate" only this one, "delay" waits for `seconds` before the next byte,
    "duplicate" sends it twice, "lose" not at all.
    """

    kind: Kind
    side: Side
    at: int
    seconds: float = 0.03


class FaultyLine:
    """Passes bytes on. Clients connect to `url`; `passed` counts the bytes of each side, on all connections."""

    def __init__(self, target: str, url: str) -> None:
        self.url = url
        self.passed: dict[Side, int] = {"client": 0, "server": 0}
        self._target = target
        self._faults: list[Fault] = []
        self._happened: Callable[[], None] = lambda: None

    def expect(self, *faults: Fault, happened: Callable[[], None] = lambda: None) -> None:
        """Count from 0 again, and let these happen, one after the other; `happened` is called each time."""
        self.passed = {"client": 0, "server": 0}
        self._faults = list(faults)
        self._happened = happened

    async def carry(self, client: trio.SocketStream) -> None:
        """Carry one connection until either end hangs up or a fault ends it."""
        try:
            if self._target.startswith("unix://"):
                server = await trio.open_unix_socket(self._target.removeprefix("unix://"))
            else:
                host, _, port = self._target.removeprefix("ws://").rpartition(":")
                server = await trio.open_tcp_stream(host, int(port))
        except OSError:
            await trio.aclose_forcefully(client)
            return
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(self._pass, client, server, "client", nursery.cancel_scope)
            nursery.start_soon(self._pass, server, client, "server", nursery.cancel_scope)

    async def _pass(
        self, source: trio.SocketStream, sink: trio.SocketStream, side: Side, line: trio.CancelScope
    ) -> None:
        try:
            async for received in source:
                data, before = bytes(received), self.passed[side]
                self.passed[side] += len(data)
                while self._faults and self._faults[0].side == side and self._faults[0].at < self.passed[side]:
                    fault = self._faults.pop(0)
                    here = max(0, fault.at - before)
                    await sink.send_all(data[:here])
                    data, before = data[here:], before + here
                    self._happened()
                    match fault.kind:
                        case "cut":
                            line.cancel()
                            return
                        case "reset":
                            for stream in (source, sink):
                                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                            line.cancel()
                            return
                        case "truncate":
                            await sink.send_eof()
                            async for _ in source:
                                pass
                            line.cancel()
                            return
                        case "delay":
                            await trio.sleep(fault.seconds)
                        case "duplicate":
                            data, before = data[:1] + data, before - 1
                        case "lose":
                            data, before = data[1:], before + 1
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        line.cancel()


@asynccontextmanager
async def open_faulty_line(target: str, path: str | None = None) -> AsyncIterator[FaultyLine]:
    """Open a line to the server at `target`: `ws://IP:PORT`, or `unix://PATH`, for which it is a unix socket too.

    That is at `path`, or in a new folder, which goes with the block. Raises `ValueError` for another URL.
    """
    with tempfile.TemporaryDirectory(prefix="execsrv-") as folder:
        if target.startswith("unix:///"):
            path = f"{folder}/line" if path is None else path
            near = trio.socket.socket(trio.socket.AF_UNIX)
            await near.bind(path)
            near.listen()
            listener, url = trio.SocketListener(near), f"unix://{path}"
        elif target.startswith("ws://"):
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        else:
            raise ValueError(f"cannot put a line in front of `{target}`: expected `ws://IP:PORT` or `unix://PATH`")
        line = FaultyLine(target, url)
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, line.carry, [listener])
            yield line
            nursery.cancel_scope.cancel()
