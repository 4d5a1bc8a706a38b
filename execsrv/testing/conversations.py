"""Conversations of clients with a server: recorded from a real one, and played again without it.

A file has a line of JSON for each connection: `{"steps": [{"dir": "c2s", "msg": {...}}, {"dir": "s2c", ...}]}`. It may
be edited: a value of "..." in what a client says stands for anything.

All of it happens in threads, over unix sockets, so that it fits every kind of test.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

ANYTHING = "..."
_UNORDERED = frozenset({"process/ack"})
"""Requests whose number depends on how fast a client reads: they are answered, and not compared."""


class ConversationError(AssertionError):
    """A client has said something else than what was recorded, or what was recorded cannot be played."""


@contextmanager
def recording(target: str, path: str | os.PathLike[str]) -> Iterator[str]:
    """Record, in this block, what clients and the server at `target` say, and give the URL for those clients.

    Both are unix sockets. The file is written at the end of the block, also where that raises: with what was said. A
    line that is no JSON object is passed on, and not recorded.
    """
    if not target.startswith("unix:///"):
        raise ValueError(f"cannot record `{target}`: expected `unix://PATH`")
    conversations: list[list[dict[str, Any]]] = []

    def carry(client: socket.socket) -> None:
        steps: list[dict[str, Any]] = []
        conversations.append(steps)
        with closing(socket.socket(socket.AF_UNIX)) as server:
            server.connect(target.removeprefix("unix://"))
            back = threading.Thread(target=_copy, args=(server, client, "s2c", steps), daemon=True)
            back.start()
            _copy(client, server, "c2s", steps)
            back.join()

    try:
        with _listening(carry) as url:
            yield url
    finally:
        with open(path, "w") as file:
            for steps in conversations:
                file.write(json.dumps({"steps": steps}) + "\n")


def _copy(source: socket.socket, sink: socket.socket, direction: str, steps: list[dict[str, Any]]) -> None:
    with source.makefile("rb") as lines, suppress(OSError):
        for line in lines:
            if (said := _message(line)) is not None:
                message = _in_json(said)
                steps.append({"dir": direction, "msg": message})  # before its answer can be
                if message is not said:
                    line = json.dumps(message).encode() + b"\n"
            sink.sendall(line)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _message(line: str | bytes) -> dict[str, Any] | None:
    """Return the object in a line of JSON, None where it is something else."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _in_json(message: dict[str, Any]) -> dict[str, Any]:
    """Return what a client says without its wish for another encoding, so that all of it is JSON."""
    params = message.get("params")
    if message.get("method") != "initialize" or not isinstance(params, dict) or "encoding" not in params:
        return message
    return {**message, "params": {name: value for name, value in params.items() if name != "encoding"}}


@contextmanager
def replaying(path: str | os.PathLike[str]) -> Iterator[str]:
    """Play, in this block, the server of a recording, and give its URL.

    The first client has the first conversation, the next the next one. Each has to say what was recorded, in an order
    in which every answer still comes behind its request; ids of requests may differ. Raises `ConversationError` at the
    end of the block for a client that has said something else, or not all, and at once for a line of the file that is
    no conversation.
    """
    waiting: list[_Conversation] = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                waiting.append(_Conversation(_steps(line, f"{os.fspath(path)}, line {number}")))
    waiting.reverse()
    failures: list[str] = []
    begun: list[_Conversation] = []

    def play(client: socket.socket) -> None:
        if not waiting:
            failures.append("one client more than was recorded")
            return
        begun.append(conversation := waiting.pop())
        try:
            conversation.play(client)
        except ConversationError as error:
            failures.append(str(error))

    with _listening(play) as url:
        yield url
    if failures:
        raise ConversationError("; ".join(failures))
    if not begun:
        raise ConversationError("no client has come")


def _steps(line: bytes, where: str) -> list[dict[str, Any]]:
    """Return the steps in a line of a recording. Raises `ConversationError`, which tells `where` that is."""
    steps = (_message(line) or {}).get("steps")
    if not isinstance(steps, list):
        raise ConversationError(f'{where}: expected `{{"steps": [...]}}`')
    for number, step in enumerate(steps, 1):
        match step:
            case {"dir": "c2s" | "s2c", "msg": dict()}:
                continue
        raise ConversationError(f'{where}, step {number}: expected `{{"dir": "c2s" or "s2c", "msg": {{...}}}}`')
    return steps


class _Conversation:
    """The steps of one connection, from the side of the server."""

    def __init__(self, steps: list[dict[str, Any]]) -> None:
        passed_over = {_id(step["msg"]) for step in steps if step["msg"].get("method") in _UNORDERED} - {None}
        self._steps = [
            step
            for step in steps
            if step["msg"].get("method") not in _UNORDERED
            and not (step["dir"] == "s2c" and "method" not in step["msg"] and _id(step["msg"]) in passed_over)
        ]
        self._ids: dict[Any, Any] = {}
        self._heard: list[dict[str, Any]] = []

    def play(self, client: socket.socket) -> None:
        """Say the server's part. Raises `ConversationError`."""
        with client.makefile("rb") as lines:
            for number, step in enumerate(self._steps):
                message = step["msg"]
                if step["dir"] == "c2s":
                    self._expect(number, message, lines, client)
                else:
                    if "method" not in message and "id" in message:
                        message = {**message, "id": self._ids.get(_id(message), message["id"])}
                    with suppress(OSError):
                        _say(client, message)
            while (said := _said(lines)) is not None:
                if said.get("method") not in _UNORDERED:
                    raise ConversationError(f"said behind the end of what was recorded: {_shown(said)}")

    def _expect(self, number: int, wanted: dict[str, Any], lines: Any, client: socket.socket) -> None:
        while (found := next((said for said in self._heard if _fits(wanted, said)), None)) is None:
            if (said := _said(lines)) is None:
                raise ConversationError(f"not said: {_shown(wanted)}")
            if said.get("method") in _UNORDERED:
                with suppress(OSError):
                    _say(client, {"id": said.get("id"), "result": {}})
                continue
            if not any(step["dir"] == "c2s" and _fits(step["msg"], said) for step in self._steps[number:]):
                raise ConversationError(f"said: {_shown(said)}; recorded: {_shown(wanted)}")
            self._heard.append(said)
        self._heard.remove(found)
        if "id" in found:
            self._ids[_id(wanted)] = found["id"]


def _said(lines: Any) -> dict[str, Any] | None:
    """Return the next message of a client, None at its end. Raises `ConversationError` for what is no message."""
    try:
        line = lines.readline()
    except OSError:  # it has hung up and left an answer unread
        return None
    if not line:
        return None
    if (said := _message(line)) is None:
        raise ConversationError(f"said what is no message: {line[:300]!r}")
    return _in_json(said)


def _id(message: dict[str, Any]) -> str | None:
    """Return the id of a message as JSON, in which 1 and "1" are two."""
    return json.dumps(message["id"]) if "id" in message else None


def _fits(wanted: dict[str, Any], said: dict[str, Any]) -> bool:
    return wanted.get("method") == said.get("method") and _same(wanted.get("params"), said.get("params"))


def _same(wanted: Any, said: Any) -> bool:
    if wanted == ANYTHING:
        return True
    if isinstance(wanted, dict) and isinstance(said, dict):
        return wanted.keys() == said.keys() and all(_same(value, said[name]) for name, value in wanted.items())
    if isinstance(wanted, list) and isinstance(said, list):
        return len(wanted) == len(said) and all(map(_same, wanted, said))
    return bool(wanted == said)


def _say(client: socket.socket, message: dict[str, Any]) -> None:
    client.sendall(json.dumps(message).encode() + b"\n")


def _shown(message: dict[str, Any]) -> str:
    text = json.dumps(message)
    return f"{text[:300]}..." if len(text) > 300 else text


@contextmanager
def _listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve each client of a new unix socket in a thread of its own. Leaving the block hangs up, and waits for them."""
    with tempfile.TemporaryDirectory(prefix="execsrv-") as folder, closing(socket.socket(socket.AF_UNIX)) as listener:
        path = f"{folder}/socket"
        listener.bind(path)
        listener.listen()
        clients: list[socket.socket] = []
        threads: list[threading.Thread] = []

        def one(client: socket.socket) -> None:
            with suppress(OSError):
                serve(client)
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return  # it was shut down
                clients.append(client)
                threads.append(threading.Thread(target=one, args=(client,), daemon=True))
                threads[-1].start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield f"unix://{path}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for client in clients:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
            for client in clients:
                client.close()
