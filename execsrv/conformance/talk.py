"""A client of the kit: says exactly what a case tells it to, and remembers all that it hears."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import trio

from execsrv.conformance.reaching import Texts

UNKNOWN_METHOD = -32601

_MOST_CHARACTERS = 64 * 1024 * 1024
"""Characters that are heard on one connection. No case lets a server say nearly as much."""


class DiffersError(Exception):
    """The server does something else than it should."""


class AbsentError(Exception):
    """The server has nothing of the kind."""


def expect(what: str, got: object, wanted: object) -> None:
    """Raise `DiffersError` where it is not what is wanted."""
    if got != wanted:
        raise DiffersError(f"{what}: {shown(got)}; expected {shown(wanted)}")


def shown(value: object) -> str:
    """Return a value for people, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | str | bool | None) else repr(value)
    return f"{text[:200]}..." if len(text) > 200 else text


class Talk:
    """One connection. Each wait for what does not come ends with the time of the case."""

    def __init__(self, texts: Texts) -> None:
        self.heard: list[dict[str, Any]] = []
        self.has_ended = False
        self._texts = texts
        self._ids = count(1)
        self._news = trio.lowlevel.ParkingLot()

    async def listen(self) -> None:
        """Hear all that the server says, until it hangs up."""
        left = _MOST_CHARACTERS
        while (text := await self._texts.receive()) is not None:
            if (left := left - len(text)) < 0:
                raise DiffersError(f"said more than {_MOST_CHARACTERS} characters, which nobody has asked for")
            message = json.loads(text)
            if not isinstance(message, dict):
                raise DiffersError(f"said what is no message: {shown(text)}")
            self.heard.append(message)
            self._news.unpark_all()
        self.has_ended = True
        self._news.unpark_all()

    async def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for what a condition gives. Raises `DiffersError` when the connection ends before."""
        while not (value := condition()):
            if self.has_ended:
                raise DiffersError(f"the connection ended before there was {what}")
            await self._news.park()
        return value

    async def until_ended(self) -> None:
        """Wait until the server hangs up."""
        while not self.has_ended:
            await self._news.park()

    async def cut(self) -> None:
        """Lose the connection."""
        await self._texts.cut()

    # -- messages --

    async def send(self, message: dict[str, Any] | str) -> None:
        """Send a message, or a text that is none. It may be that nobody takes it any more."""
        with suppress(trio.BrokenResourceError):
            await self._texts.send(message if isinstance(message, str) else json.dumps(message))

    async def post(self, method: str, params: Any, id: int | str | None = None) -> int | str:
        """Send a request, and return its id."""
        id = next(self._ids) if id is None else id
        await self.send({"id": id, "method": method, "params": params})
        return id

    async def answer(self, id: int | str) -> dict[str, Any]:
        """Wait for the answer to a request."""

        def found() -> dict[str, Any] | None:
            return next(
                (
                    message
                    for message in self.heard
                    if "method" not in message and message.get("id") == id and type(message["id"]) is type(id)
                ),
                None,
            )

        answer: dict[str, Any] = await self.until(found, f"an answer to request {id!r}")
        return answer

    async def call(self, method: str, params: Any) -> Any:
        """Return the result of a request. Raises `AbsentError` where the server knows no such method."""
        answer = await self.answer(await self.post(method, params))
        if "result" not in answer:
            self._check_there(method, answer)
            raise DiffersError(f"{method} {shown(params)} was refused: {shown(answer.get('error'))}")
        return answer["result"]

    async def refused(self, method: str, params: Any, code: int, words: str = "") -> dict[str, Any]:
        """Return the error of a request, which has to have that code, and those words in its message."""
        answer = await self.answer(await self.post(method, params))
        error = answer.get("error")
        if not isinstance(error, dict):
            raise DiffersError(
                f"{method} {shown(params)} was answered {shown(answer.get('result'))}; expected an error"
            )
        if code != UNKNOWN_METHOD:
            self._check_there(method, answer)
        expect(f"code of the error ({error.get('message')})", error.get("code"), code)
        if words not in str(error.get("message")):
            raise DiffersError(f"message of the error: {shown(error.get('message'))}; expected `{words}` in it")
        return error

    def _check_there(self, method: str, answer: dict[str, Any]) -> None:
        if answer.get("error", {}).get("code") == UNKNOWN_METHOD:
            raise AbsentError(f"no method `{method}`")

    async def greet(self, **params: Any) -> Any:
        """Do the handshake, and return the greeting of the server."""
        greeting = await self.call("initialize", {"clientName": "conformance", **params})
        await self.send({"method": "initialized", "params": {}})
        return greeting

    # -- processes --

    async def start(self, id: str, argv: list[str], **params: Any) -> Any:
        """Start a process, of the process dialect."""
        return await self.call("process/start", started(id, argv, **params))

    def told(self, method: str, id: str) -> list[dict[str, Any]]:
        """Return what was told of a process by one method, in either dialect."""
        return [
            message["params"]
            for message in self.heard
            if message.get("method") == method
            and id in (message["params"].get("processId"), message["params"].get("sessionId"))
        ]

    def output(self, id: str, *streams: str, method: str = "process/output") -> bytes:
        """Return what a process has printed so far, on these streams or on all."""
        return b"".join(
            base64.b64decode(params["chunk"])
            for params in self.told(method, id)
            if not streams or params["stream"] in streams
        )

    async def until_told(self, method: str, id: str) -> dict[str, Any]:
        """Wait for a notification about a process."""
        told: list[dict[str, Any]] = await self.until(lambda: self.told(method, id), f"{method} of {id}")
        return told[0]

    async def until_output(self, id: str, wanted: bytes) -> None:
        """Wait until a process has printed something."""
        await self.until(lambda: wanted in self.output(id), f"output {wanted!r} of {id}")

    async def run(self, id: str, argv: list[str], **params: Any) -> tuple[int, bytes]:
        """Run a process to its close; return its exit code, and what it has printed on stdout or its terminal."""
        await self.start(id, argv, **params)
        await self.until_told("process/closed", id)
        return (await self.until_told("process/exited", id))["exitCode"], self.output(id, "stdout", "pty")


ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}


def started(id: str, argv: list[str], **params: Any) -> dict[str, Any]:
    """Return the parameters of a start."""
    return {"processId": id, "argv": argv, "cwd": "file:///", "env": ENV, "tty": False, **params}


def b64(data: bytes) -> str:
    """Return bytes as the wire has them."""
    return base64.b64encode(data).decode()
