"""A peer that says exactly what a test tells it to, and remembers all that it hears."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any

import msgspec
import trio

from execsrv._wire.channel import MessageChannel
from execsrv._wire.codecs import is_packed
from execsrv.client.greeting_wishes import names_msgpack
from execsrv.protocol import Failure, Message, Notification, Request, Response

PATIENCE = 60.0
"""Seconds after which what was waited for is not coming. A busy machine must not be taken for that."""

MACHINE = {
    "shell": {"name": "sh", "path": "/bin/sh"},
    "executorVersion": "",
    "cwd": "file:///",
    "userHomeDir": "file:///",
    "platformOs": "linux",
    "tempDir": "file:///tmp",
}
"""What a server that is none says of itself in its greeting."""

ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def plain(value: Any) -> Any:
    """The JSON values that a struct, raw JSON, or raw msgpack stands for: bytes are base64."""
    if isinstance(value, msgspec.Raw) and not is_packed(value):
        return msgspec.json.decode(value)
    return msgspec.to_builtins(msgspec.msgpack.decode(value) if isinstance(value, msgspec.Raw) else value)


PAYLOADS = ("chunk", "dataBase64", "bodyBase64", "output")


def with_bytes(params: Any) -> Any:
    """Parameters as they are in msgpack: what is good base64 becomes bytes."""
    if not isinstance(params, dict):
        return params
    return {name: as_bytes(value) if name in PAYLOADS else value for name, value in params.items()}


def as_bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [as_bytes(part) for part in value]
    with suppress(TypeError, ValueError):
        return base64.b64decode(value, validate=True)
    return value


class Peer:
    """Sends plain values and remembers everything that comes. Every wait gives up after `PATIENCE`."""

    def __init__(self, channel: MessageChannel, encoding: str | None = None) -> None:
        """`encoding` is what its handshake asks for."""
        self.channel = channel
        self.encoding = encoding
        self.heard: list[Message] = []
        self.ended = False
        self._news = trio.lowlevel.ParkingLot()
        self._ids = count(1)

    async def listen(self) -> None:
        while (message := await self.channel.receive()) is not None:
            match message:
                case Notification(method, params):
                    message = Notification(method, plain(params))
                case Response(id, result):
                    message = Response(id, plain(result))
            self.heard.append(message)
            self._news.unpark_all()
        self.ended = True
        self._news.unpark_all()

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until the condition holds; what it gave."""
        with trio.move_on_after(PATIENCE):
            while not (value := condition()) and not self.ended:
                await self._news.park()
        if not value:
            why = "the connection ended" if self.ended else f"nothing came in {PATIENCE} s"
            raise AssertionError(f"{why}; heard: {self.heard[-20:]}")
        return value

    async def until_ended(self) -> None:
        with trio.fail_after(PATIENCE):
            while not self.ended:
                await self._news.park()

    async def post(self, method: str, params: Any = None, id: int | str | None = None) -> int | str:
        id = next(self._ids) if id is None else id
        if getattr(self.channel, "is_packed", False):
            params = with_bytes(params)
        await self.channel.send(Request(id, method, params))
        return id

    async def answer(self, id: int | str) -> Response | Failure:
        def answered() -> Response | Failure | None:
            for message in self.heard:
                if isinstance(message, Response | Failure) and message.id == id:
                    return message
            return None

        found = await self.until(answered)
        assert isinstance(found, Response | Failure)
        return found

    async def call(self, method: str, params: Any = None) -> Any:
        """The result; an error fails the test."""
        answer = await self.answer(await self.post(method, params))
        assert isinstance(answer, Response), answer
        return answer.result

    async def refused(self, method: str, params: Any = None) -> tuple[int, str, dict[str, Any]]:
        """Code, message and data of the error; a result fails the test."""
        answer = await self.answer(await self.post(method, params))
        assert isinstance(answer, Failure), answer
        assert isinstance(answer.error.data, dict)
        return answer.error.code, answer.error.message, answer.error.data

    async def handshake(self) -> Any:
        hello = {"clientName": "test"} | ({"encoding": self.encoding} if self.encoding else {})
        self.channel.agree(self.encoding, names_msgpack)
        result = await self.call("initialize", hello)
        assert result.get("encoding") == self.encoding
        await self.channel.send(Notification("initialized", {}))
        return result

    async def start(self, id: str, argv: list[str], **params: Any) -> Any:
        return await self.call("process/start", self.start_params(id, argv, **params))

    def start_params(self, id: str, argv: list[str], **params: Any) -> dict[str, Any]:
        return {"processId": id, "argv": argv, "cwd": "/", "env": ENV, "tty": False, **params}

    def told(self, id: str) -> list[tuple[str, dict[str, Any]]]:
        """Everything heard of one process, as (what, params)."""
        return [
            (message.method.rpartition("/")[2], message.params)
            for message in self.heard
            if isinstance(message, Notification)
            and id in (message.params.get("processId"), message.params.get("sessionId"))
        ]

    def output(self, id: str, *streams: str) -> bytes:
        """What was heard of its output, on these streams or on all."""
        return b"".join(
            base64.b64decode(params["chunk"])
            for _, params in self.told(id)
            if "chunk" in params and (not streams or params["stream"] in streams)
        )

    async def until_told(self, id: str, what: str) -> dict[str, Any]:
        """Wait for a notification of that kind; its params."""
        found = await self.until(lambda: next((params for name, params in self.told(id) if name == what), None))
        assert isinstance(found, dict)
        return found

    async def until_output(self, id: str, wanted: bytes) -> None:
        await self.until(lambda: wanted in self.output(id))

    async def run(self, id: str, argv: list[str], **params: Any) -> tuple[int, bytes, bytes]:
        """Run to the close: exit code, stdout (or terminal) and stderr."""
        await self.start(id, argv, **params)
        await self.until_told(id, "closed")
        exited = await self.until_told(id, "exited")
        return exited["exitCode"], self.output(id, "stdout", "pty"), self.output(id, "stderr")


@asynccontextmanager
async def open_peer(channel: MessageChannel, encoding: str | None = None) -> AsyncIterator[Peer]:
    """A peer that listens as long as the block lasts; then it hangs up."""
    peer = Peer(channel, encoding)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.listen)
            yield peer
            nursery.cancel_scope.cancel()
    finally:
        with trio.move_on_after(1, shield=True):
            await channel.aclose()
