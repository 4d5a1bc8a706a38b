"""The server's side of a runner, for tests: it says plain messages, and remembers what comes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
from msgspec import Struct

from execsrv._processes.supervisor import Supervisor
from execsrv._runner import version_1_messages, version_2_messages
from execsrv._runner.channel import open_channel
from execsrv._runner.frames import AS_SERVER, FrameReader, encode
from execsrv._runner.serve import serve_runner
from execsrv.errors import ProtocolError
from tests.peers import PATIENCE

M = TypeVar("M", bound=Struct)

WINDOW = 1024 * 1024


class RunnerPeer:
    """One who speaks with a runner over a unix socket. Every wait gives up after `PATIENCE`."""

    def __init__(self, stream: socket.socket) -> None:
        self.socket = trio.socket.from_stdlib_socket(stream)
        self.came: list[Struct] = []
        self.bytes: dict[tuple[int, str], bytearray] = defaultdict(bytearray)
        self.status: int | None = None
        """The exit status of a runner in this very process, once it is over."""
        self.complaint = ""
        """The way in which we broke the protocol, by its words."""
        self.gives = True
        """Each byte that comes is credit again."""
        self._frames = FrameReader(AS_SERVER)
        self._looked_at = 0

    async def send(self, *said: Struct) -> None:
        """Send messages."""
        await self.send_bytes(b"".join(map(encode, said)))

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes that need not be frames."""
        left = memoryview(data)
        with trio.fail_after(PATIENCE):
            while left:
                left = left[await self.socket.send(left) :]

    async def send_with(self, said: Struct, *descriptors: int) -> None:
        """Send a message with descriptors."""
        rights = (
            socket.SOL_SOCKET,
            socket.SCM_RIGHTS,
            b"".join(each.to_bytes(4, sys.byteorder) for each in descriptors),
        )
        await self.socket.sendmsg([encode(said)], [rights])

    async def read(self) -> bool:
        """Take in what comes next. Return False at the end."""
        with trio.fail_after(PATIENCE):
            try:
                data = await self.socket.recv(256 * 1024)
            except ConnectionResetError:
                data = b""
        if not data:
            return False
        self._frames.feed(data)
        while (message := self._frames.next()) is not None:
            if isinstance(message, version_2_messages.Data):
                self.bytes[message.id, message.stream] += message.data
                if self.gives:
                    await self.send(version_2_messages.Credit(message.id, message.stream, len(message.data)))  # type: ignore[arg-type]
            elif isinstance(message, version_1_messages.Output):
                self.bytes[0, message.stream] += message.data_b64
            self.came.append(message)
        return True

    async def until(self, kind: type[M], accept: Callable[[M], bool] = lambda message: True) -> M:
        """Return the next message of that kind that is accepted, which may have come already."""
        while True:
            for place in range(self._looked_at, len(self.came)):
                message = self.came[place]
                if isinstance(message, kind) and accept(message):
                    del self.came[place]
                    return message
            if any(isinstance(message, version_2_messages.Error) and message.code == "failed" for message in self.came):
                raise AssertionError(f"the runner has a fault: {self.came}")
            if not await self.read():
                raise AssertionError(f"the runner has hung up; {kind.__name__} did not come, but {self.came}")

    async def until_bytes(self, id: int, stream: str, wanted: bytes) -> None:
        """Wait until a stream has carried these bytes."""
        while wanted not in self.bytes[id, stream]:
            if not await self.read():
                raise AssertionError(f"the runner has hung up; there is {bytes(self.bytes[id, stream])!r}")

    async def until_end(self) -> None:
        """Take in everything that comes, to the end."""
        while await self.read():
            pass

    async def until_over(self, id: int, *streams: str) -> version_2_messages.Exit:
        """Wait until a command is over, with these streams. Return how its leader ended."""
        for stream in streams:
            await self.until(version_2_messages.Eof, lambda eof: eof.id == id and eof.stream == stream)  # noqa: B023
        await self.until(version_2_messages.TreeEmpty, lambda empty: empty.id == id)
        return await self.until(version_2_messages.Exit, lambda exit: exit.id == id)

    async def start(self, id: int, *command: str, **terms: Any) -> int:
        """Start a command. Return its pid."""
        await self.send(request(id, *command, **terms))
        return (await self.until(version_2_messages.SpawnReady, lambda ready: ready.id == id)).process_id

    def hang_up(self) -> None:
        """Close the channel."""
        self.socket.close()


def request(id: int, *command: str, **terms: Any) -> version_2_messages.SpawnRequest:
    """Return a request of version 2."""
    given = {"env": {"PATH": os.environ["PATH"]}, "window": WINDOW, **terms}
    return version_2_messages.SpawnRequest(id, list(command), "/", **given)


@asynccontextmanager
async def open_runner(*, says_hello: bool = True) -> AsyncIterator[RunnerPeer]:
    """Open a runner in this very process, with a guest's means."""
    ours, theirs = socket.socketpair()
    peer = RunnerPeer(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve, peer, theirs)
        try:
            if says_hello:
                await peer.send(version_2_messages.Hello())
                await peer.until(version_2_messages.HelloBack)
            yield peer
        finally:
            peer.hang_up()


async def _serve(peer: RunnerPeer, theirs: socket.socket) -> None:
    with theirs, open_channel(theirs.fileno(), theirs.fileno()) as channel:
        try:
            peer.status = await serve_runner(Supervisor(), channel)
        except ProtocolError as error:
            peer.status, peer.complaint = 1, str(error)


class Program(RunnerPeer):
    """The program `execsrv runner`, with a unix socket for its stdin and stdout."""

    def __init__(self, stream: socket.socket, process: trio.Process) -> None:
        super().__init__(stream)
        self.process = process

    async def wait(self) -> int:
        """Wait for its end, and return its exit status."""
        with trio.fail_after(PATIENCE):
            return await self.process.wait()

    async def said(self) -> str:
        """Return everything that it has said on stderr, once it has ended."""
        assert self.process.stderr is not None
        return bytes(await self.process.stderr.receive_some(65536)).decode()


@asynccontextmanager
async def open_program(
    command: Sequence[str] = (sys.executable, "-m", "execsrv", "runner"), env: Mapping[str, str] | None = None
) -> AsyncIterator[Program]:
    """Open the runner as a program."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = await trio.lowlevel.open_process(
            command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.PIPE, env=env
        )
    program = Program(ours, process)
    try:
        yield program
    finally:
        program.hang_up()
        with trio.move_on_after(PATIENCE, shield=True) as patience:
            await process.wait()
        assert process.stderr is not None
        await process.stderr.aclose()
        if patience.cancelled_caught:
            process.send_signal(signal.SIGKILL)
            raise AssertionError("the runner did not end with its channel")
