"""The model, played by the test: a loopback HTTP server that the Codex CLI asks what to do next.

The CLI posts the conversation to `/v1/responses` and takes its answer as server-sent events. Each post waits until the
test says what the model answers, with `call` or `finish`; so a test reads as the conversation does, and may look at
the wire or cut it in between.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any

import h11
import trio

from tests.interop.record import PATIENCE

Item = dict[str, Any]


def function(name: str, /, namespace: str | None = None, **arguments: Any) -> Item:
    """A call of a function tool."""
    item = {"type": "function_call", "name": name, "arguments": json.dumps(arguments)}
    return item if namespace is None else {**item, "namespace": namespace}


def custom(name: str, text: str) -> Item:
    """A call of a tool that takes free text."""
    return {"type": "custom_tool_call", "name": name, "input": text}


class Model:
    """See the module. `requests` are the bodies of all posts so far, `strange` all other requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[dict[str, Any]] = []
        self.strange: list[str] = []
        self._asking, self._asked = trio.open_memory_channel[trio.MemorySendChannel[list[Item]]](8)
        self._pending: trio.MemorySendChannel[list[Item]] | None = None
        self._numbers = count(1)

    async def call(self, *items: Item) -> list[Any]:
        """Answer with these calls, all at once; what the CLI tells of each, when it has asked again."""
        named = [{**item, "call_id": f"call_{next(self._numbers)}"} for item in items]
        await self._answer(named)
        await self.until_asked()
        told = {item["call_id"]: item["output"] for item in self.requests[-1]["input"] if "output" in item}
        return [told[item["call_id"]] for item in named]

    async def run(self, cmd: str, **arguments: Any) -> str:
        """Have one command run; what the CLI tells of it. It waits 20 s at most before it says "still running"."""
        told = await self.call(function("exec_command", cmd=cmd, **{"yield_time_ms": 20_000, **arguments}))
        return str(told[0])

    async def finish(self) -> None:
        """Answer with a last message, which ends the CLI."""
        content = [{"type": "output_text", "text": "done"}]
        await self._answer([{"type": "message", "role": "assistant", "content": content}])

    async def until_asked(self) -> None:
        """Wait until the CLI wants to know what to do. Fails the test after `PATIENCE`."""
        if self._pending is None:
            with trio.fail_after(PATIENCE):
                self._pending = await self._asked.receive()

    async def _answer(self, items: list[Item]) -> None:
        await self.until_asked()
        assert self._pending is not None
        pending, self._pending = self._pending, None
        await pending.send(items)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Conversation HTTP with the CLI on one connection until it hangs up."""
        http = h11.Connection(h11.SERVER)
        async with stream:
            try:
                while (request := await _receive(stream, http)) is not None:
                    head, body = request
                    if (head.method, head.target) != (b"POST", b"/v1/responses"):
                        self.strange.append(f"{head.method.decode()} {head.target.decode()}")
                        await _send(stream, http, 404, "text/plain", [])
                        continue
                    self.requests.append(json.loads(body))
                    answering, answer = trio.open_memory_channel[list[Item]](0)
                    await self._asking.send(answering)
                    await _send(stream, http, 200, "text/event-stream", self._events(await answer.receive()))
            except (trio.BrokenResourceError, h11.RemoteProtocolError):
                pass  # it went away, which it may

    def _events(self, items: list[Item]) -> list[bytes]:
        id = f"resp_{next(self._numbers)}"
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        events = [
            {"type": "response.created", "response": {"id": id}},
            *({"type": "response.output_item.done", "item": item} for item in items),
            {"type": "response.completed", "response": {"id": id, "usage": usage}},
        ]
        return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


async def _receive(stream: trio.SocketStream, http: h11.Connection) -> tuple[h11.Request, bytes] | None:
    """The next request and its body; None when there is none any more."""
    head, body = None, b""
    while True:
        event = http.next_event()
        match event:
            case h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some()))
            case h11.Request():
                head = event
            case h11.Data():
                body += event.data
            case h11.EndOfMessage():
                assert head is not None
                return head, body
            case _:
                return None


async def _send(stream: trio.SocketStream, http: h11.Connection, status: int, kind: str, parts: list[bytes]) -> None:
    events: list[h11.Event] = [
        h11.Response(status_code=status, headers=[("content-type", kind), ("transfer-encoding", "chunked")]),
        *(h11.Data(data=part) for part in parts),
        h11.EndOfMessage(),
    ]
    for event in events:
        await stream.send_all(http.send(event) or b"")
    if http.our_state is h11.DONE and http.their_state is h11.DONE:
        http.start_next_cycle()


@asynccontextmanager
async def open_model() -> AsyncIterator[Model]:
    """A model on a free loopback port; leaving ends it."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    model = Model(f"http://127.0.0.1:{port}/v1")
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, model.serve, listeners))
        yield model
        nursery.cancel_scope.cancel()
