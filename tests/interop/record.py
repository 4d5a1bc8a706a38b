"""What was said on a wire between the Codex CLI and its exec-server, message by message.

It keeps everything, in the order in which it passed, and answers the questions of the tests. It knows JSON-RPC and
the names of `process/*`; how the messages were heard is the business of whoever adds them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import trio

PATIENCE = 30.0
"""Seconds for anything that has to happen. Only a failure ever waits that long."""

T = TypeVar("T")
Side = Literal["client", "server"]


class Said(NamedTuple):
    """One message: on which connection (the first is 1), by whom, and its JSON value."""

    connection: int
    side: Side
    message: dict[str, Any]


class Record:
    """See the module."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self._news = trio.lowlevel.ParkingLot()

    def add(self, connection: int, side: Side, message: dict[str, Any]) -> None:
        """Remember a message, and wake who waits for it."""
        self.said.append(Said(connection, side, message))
        self._news.unpark_all()

    async def until(self, condition: Callable[[], T]) -> T:
        """Wait until the condition holds; what it gave. Fails the test after `PATIENCE`."""
        with trio.move_on_after(PATIENCE):
            while not (value := condition()):
                await self._news.park()
            return value
        raise AssertionError(f"nothing of the kind in {PATIENCE} s; the last messages: {self.said[-10:]}")

    def asked(self, method: str, connection: int | None = None) -> list[dict[str, Any]]:
        """The params of every request of that method, on one connection or on all."""
        return [request.message.get("params") or {} for request in self._requests(method, connection)]

    def answers(self, method: str, connection: int | None = None) -> list[dict[str, Any]]:
        """The answers to the requests of that method, in the requests' order: messages with `result` or `error`."""
        answers = {
            (said.connection, said.message["id"]): said.message
            for said in self.said
            if said.side == "server" and "method" not in said.message
        }
        keys = [(request.connection, request.message["id"]) for request in self._requests(method, connection)]
        return [answers[key] for key in keys if key in answers]

    def _requests(self, method: str, connection: int | None) -> list[Said]:
        return [
            said
            for said in self.said
            if said.side == "client" and said.message.get("method") == method and connection in (None, said.connection)
        ]

    def methods(self) -> set[str]:
        """Every method that the client has called."""
        return {said.message["method"] for said in self.said if said.side == "client" and "method" in said.message}

    def notified(self, method: str) -> list[dict[str, Any]]:
        """The params of every notification of that method."""
        return [
            said.message["params"]
            for said in self.said
            if said.side == "server" and said.message.get("method") == method
        ]

    def events(self, process: str) -> list[tuple[str, dict[str, Any]]]:
        """What was notified of one process: ("output", "exited" or "closed", params), by number, as the CLI takes it.

        Other servers than execsrv have been seen to send `closed` before `exited`.
        """
        events = [
            (said.message["method"].rpartition("/")[2], said.message["params"])
            for said in self.said
            if said.side == "server"
            and str(said.message.get("method", "")).startswith("process/")
            and said.message["params"]["processId"] == process
        ]
        return sorted(events, key=lambda event: int(event[1]["seq"]))

    def output(self, process: str, *streams: str) -> bytes:
        """The output that was notified of one process, on these streams or on all."""
        return b"".join(
            base64.b64decode(params["chunk"])
            for what, params in self.events(process)
            if what == "output" and (not streams or params["stream"] in streams)
        )

    def typed(self, process: str) -> bytes:
        """The input that the client has sent to one process."""
        return b"".join(
            base64.b64decode(params["chunk"])
            for params in self.asked("process/write")
            if params["processId"] == process
        )

    async def until_started(self, count: int = 1) -> list[str]:
        """Wait until that many commands were asked for; the ids of all."""
        await self.until(lambda: len(self.asked("process/start")) >= count)
        return [params["processId"] for params in self.asked("process/start")]

    async def until_output(self, process: str, wanted: bytes) -> None:
        """Wait until a process has said this."""
        await self.until(lambda: wanted in self.output(process))

    def check_whole(self, process: str) -> None:
        """A process from its start to its end: numbered from 1, no gap, nothing twice, `closed` last."""
        events = self.events(process)
        assert [params["seq"] for _, params in events] == list(range(1, len(events) + 1)), events
        assert [what for what, _ in events if what != "output"] == ["exited", "closed"], events
        assert events[-1][0] == "closed", events
