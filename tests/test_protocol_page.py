"""A user who knows the pages on the protocol and nothing else.

Every exchange on them is replayed against a daemon, with JSON and nothing of execsrv; and every row of the tables of
docs/protocol.md is in one of them. How an exchange is written, that page says itself.
"""

from __future__ import annotations

import array
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio_websocket
import wsproto.utilities

from tests.conftest import end
from tests.web import head, open_web

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "protocol.md").read_text()
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PATIENCE = 60.0

HANDSHAKE = ['{"id":1,"method":"initialize","params":{"clientName":"page"}}', '{"method":"initialized"}']
ON_UNIX = "--listen unix://"
NEW, CLOSE_STDIN, LOST = "(a new connection)", "(the client closes its stdin)", "(the channel of `->` is lost)"
SIGTERM = "(SIGTERM to the server)"
MARKS = {"-": "->", "=": "=>"}  # of the channel that an answer comes on

FOLDER, WEB = "/tmp/work", "127.0.0.1:8080"  # on the pages; a test has its own
TOKEN = {"TOKEN_OF_X": "secret"}
OF_THE_MACHINE = {
    "atMs",
    "timeLeftMs",
    "userHomeDir",
    "codexHomeDir",
    "hostname",
    "size",
    "createdAtMs",
    "modifiedAtMs",
}
OF_THE_MACHINE |= {"ageMs", "endsInMs", "cpuMs", "cpuSeconds", "memoryBytes", "connectionId", "principal", "secret"}
OF_THE_MACHINE |= {"modifiedAtNs", "accessedAtNs", "changedAtNs", "userId", "groupId", "inode", "device"}


# -- reading the page --


def exchanges(page: str) -> Iterator[list[str]]:
    """The lines of each exchange, as they were before they were broken."""
    for block in re.findall(r"^```text\n(.*?)^```", page, re.S | re.M):
        lines = block.replace("\n   ", "").splitlines()
        if any(line.startswith(("->", "=>")) for line in lines):
            yield lines


PAGES = ("protocol.md", "session.md", "files.md", "relay.md", "environment.md", "sharing.md")
EXCHANGES = [lines for name in PAGES for lines in exchanges((DOCS / name).read_text())]


def title(lines: list[str]) -> str:
    found = re.search(r'"id":(?:[2-9]|"a"),"method":"([^"]*)"', "".join(lines))
    return found[1] if found else lines[0][:20]


def over(transport: str, lines: list[str]) -> bool:
    """Whether an exchange makes sense on a transport."""
    if ON_UNIX in lines[0]:
        return transport == "unix"
    if transport == "unix":
        return False
    if transport == "stdio":
        return "--listen" not in lines[0] and not any(line.startswith("=>") for line in lines)
    return CLOSE_STDIN not in lines


# -- talking --


class Channel:
    """What came over one channel and was not expected yet."""

    def __init__(self, send: Callable[[str], Awaitable[Any]], close: Callable[[], Awaitable[Any]]) -> None:
        self.send = send
        self.close = close
        self.heard: list[Any] = []
        self.ended = False
        self.news = trio.lowlevel.ParkingLot()

    async def listen(self, messages: AsyncIterator[str | bytes]) -> None:
        async for message in messages:
            self.heard.append(json.loads(message))
            self.news.unpark_all()
        self.ended = True
        self.news.unpark_all()

    async def attach(self, text: str) -> None:
        """Send that until the server has noticed that the channel before is lost."""
        with trio.fail_after(PATIENCE):
            while True:
                await self.send(text)
                while not self.heard:
                    await self.news.park()
                if self.heard[-1].get("error", {}).get("code") != -32010:
                    return
                self.heard.pop()

    async def expect(self, expected: Any, bound: dict[str, str]) -> None:
        """Wait for that message. What the page has in front of it has come before, in whatever order."""
        with trio.fail_after(PATIENCE):
            while True:
                for index, message in enumerate(self.heard):
                    if same(expected, message, bound):
                        del self.heard[index]
                        return
                assert not self.ended, f"the end came instead of {expected}; there was {self.heard}"
                try:
                    await self.news.park()
                except trio.Cancelled:
                    print(f"expected {expected}\nheard {self.heard}")
                    raise


def same(expected: Any, heard: Any, bound: dict[str, str], key: str = "") -> bool:
    """Whether that is what the page shows, but for what differs from machine to machine and from run to run."""
    if key == "environmentInfo":
        return bool(expected.keys() == heard.keys())
    if key in OF_THE_MACHINE:
        return type(expected) is type(heard)
    if key == "remaining":  # who is about to end may still be there
        return bool(heard or not expected)
    if key == "treeEmpty":  # a layer of the machine's
        return bool((expected is None) == (heard is None))
    if key in ("pid", "sleeps"):
        return isinstance(heard, int)
    if key == "sessionId" and UUID.fullmatch(str(expected)) and UUID.fullmatch(str(heard)):
        return bool(bound.setdefault(expected, heard) == heard)
    if isinstance(expected, dict) and isinstance(heard, dict):
        return expected.keys() == heard.keys() and all(same(expected[k], heard[k], bound, k) for k in expected)
    if isinstance(expected, list) and isinstance(heard, list):
        if expected == ["..."]:
            return True
        return len(expected) == len(heard) and all(same(*pair, bound) for pair in zip(expected, heard, strict=True))
    if isinstance(expected, str) and isinstance(heard, str):
        expected = UUID.sub(lambda found: bound.get(found[0], found[0]), expected)
        return re.fullmatch(".*".join(map(re.escape, expected.split("..."))), heard) is not None
    return bool(expected == heard)


@asynccontextmanager
async def daemon(*args: str) -> AsyncIterator[trio.Process]:
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-m", "execsrv", "serve", *args]
        process = await nursery.start(
            partial(
                trio.run_process,
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | TOKEN,
                check=False,
                deliver_cancel=end,
            )
        )
        yield process
        nursery.cancel_scope.cancel()


async def lines_of(stream: trio.abc.ReceiveStream) -> AsyncGenerator[bytes, None]:
    buffer = b""
    async for data in stream:
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            yield line


async def frames_of(websocket: trio_websocket.WebSocketConnection) -> AsyncIterator[str | bytes]:
    while True:
        try:
            yield await websocket.get_message()
        except trio_websocket.ConnectionClosed:
            return


@asynccontextmanager
async def open_stdio(process: trio.Process) -> AsyncIterator[Channel]:
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None
    async with trio.open_nursery() as nursery:
        channel = Channel(lambda text: stdin.send_all(text.encode() + b"\n"), stdin.aclose)
        nursery.start_soon(channel.listen, lines_of(stdout))
        yield channel
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_unix(path: str, came: list[int]) -> AsyncIterator[Channel]:
    """A unix socket, and what comes along."""
    with trio.socket.socket(socket.AF_UNIX) as connection:
        await connection.connect(path)

        async def lines() -> AsyncIterator[bytes]:
            buffer = b""
            while True:
                data, things, *_ = await connection.recvmsg(65536, socket.CMSG_SPACE(12), socket.MSG_CMSG_CLOEXEC)
                for _level, _kind, content in things:
                    came.extend(array.array("i", content))
                *whole, buffer = (buffer + data).split(b"\n")
                for line in whole:
                    yield line

        async with trio.open_nursery() as nursery:
            channel = Channel(lambda text: connection.send(text.encode() + b"\n"), trio.lowlevel.checkpoint)
            nursery.start_soon(channel.listen, lines())
            yield channel
            nursery.cancel_scope.cancel()


class Reader:
    """The nursery of the library's reader, which fails where the server's ping comes behind its own close frame."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.closing = trio.CancelScope()
        self._nursery = nursery

    def start_soon(self, read: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._run, read)

    async def _run(self, read: Callable[[], Awaitable[None]]) -> None:
        try:
            await read()
        except wsproto.utilities.LocalProtocolError:
            self.closing.cancel()  # nobody else would end the wait for the server's close frame


@asynccontextmanager
async def open_websocket(url: str) -> AsyncIterator[Channel]:
    address = url.removeprefix("ws://")
    host, _, port = address.partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
        reader = Reader(nursery)
        websocket = await trio_websocket.wrap_client_stream(cast(trio.Nursery, reader), stream, address, "/")

        async def close() -> None:
            with reader.closing:
                await websocket.aclose()

        channel = Channel(websocket.send_message, close)
        nursery.start_soon(channel.listen, frames_of(websocket))
        yield channel
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_pages() -> AsyncIterator[str]:
    """The HTTP server that docs/relay.md talks with: its address."""
    async with open_web() as web:
        web.page("/x", "Content-Type: text/plain", body=b"hello\n")
        web.pages["/s"] = head("Transfer-Encoding: chunked") + b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n"
        web.pages["/cut"] = head("Content-Length: 10") + b"abc"
        yield f"127.0.0.1:{web.port}"


async def replay(lines: list[str], opened: Callable[[], AbstractAsyncContextManager[Channel]], pid: int) -> None:
    """Say and expect what these lines have, on channels of this kind to the server with this pid."""
    bound: dict[str, str] = {}
    channels: dict[str, Channel] = {}
    lost = False
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        lines = [line.replace(FOLDER, folder) for line in lines]
        if any(WEB in line for line in lines):
            web = await stack.enter_async_context(open_pages())
            lines = [line.replace(WEB, web) for line in lines]
        for line in lines:
            mark, text = line[:2], UUID.sub(lambda found: bound.get(found[0], found[0]), line[3:])
            if mark in ("->", "=>"):
                if mark not in channels:
                    channels[mark] = await stack.enter_async_context(opened())
                    if mark == "->" and NEW not in lines:
                        for message in HANDSHAKE:
                            await channels[mark].send(message)
                        await channels[mark].expect({"id": 1, "result": INITIALIZED}, bound)
                await (channels[mark].attach(text) if lost else channels[mark].send(text))
                lost = False
            elif mark in ("<-", "<="):
                await channels[MARKS[mark[1]]].expect(json.loads(line[3:]), bound)
            elif line == CLOSE_STDIN:
                await channels["->"].close()
            elif line == LOST:
                await channels.pop("->").close()
                lost = True
            elif line == SIGTERM:
                os.kill(pid, signal.SIGTERM)
            elif line.startswith("$") and not line.startswith("$ execsrv"):
                await trio.run_process(["sh", "-c", line[2:]])
            else:
                assert line.startswith(("$", "(")), f"what is {line!r}?"
        left = [message for channel in channels.values() for message in channel.heard]
        assert not left, "which is not on the page"


INITIALIZED = next(
    json.loads(line[3:])["result"]
    for lines in EXCHANGES
    for line in lines
    if line.startswith('<- {"id":1,"result":{"sessionId"')
)


def server_args(lines: list[str]) -> tuple[str, ...]:
    """What the server of an exchange is started with, but for where it listens."""
    words = lines[0].split()[3:] if lines[0].startswith("$ execsrv serve") else []
    return tuple(words[2:] if "--listen" in words else words)


ON_STDIO = [
    pytest.param(lines, marks=pytest.mark.slow if over("websocket", lines) and number % 8 else [])
    for number, lines in enumerate(lines for lines in EXCHANGES if over("stdio", lines))
]
"""Each starts a server of its own, so that each time some are replayed that are replayed on websockets too."""


@pytest.mark.few(4)
@pytest.mark.parametrize("lines", ON_STDIO, ids=title)
async def test_an_exchange_on_stdio(lines: list[str]) -> None:
    async with daemon(*server_args(lines)) as process:
        await replay(lines, partial(open_stdio, process), process.pid)


@pytest.mark.few(4)
@pytest.mark.parametrize("args", sorted({server_args(lines) for lines in EXCHANGES}), ids=" ".join)
async def test_the_exchanges_on_websockets(args: tuple[str, ...]) -> None:
    async with daemon("--listen", "ws://127.0.0.1:0", *args) as process:
        assert process.stdout is not None
        async with aclosing(lines_of(process.stdout)) as said:
            opened = partial(open_websocket, (await anext(said)).decode())
        todo = [lines for lines in EXCHANGES if server_args(lines) == args and over("websocket", lines)]
        for lines in sorted(todo, key=lambda lines: SIGTERM in lines):  # which ends the server, the last
            await replay(lines, opened, process.pid)


@pytest.mark.parametrize("lines", [lines for lines in EXCHANGES if over("unix", lines)], ids=title)
async def test_an_exchange_on_a_unix_socket(lines: list[str], tmp_path: Path) -> None:
    came: list[int] = []
    async with daemon("--listen", f"unix://{tmp_path}/socket") as process:
        assert process.stdout is not None
        async with aclosing(lines_of(process.stdout)) as said:
            await anext(said)
        await replay(lines, partial(open_unix, f"{tmp_path}/socket", came), process.pid)
    said_of_them = re.findall("`([a-z]+)` (?:is read )?from", "".join(lines))
    printed = []
    for descriptor in came:
        async with trio.lowlevel.FdStream(descriptor) as pipe:
            printed.append(b"".join([piece async for piece in pipe]).decode())
    assert printed == [f"{word}\n" for word in said_of_them] != []


# -- every row of the page is in an exchange --

NOT_SHOWN = {
    "forbidden",  # needs somebody in a lesser role
    "internal-error",  # a fault of the server's
    "format",  # needs a file of a certain kind
    "resources",  # needs a machine without any left
    "limit-unavailable",  # needs a machine that refuses control groups
    "oom",  # needs one that has them
    "cpu",  # takes a second of its processors
}


def messages() -> Iterator[tuple[str, str, Any]]:
    """All that the exchanges say: whether it is sent or heard, what method it is of, and its content."""
    for lines in EXCHANGES:
        asked: dict[tuple[str, Any], str] = {}
        for line in lines:
            if line[:2] not in ("->", "=>", "<-", "<=") or line[3] != "{":
                continue
            message, side = json.loads(line[3:]), line[0] + line[1]
            channel = side.strip("<>")
            if "method" in message:
                asked[channel, message.get("id")] = message["method"]
                yield ("heard" if "<" in side else "sent"), message["method"], message.get("params", {})
            elif "result" in message:
                yield "heard", asked.get((channel, message["id"]), "initialize"), message["result"]
            else:
                yield "heard", "error", message["error"]


def tables(text: str) -> Iterator[tuple[str, list[list[str]]]]:
    """The first word of each table, and its rows."""
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()]
        yield rows[0][0].strip("` "), rows[2:]


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Every field that the page has: sent or heard, method, name, and its values where it lists them."""
    for section in re.split(r"^#{2,3} ", PAGE, flags=re.M):
        method = section.partition("\n")[0].strip("`")
        for first, lines in tables(section):
            side = {"param": "sent", "result": "heard"}.get(first, "heard" if "/" in first else "")
            for line in lines if side else ():
                yield side, first if "/" in first else method, line[0].strip("` "), line[1]


def values(content: Any) -> Iterator[tuple[str, Any]]:
    """Every field in what was said, wherever it stands in it."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield name, value
            yield from values(value)
    elif isinstance(content, list):
        for value in content:
            yield from values(value)


SAID = {
    (side, method, name, value if isinstance(value, str) else None)
    for side, method, content in messages()
    for name, value in values(content)
}
FIELDS = {said[:3] for said in SAID}


def test_every_field_is_in_an_exchange() -> None:
    assert len(list(rows())) > 80
    assert not {row[:3] for row in rows()} - FIELDS
    listed = {
        (side, method, name, value)
        for side, method, name, types in rows()
        for value in re.findall(r'`"([^"`]+)"`', types)
    }
    assert len(listed) > 15
    assert not listed - SAID


def test_every_error_is_in_an_exchange() -> None:
    heard = [content for side, method, content in messages() if (side, method) == ("heard", "error")]
    told = {(str(error["code"]), error["data"]["kind"]) for error in heard}
    facts = {(error["data"]["kind"], name) for error in heard for name in error["data"]}
    stages = {error["data"].get("stage") for error in heard}
    limits = {error["data"].get("limit") for error in heard}
    found = dict(tables(PAGE))
    for code, kind, names, _ in found["code"]:
        if kind.strip("`") not in NOT_SHOWN:
            assert (code, kind.strip("`")) in told
            assert all((kind.strip("`"), name) in facts for name in re.findall(r"`(\w+)`", names)), kind
    assert {stage.strip("`") for stage, _ in found["stage"]} - NOT_SHOWN == stages - {None}
    assert {line[0].strip("`") for line in found["reason"]} - NOT_SHOWN == {
        value for _, method, name, value in SAID if (method, name) == ("process/exited", "reason")
    }
    assert limits - {None} < {line[0].strip("`") for line in found["limit"]}
