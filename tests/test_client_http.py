"""`client.http` over every transport, against a real HTTP server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from execsrv import (
    Client,
    ConnectionLostError,
    HttpFailedError,
    InvalidParamsError,
    LimitExceededError,
    ServerConfig,
    ServerVariable,
    connect,
)
from execsrv.client.http import HttpAnswer
from execsrv.protocol import HttpField, HttpResponse
from tests.conftest import OpenServer
from tests.late import undone_late
from tests.peers import PATIENCE
from tests.relay import open_line
from tests.web import Web, head, open_web


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with open_web() as web:
        yield web


@pytest.fixture
async def client(open_server: OpenServer, transport: str) -> Client:
    return await open_server(transport, ServerConfig(http_variables=("XS_*",))).client()


async def test_a_request_has_its_answer(client: Client, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XS_TOKEN", "secret")
    web.page("/x", "Content-Type: text/plain; charset=latin-1", "X-A: 1", "x-a: 2", body=b'"caf\xe9"')
    answer = await client.http.request(
        "POST", f"{web.url}/x", headers={"Authorization": ServerVariable("XS_TOKEN", "Bearer "), "b": "c"}, body="né"
    )
    assert (answer.status, answer.ok, answer.text) == (200, True, '"café"')
    assert [value for name, value in answer.headers if name == "x-a"] == ["1", "2"]
    assert (answer.header("X-A"), answer.header("none"), repr(answer)) == ("1", None, f"<HttpAnswer 200 '{web.url}/x'>")
    asked = web.asked[0]
    assert (asked.line, asked.body) == ("POST /x", "né".encode())
    assert (asked.field("authorization"), asked.field("b")) == ("Bearer secret", "c")
    answer = await client.http.request("GET", f"{web.url}/none", headers=[("a", "1"), ("a", "2")])
    assert (answer.status, answer.ok) == (404, False)
    web.page("/json", body=b'{"a": [1]}')
    web.page("/moved", "Location: /json", status="302 Found")
    assert (await client.http.request("GET", f"{web.url}/moved")).json() == {"a": [1]}
    assert (await client.http.request("GET", f"{web.url}/moved", follow_redirects=False)).status == 302


@pytest.mark.parametrize("charset", ["none-such", "hex", "base64", "undefined", "a\0b", ""])
def test_a_charset_that_is_none_for_text_is_not_heeded(charset: str) -> None:
    header = HttpField("content-type", f"text/plain; charset={charset}")
    assert HttpAnswer("http://x", HttpResponse(200, [header], "café".encode())).text == "café"


async def test_a_piece_for_somebody_who_was_cancelled_is_the_next_again(client: Client, web: Web) -> None:
    web.page("/x", body=b"one")
    with trio.fail_after(PATIENCE):
        async with client.http.stream("GET", f"{web.url}/x") as answer:
            await undone_late(answer.__anext__)
            assert await anext(answer) == b"one"
            await undone_late(partial(anext, answer, b""))
            assert [piece async for piece in answer] == []


async def test_a_body_is_read_while_it_comes(client: Client, web: Web) -> None:
    more, data = trio.Event(), os.urandom(3_000_000)

    async def page(asked: Any) -> None:
        await asked.send(head(f"Content-Length: {len(data) + 5}") + b"first")
        await more.wait()
        await asked.send(data)

    web.pages["/large"] = page
    with trio.fail_after(PATIENCE):
        async with client.http.stream("GET", f"{web.url}/large") as answer:
            assert (answer.status, answer.body) == (200, b"")
            assert await anext(answer) == b"first"
            more.set()
            assert b"".join([piece async for piece in answer]) == data
            assert [piece async for piece in answer] == []


async def test_a_cancel_loses_no_piece_of_a_body(client: Client, web: Web) -> None:
    more = trio.Event()

    async def page(asked: Any) -> None:
        await asked.send(head("Content-Length: 10") + b"first")
        await more.wait()
        await asked.send(b"later")

    web.pages["/slow"] = page
    with trio.fail_after(PATIENCE):
        async with client.http.stream("GET", f"{web.url}/slow") as answer:
            assert await anext(answer) == b"first"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer.__anext__)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            more.set()
            assert b"".join([piece async for piece in answer]) == b"later"


@pytest.mark.few
async def test_leaving_a_stream_hangs_up(client: Client, web: Web) -> None:
    web.pages["/half"] = web.half
    with trio.fail_after(PATIENCE):
        for _ in range(70):  # more than may be under way at once
            web.hung_up = trio.Event()
            async with client.http.stream("GET", f"{web.url}/half") as answer:
                assert await anext(answer) == b"abc"
            await web.hung_up.wait()


@pytest.mark.few
async def test_cancelling_before_there_is_a_response_hangs_up(client: Client, web: Web) -> None:
    web.pages["/never"] = web.never

    async def stream(url: str) -> None:
        async with client.http.stream("GET", url):
            raise AssertionError("there was a response")

    with trio.fail_after(PATIENCE):
        for number in range(70):  # more than may be under way at once
            web.hung_up = trio.Event()
            web.asked.clear()
            async with trio.open_nursery() as nursery:
                ask = stream if number % 2 else partial(client.http.request, "GET")
                nursery.start_soon(ask, f"{web.url}/never")
                while not web.asked:
                    await trio.testing.wait_all_tasks_blocked(0.001)
                nursery.cancel_scope.cancel()
            await web.hung_up.wait()


@pytest.mark.few
async def test_a_body_that_is_not_read_holds_up_nothing_but_its_sender(client: Client, web: Web) -> None:
    sent = 0

    async def page(asked: Any) -> None:
        nonlocal sent
        await asked.send(head())
        while True:
            await asked.send(bytes(100_000))
            sent += 100_000

    web.pages["/endless"] = page
    with trio.fail_after(PATIENCE):
        async with client.http.stream("GET", f"{web.url}/endless") as answer:
            await anext(answer)
            assert (await client.run(["echo", "x"])).stdout == b"x\n"
            before, read = sent, 0
            async for piece in answer:
                read += len(piece)
                if read > before + 20_000_000:
                    break
    assert sent < 200_000_000


async def test_what_fails_says_why_and_costs_nothing_else(client: Client, web: Web) -> None:
    web.pages["/cut"] = head("Content-Length: 10") + b"abc"
    web.pages["/never"] = web.never
    http: Any = client.http
    failures: list[tuple[Callable[[], Awaitable[Any]], type[Exception], str]] = [
        (lambda: http.request("GET", "http://127.0.0.1:1/"), HttpFailedError, "127.0.0.1:1"),
        (lambda: http.request("GET", f"{web.url}/cut"), HttpFailedError, "received 3 bytes, expected 10"),
        (lambda: http.request("GET", f"{web.url}/never", timeout=0.05), HttpFailedError, "not complete within 50 ms"),
        (lambda: http.request("GET", "ftp://x/"), InvalidParamsError, "only supports http and https"),
        (lambda: http.request("G T", web.url), InvalidParamsError, "method is invalid"),
        (lambda: http.request(5, web.url), TypeError, "method must be a string"),
        (lambda: http.request("GET", web.url, body=5), TypeError, "body must be bytes or a string, got int"),
        (lambda: http.request("GET", web.url, headers="a: b"), TypeError, "headers must be a mapping"),
        (lambda: http.request("GET", web.url, headers={"a": 1}), TypeError, r"headers\['a'\] must be a string"),
        (lambda: http.request("GET", web.url, timeout="1"), InvalidParamsError, "timeout must be a number"),
        (lambda: http.request("GET", web.url, follow_redirects=1), InvalidParamsError, "follow_redirects must be"),
    ]
    for call, kind, complaint in failures:
        with pytest.raises(kind, match=complaint):
            await call()
    async with client.http.stream("GET", f"{web.url}/cut") as answer:
        assert await anext(answer) == b"abc"
        with pytest.raises(HttpFailedError, match=r"is not whole: .*received 3 bytes, expected 10"):
            await anext(answer)
    with pytest.raises(HttpFailedError, match="all attempts to connect"):
        async with client.http.stream("GET", "http://127.0.0.1:1/"):
            pass
    assert (await client.run(["true"])).exit_code == 0


async def test_a_large_body_is_to_be_streamed(open_server: OpenServer, web: Web) -> None:
    client = await open_server("stdio", ServerConfig(buffered_http_bytes=1000)).client()
    web.page("/x", body=bytes(1001))
    with pytest.raises(LimitExceededError, match="it can be streamed"):
        await client.http.request("GET", f"{web.url}/x")
    async with client.http.stream("GET", f"{web.url}/x") as answer:
        assert sum([len(piece) async for piece in answer]) == 1001


async def test_no_request_is_made_twice(open_server: OpenServer, web: Web, tmp_path: Path) -> None:
    url = await open_server("unix", ServerConfig(resume_grace=300)).url()
    web.pages["/never"], web.pages["/half"] = web.never, web.half
    with trio.fail_after(PATIENCE):
        async with open_line(url, f"{tmp_path}/line") as line, connect(line.url, reconnect=60) as client:

            async def cut() -> None:
                await web.was_asked.wait()
                line.cut()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cut)
                with pytest.raises(ConnectionLostError, match="was interrupted"):
                    await client.http.request("POST", f"{web.url}/never")
            assert (await client.run(["true"])).exit_code == 0
            assert len(web.asked) == 1
            async with client.http.stream("GET", f"{web.url}/half") as answer:
                assert await anext(answer) == b"abc"
                line.cut()
                with pytest.raises(HttpFailedError, match="no body is to be pulled"):
                    await anext(answer)
