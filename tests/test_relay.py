"""`http/request`, over every transport, against a real HTTP server."""

from __future__ import annotations

import base64
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpcore
import pytest
import trio

from execsrv._budget.allowance import Allowance
from execsrv._http.channel import open_http
from execsrv._http.client import open_body
from execsrv._http.relay import Relay
from execsrv._http.request import prepare, proxy_url
from execsrv._server.outbox import Outbox
from execsrv._wire.channel import MessageChannel
from execsrv._wire.lines import LineChannel
from execsrv.errors import LimitExceededError
from execsrv.limits import MIB, Limits, ServerConfig
from execsrv.protocol import Failure, HttpRequest, Notification, Request, Response
from tests.certificates import Authority
from tests.conftest import OpenServer, Server, with_packed
from tests.peers import PATIENCE, Peer, b64, open_peer, plain
from tests.test_guard import connected
from tests.web import Asked, Web, head, open_web

transport = with_packed()

CONFIG = ServerConfig(http_variables=("RELAY_*", "OPENAI_API_KEY", "[cA]*"))


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
def server(open_server: OpenServer, transport: str) -> Server:
    """A server whose requests may send some variables, on every transport in turn."""
    return open_server(transport, CONFIG)


@pytest.fixture
async def one_peer(open_server: OpenServer) -> Peer:
    """A peer on one transport, for what no transport can change."""
    return await open_server("memory", CONFIG).peer()


def wanted(web: Web, path: str = "/", **params: Any) -> dict[str, Any]:
    return {"method": "GET", "url": web.url + path, "requestId": "r", **params}


def deltas(peer: Peer, id: str) -> list[dict[str, Any]]:
    return [
        message.params
        for message in peer.heard
        if isinstance(message, Notification)
        and message.method == "http/request/bodyDelta"
        and message.params["requestId"] == id
    ]


def streamed(peer: Peer, id: str) -> bytes:
    return b"".join(base64.b64decode(delta["deltaBase64"]) for delta in deltas(peer, id))


async def until_done(peer: Peer, id: str) -> dict[str, Any]:
    last = await peer.until(lambda: next((delta for delta in deltas(peer, id) if delta["done"]), None))
    assert isinstance(last, dict)
    return last


# -- names --

SILENT = "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n"


async def test_a_name_server_that_is_silent_holds_up_no_other_connection(elsewhere: str, tmp_path: Path) -> None:
    """More names are asked for than trio has threads for all."""
    (tmp_path / "resolv.conf").write_text(SILENT)
    bind = f'mount --bind {tmp_path}/resolv.conf "$(realpath /etc/resolv.conf)" && exec "$@"'
    before = ["unshare", "--mount", "sh", "-c", bind, "sh"]
    if subprocess.run([*before, "true"], capture_output=True).returncode:  # noqa: ASYNC221
        pytest.skip("not allowed to make a mount namespace")
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as silent:
        await silent.bind(("127.0.0.1", 53))
        async with connected(tmp_path, *before) as (peer, _), open_web() as web:
            web.page("/x", body=b"hi")
            for number in range(60):
                await peer.post("http/request", request(f"http://silent-{number}.example/", f"{number}"))
            for _ in range(8):
                await silent.recv(512)
            stream = await trio.open_unix_socket(f"{tmp_path}/s")
            async with open_peer(LineChannel(stream, stream, Limits())) as other:
                await other.handshake()
                for host in ("127.0.0.1", "localhost"):
                    url = f"http://{host}:{web.port}/x"
                    assert (await other.call("http/request", request(url, host)))["bodyBase64"] == b64(b"hi")
            # Nor anything else of the same one.
            assert (await peer.call("http/request", request(f"{web.url}/x", "number")))["bodyBase64"] == b64(b"hi")
            assert (await peer.call("fs/getMetadata", {"path": f"file://{tmp_path}"}))["isDirectory"]
            assert await peer.run("a", ["echo", "hi"]) == (0, b"hi\n", b"")


def request(url: str, id: str) -> dict[str, Any]:
    return {"method": "GET", "url": url, "requestId": id}


async def test_the_next_address_of_a_name_is_tried(one_peer: Peer, web: Web) -> None:
    """The web listens on one of the addresses of `localhost` alone, and another one refuses."""
    web.page("/x", body=b"hi")
    result = await one_peer.call("http/request", request(f"http://localhost:{web.port}/x", "r"))
    assert result["bodyBase64"] == b64(b"hi")


async def test_a_name_that_has_no_address_is_an_error_of_that_request(
    one_peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for proxy in ("", "http://nobody.invalid:80", "http://a..b:80"):
        monkeypatch.setenv("http_proxy", proxy)
        _, message, data = await one_peer.refused("http/request", request("http://nobody.invalid/", "r"))
        assert data["kind"] == "http-failed", message


# -- one request and its response --


async def test_buffered(peer: Peer, web: Web) -> None:
    web.page("/x", "X-B: 1", "Set-Cookie: a", "X-A: 2", "Set-Cookie: b", body=b"\0\xffbody")
    sent = [{"name": "X-B", "value": "1"}, {"name": "x-a", "value": "é"}, {"name": "X-B", "value": " 3\t"}]
    params = wanted(web, "/x?q=a b&é", headers=sent, sandbox=None, timeoutMs=None, bodyBase64=None)
    result = await peer.call("http/request", params)
    names = ["x-b", "set-cookie", "x-a", "set-cookie", "content-length", "connection"]
    values = ["1", "a", "2", "b", "6", "close"]
    fields = [{"name": name, "value": value} for name, value in zip(names, values, strict=True)]
    assert result == {"status": 200, "headers": fields, "bodyBase64": b64(b"\0\xffbody")}
    (asked,) = web.asked
    assert asked.line == "GET /x?q=a%20b&%C3%A9"
    given = [("host", f"127.0.0.1:{web.port}"), ("x-b", "1"), ("x-a", "é"), ("x-b", "3"), ("accept", "*/*")]
    assert sorted(asked.fields) == sorted(given)
    assert [field for field in asked.fields if field[0].startswith("x-")] == given[1:4]


async def test_body_is_sent(peer: Peer, web: Web) -> None:
    web.page("/x", status="202 Accepted")
    params = wanted(web, "/x", method="POST", bodyBase64=b64(b"abc"), headers=[{"name": "Accept", "value": "a/b"}])
    result = await peer.call("http/request", params)
    assert (result["status"], result["bodyBase64"]) == (202, "")
    (asked,) = web.asked
    assert (asked.line, asked.body) == ("POST /x", b"abc")
    assert (asked.field("content-length"), asked.field("accept")) == ("3", "a/b")


async def test_a_close_frees_its_id_at_once_and_ends_all_that_have_it(one_peer: Peer, web: Web) -> None:
    web.pages["/half"], web.pages["/never"] = web.half, web.never
    pulled = wanted(web, "/half", pullResponse=True)
    assert (await one_peer.call("http/request", pulled))["status"] == 200
    for path, how in (("/half", "pullResponse"), ("/never", "pullResponse"), ("/never", "streamResponse")):
        await one_peer.post("http/close", {"requestId": "r"})
        await one_peer.post("http/request", wanted(web, path, **{how: True}))
    assert await one_peer.call("http/close", {"requestId": "r"}) == {}
    assert (await one_peer.call("http/request", pulled))["status"] == 200
    await one_peer.call("http/close", {"requestId": "r"})
    whole = [await one_peer.post("http/request", wanted(web, "/never")) for _ in range(2)]
    await one_peer.call("http/close", {"requestId": "r"})
    for id in whole:
        refusal = await one_peer.answer(id)
        assert isinstance(refusal, Failure)
        assert "it was closed by its peer" in refusal.error.message


@pytest.mark.parametrize("waits_for_it", [True, False])
async def test_an_answer_that_comes_before_the_body_is_read_is_told(one_peer: Peer, waits_for_it: bool) -> None:
    """An interim one is none: it may be what the HTTP server wants the body after."""
    size = 8 * MIB

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            got = b""
            while b"\r\n\r\n" not in got:
                got += await stream.receive_some()
            if waits_for_it:
                await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                left = size - len(got.partition(b"\r\n\r\n")[2])
                while left:
                    left -= len(await stream.receive_some())
            await stream.send_all(head("Content-Length: 2", status="413 Too Large") + b"no")
            if not waits_for_it:
                await one_ended.wait()

    one_ended = trio.Event()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        expecting = [{"name": "Expect", "value": "100-continue"}]
        params = {**request(url, "r"), "method": "POST", "bodyBase64": b64(bytes(size)), "headers": expecting}
        with trio.fail_after(PATIENCE):
            result = await one_peer.call("http/request", params)
        assert (result["status"], result["bodyBase64"]) == (413, b64(b"no"))
        one_ended.set()
        nursery.cancel_scope.cancel()


async def test_streamed(peer: Peer, web: Web) -> None:
    async def slowly(asked: Asked) -> None:
        await asked.send(head("Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
        await peer.until(lambda: streamed(peer, "s") == b"abc")
        await asked.send(b"3\r\ndef\r\n0\r\n\r\n")

    web.pages["/x"] = slowly
    id = await peer.post("http/request", wanted(web, "/x", requestId="s", streamResponse=True))
    answer = await peer.answer(id)
    assert isinstance(answer, Response)
    assert (answer.result["status"], answer.result["bodyBase64"]) == (200, "")
    last = await until_done(peer, "s")
    assert last == {"requestId": "s", "seq": 3, "deltaBase64": "", "done": True, "error": None}
    assert [delta["seq"] for delta in deltas(peer, "s")] == [1, 2, 3]
    assert streamed(peer, "s") == b"abcdef"
    heard = [
        message for message in peer.heard if message is answer or getattr(message, "method", "").startswith("http")
    ]
    assert heard[0] is answer


async def test_streamed_without_body(one_peer: Peer, web: Web) -> None:
    web.page("/x", status="202 Accepted")
    await one_peer.call("http/request", wanted(web, "/x", streamResponse=True))
    assert await until_done(one_peer, "r") == {
        "requestId": "r",
        "seq": 1,
        "deltaBase64": "",
        "done": True,
        "error": None,
    }


@pytest.mark.parametrize("fields", [("Content-Length: 10",), ("Transfer-Encoding: chunked",)])
async def test_cut_body(one_peer: Peer, web: Web, fields: tuple[str, ...]) -> None:
    web.pages["/x"] = head(*fields) + (b"abc" if "Length" in fields[0] else b"3\r\nabc\r\n")
    code, message, data = await one_peer.refused("http/request", wanted(web, "/x"))
    assert (code, data["kind"]) == (-32603, "http-failed")
    assert message.startswith("failed to read http/request response body: error decoding response body: ")
    await one_peer.call("http/request", wanted(web, "/x", streamResponse=True))
    last = await until_done(one_peer, "r")
    assert last["error"].startswith("error decoding response body: ")
    assert (last["seq"], streamed(one_peer, "r")) == (2, b"abc")


async def test_connections_are_used_again_or_let_go(one_peer: Peer, web: Web) -> None:
    async def kept(asked: Asked) -> None:
        request = asked.line.encode()
        while request:
            moved = b"Location: /kept\r\n" if b"/moved" in request else b""
            await asked.send(b"HTTP/1.1 %d OK\r\n%sContent-Length: 2\r\n\r\nhi" % (302 if moved else 200, moved))
            request = bytes(await asked.stream.receive_some())

    web.pages["/kept"] = web.pages["/moved"] = kept
    web.page("/closed", body=b"hi")
    for path, most in (("/kept", 1), ("/moved", 1), ("/closed", 20)):
        await one_peer.call("http/request", wanted(web, path))
        before, seen = len(os.listdir("/proc/self/fd")), len(web.asked)
        for number in range(10):
            await one_peer.call("http/request", wanted(web, path, redirectPolicy="follow"))
            await one_peer.call("http/request", wanted(web, path, requestId=f"{number}", streamResponse=True))
            await until_done(one_peer, f"{number}")
        assert len(os.listdir("/proc/self/fd")) <= before + 2
        assert len(web.asked) <= seen + most


async def test_connections_that_no_request_uses_are_closed(
    one_peer: Peer, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although none follows, and another one goes on."""
    monkeypatch.setattr("execsrv._http.client._KEPT_SECONDS", 0.05)
    closed: list[trio.Event] = []

    async def kept(asked: Asked) -> None:
        closed.append(hung_up := trio.Event())
        await asked.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        while await asked.stream.receive_some():
            pass
        hung_up.set()

    web.pages |= {"/kept": kept, "/half": web.half}
    await one_peer.call("http/request", wanted(web, "/half", requestId="half", streamResponse=True))
    for number in range(2):
        await one_peer.call("http/request", wanted(web, "/kept", requestId=f"{number}"))
        with trio.fail_after(PATIENCE):
            await closed[number].wait()
    assert not web.hung_up.is_set()


@pytest.mark.parametrize("is_sealed", [False, True])
async def test_what_comes_behind_a_response_answers_nothing(
    one_peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_sealed: bool
) -> None:
    """Whether it is read together with the response, or waits behind the first piece of that in what TLS has seen."""
    surplus = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: " + b"x" * 2048

    async def kept(asked: Asked) -> None:
        request = asked.line.encode()
        while request:
            if b"/two" in request:
                await asked.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi" + surplus)
            elif b"/nobody" in request:  # a piece of a head has 2048 bytes
                await asked.send(long[:2044] + b"\r\n\r\n" + surplus)
            else:
                await asked.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue")
            request = bytes(await asked.stream.receive_some())

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority = Authority(tmp_path)
    context.load_cert_chain(authority.server())
    monkeypatch.setenv("SSL_CERT_FILE", authority.file)
    sealed = partial(trio.SSLStream[trio.SocketStream], ssl_context=context, server_side=True, https_compatible=True)
    async with open_web(sealed) if is_sealed else open_web() as web:
        web.pages = dict.fromkeys(("/two", "/nobody", "/x"), kept)
        base = f"https://127.0.0.1:{web.port}" if is_sealed else web.url
        for path in ("/two", "/nobody"):
            assert (await one_peer.call("http/request", wanted(web, url=base + path)))["status"] == 200
            result = await one_peer.call("http/request", wanted(web, url=f"{base}/x"))
            assert base64.b64decode(result["bodyBase64"]) == b"true"


async def test_bodies_are_left_as_they_are(one_peer: Peer, web: Web) -> None:
    web.page("/x", "Content-Encoding: gzip", "X-Latin: \xe9", "X-Empty:", body=b"no gzip at all")
    result = await one_peer.call("http/request", wanted(web, "/x"))
    assert base64.b64decode(result["bodyBase64"]) == b"no gzip at all"
    assert {"name": "x-latin", "value": "é"} in result["headers"]
    assert {"name": "x-empty", "value": ""} in result["headers"]


async def test_unreachable(one_peer: Peer, web: Web) -> None:
    web.pages["/garbage"] = b"hello\r\n\r\n"
    web.pages["/nothing"] = b""
    for url in (f"{web.url}/garbage", f"{web.url}/nothing", "http://127.0.0.1:1/x", "http://no-such.invalid/"):
        code, message, data = await one_peer.refused("http/request", wanted(web, url=url))
        assert (code, data) == (-32603, {"kind": "http-failed", "url": url})
        assert message.startswith(f"http/request failed: error sending request for url ({url}): ")


async def test_contradicting_length(one_peer: Peer, web: Web) -> None:
    params = wanted(web, bodyBase64=b64(b"abc"), headers=[{"name": "Content-Length", "value": "5"}])
    code, message, _ = await one_peer.refused("http/request", params)
    assert code == -32603
    assert "Content-Length" in message


# -- time --


async def test_timeouts(peer: Peer, web: Web) -> None:
    web.pages["/never"], web.pages["/half"] = web.never, web.half
    for path, timeout in (("/never", 0), ("/never", 50), ("/half", 50)):
        code, message, data = await peer.refused("http/request", wanted(web, path, timeoutMs=timeout))
        assert (code, data["kind"]) == (-32603, "http-failed")
        assert message.endswith(f"not complete within {timeout} ms")


async def test_timeout_of_a_streamed_body(one_peer: Peer, web: Web) -> None:
    web.pages["/half"] = web.half
    await one_peer.call("http/request", wanted(web, "/half", timeoutMs=5000, streamResponse=True))
    last = await until_done(one_peer, "r")
    assert last["error"] == "error decoding response body: not complete within 5000 ms"
    assert streamed(one_peer, "r") == b"abc"
    with trio.fail_after(PATIENCE):
        await web.hung_up.wait()


# -- redirects --

CREDENTIALS = [
    {"name": "Authorization", "value": "a"},
    {"name": "Cookie", "value": "c"},
    {"name": "X-Secret", "value": "s-", "valueEnvVar": "RELAY_SECRET"},
    {"name": "X-Plain", "value": "p"},
    {"name": "Content-Type", "value": "t/t"},
]


@pytest.mark.parametrize(
    ("method", "status", "becomes"),
    [
        ("POST", 301, "GET"),
        ("POST", 302, "GET"),
        ("PUT", 302, "PUT"),
        ("PUT", 303, "GET"),
        ("HEAD", 303, "HEAD"),
        ("POST", 307, "POST"),
        ("POST", 308, "POST"),
    ],
)
async def test_redirect(
    one_peer: Peer, web: Web, monkeypatch: pytest.MonkeyPatch, method: str, status: int, becomes: str
) -> None:
    monkeypatch.setenv("RELAY_SECRET", "v")
    web.page("/a", "Location: b?c", status=f"{status} Elsewhere", body=b"" if method == "HEAD" else b"not this")
    web.page("/b")
    body = {} if method == "HEAD" else {"bodyBase64": b64(b"abc")}
    result = await one_peer.call("http/request", wanted(web, "/a", method=method, headers=CREDENTIALS, **body))
    assert result["status"] == 200
    first, second = web.asked
    assert (first.line, second.line) == (f"{method} /a", f"{becomes} /b?c")
    assert second.body == (first.body if method == becomes else b"")
    assert (second.field("content-type") is None) == (method != becomes)
    assert second.field("referer") == f"{web.url}/a"
    assert [second.field(name) for name in ("authorization", "cookie", "x-secret", "x-plain")] == ["a", "c", "s-v", "p"]


async def test_redirect_to_another_origin(one_peer: Peer, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_SECRET", "v")
    async with open_web() as other:
        other.page("/b")
        web.page("/a", f"Location: {other.url}/b", status="307 Elsewhere")
        await one_peer.call("http/request", wanted(web, "/a", headers=CREDENTIALS))
        (asked,) = other.asked
    assert [asked.field(name) for name in ("authorization", "cookie", "x-secret", "x-plain")] == [None, None, None, "p"]
    assert (asked.field("referer"), asked.field("host")) == (f"{web.url}/", f"127.0.0.1:{other.port}")


async def test_redirects_that_are_not_followed(one_peer: Peer, web: Web) -> None:
    web.page("/stop", "Location: /b", status="302 Elsewhere", body=b"here")
    web.page("/none", status="302 Elsewhere")
    web.page("/bad", "Location: http://[::x/", status="302 Elsewhere")
    web.page("/zero", "Location: http://127.0.0.1:0/", status="302 Elsewhere")
    web.pages["/cut"] = (
        head("Location: /elsewhere", "Transfer-Encoding: chunked", status="307 Elsewhere") + b"no chunk\r\n"
    )
    assert (await one_peer.call("http/request", wanted(web, "/cut")))["status"] == 404
    web.page("/choice", "Location: /b", status="300 Choices")
    for path in ("/stop", "/none", "/bad", "/zero", "/choice"):
        policy = {"redirectPolicy": "stop"} if path == "/stop" else {}
        result = await one_peer.call("http/request", wanted(web, path, **policy))
        assert result["status"] in (300, 302)
        assert base64.b64decode(result["bodyBase64"]) == (b"here" if path == "/stop" else b"")
    web.page("/ftp", "Location: ftp://h/x", status="302 Elsewhere", body=b"left unread")
    code, message, _ = await one_peer.refused("http/request", wanted(web, "/ftp"))
    assert (code, message) == (-32603, "http/request failed: redirect target uses unsupported URL scheme: ftp")


async def test_too_many_redirects(one_peer: Peer, web: Web) -> None:
    for number in range(12):
        web.page(f"/{number}", f"Location: /{number + 1}", status="302 Elsewhere")
    web.page("/11")
    assert (await one_peer.call("http/request", wanted(web, "/1")))["status"] == 200
    code, message, _ = await one_peer.refused("http/request", wanted(web, "/0"))
    assert (code, message) == (-32603, "http/request failed: too many redirects")
    assert len(web.asked) == 22


# -- what is refused --

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"method": "A B"}, "http/request method is invalid: invalid HTTP method"),
    ({"method": ""}, "http/request method is invalid: invalid HTTP method"),
    ({"url": "nope"}, "http/request url is invalid: relative URL without a base"),
    ({"url": "//h/x"}, "http/request url is invalid: relative URL without a base"),
    ({"url": "ftp://h/x"}, "http/request only supports http and https URLs, got ftp"),
    ({"url": "file:///etc/passwd"}, "http/request only supports http and https URLs, got file"),
    ({"url": "http://"}, "http/request url is invalid: empty host"),
    ({"url": "http://[::1"}, "http/request url is invalid: invalid IPv6 address"),
    ({"url": "http://h:99999/"}, "http/request url is invalid: invalid port number"),
    ({"url": "http://h:0/"}, "http/request url is invalid: invalid port number"),
    ({"url": "http://h:x/"}, "http/request url is invalid: invalid port number"),
    ({"url": "http://a b/"}, "http/request url is invalid: invalid international domain name"),
    ({"url": f"http://{'a' * 64}/"}, "http/request url is invalid: invalid international domain name"),
]
REFUSED_HEADERS = [
    ({"name": "a b", "value": ""}, "name is invalid: invalid HTTP header name"),
    ({"name": "", "value": ""}, "name is invalid: invalid HTTP header name"),
    ({"name": "X-V", "value": "a\nb"}, "value is invalid for X-V: failed to parse header value"),
    ({"name": "X-V", "value": "a\0b"}, "value is invalid for X-V: failed to parse header value"),
]
ENV = [
    ("RELAY_UNSET", "requires executor environment variable RELAY_UNSET"),
    ("RELAY_EMPTY", "requires a non-empty executor environment variable RELAY_EMPTY"),
    ("OPENAI_API_KEY", "cannot use executor environment variable OPENAI_API_KEY"),
    ("codex_access_token", "cannot use executor environment variable codex_access_token"),
    ("AWS_SECRET_ACCESS_KEY", "cannot use executor environment variable AWS_SECRET_ACCESS_KEY"),
    (
        "PATH",
        "cannot use executor environment variable PATH: http_variables of the server does not name it",
    ),
]


async def test_refused(peer: Peer, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("RELAY_EMPTY", "")
    cases = list(REFUSED)
    cases += [({"headers": [header]}, f"http/request header {text}") for header, text in REFUSED_HEADERS]
    for variable, text in ENV:
        header = {"name": "X-E", "value": "Bearer ", "valueEnvVar": variable}
        cases.append(({"headers": [header]}, f"http/request header X-E {text}"))
    for params, text in cases:
        code, message, data = await peer.refused("http/request", wanted(web, **params))
        assert (code, message, data["kind"]) == (-32602, text, "invalid-params")
    malformed: list[dict[str, Any]] = [
        {"requestId": None},
        {"timeoutMs": -1},
        {"redirectPolicy": "x"},
        {"bodyBase64": "!"},
    ]
    for params in malformed:
        assert (await peer.refused("http/request", wanted(web, **params)))[0] == -32602
    assert not web.asked


async def test_header_from_the_environment(peer: Peer, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_TOKEN", "t0ken")
    header = {"name": "Authorization", "value": "Bearer ", "valueEnvVar": "RELAY_TOKEN"}
    await peer.call("http/request", wanted(web, headers=[header]))
    assert web.asked[0].field("authorization") == "Bearer t0ken"


async def test_no_header_from_the_environment_unless_the_server_names_it(
    open_server: OpenServer, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_TOKEN", "t0ken")
    peer = await open_server("memory", ServerConfig()).peer(ready=False)
    greeting = await peer.handshake()
    assert greeting["environmentInfo"]["capabilities"]["httpHeaderEnvVars"] is False
    header = {"name": "Authorization", "value": "Bearer ", "valueEnvVar": "RELAY_TOKEN"}
    _, message, _ = await peer.refused("http/request", wanted(web, headers=[header]))
    assert message.endswith(
        "cannot use executor environment variable RELAY_TOKEN: http_variables of the server does not name it"
    )
    assert not web.asked


async def test_user_in_the_url(one_peer: Peer, web: Web) -> None:
    await one_peer.call("http/request", wanted(web, url=f"http://us:p%20w@127.0.0.1:{web.port}/x"))
    assert web.asked[0].field("authorization") == "Basic " + b64(b"us:p w")


async def test_stream_id_in_use(peer: Peer, web: Web) -> None:
    go = [trio.Event(), trio.Event()]

    async def in_steps(asked: Asked) -> None:
        await go[0].wait()
        await asked.send(head("Content-Length: 3"))
        await go[1].wait()
        await asked.send(b"abc")

    web.pages["/x"] = in_steps
    taken = "http/request streamResponse requestId `r` is already active"
    pending = await peer.post("http/request", wanted(web, "/x", streamResponse=True))
    assert (await peer.refused("http/request", wanted(web, streamResponse=True)))[:2] == (-32602, taken)
    go[0].set()
    await peer.answer(pending)
    assert (await peer.refused("http/request", wanted(web, streamResponse=True)))[:2] == (-32602, taken)
    assert (await peer.call("http/request", wanted(web)))["status"] == 404  # not streamed: it needs no id
    go[1].set()
    await until_done(peer, "r")
    assert streamed(peer, "r") == b"abc"
    await peer.call("http/request", wanted(web, streamResponse=True))


# -- bounds --


async def test_too_many_at_once(open_server: OpenServer, web: Web) -> None:
    web.pages["/half"] = web.half
    peer = await open_server("memory", ServerConfig(http_exchanges=2)).peer()
    for id in "ab":
        await peer.call("http/request", wanted(web, "/half", requestId=id, streamResponse=True))
    code, _, data = await peer.refused("http/request", wanted(web))
    assert (code, data["kind"], data["limit"]) == (-32001, "busy", "http_exchanges")


async def test_buffered_body_too_large(open_server: OpenServer, web: Web) -> None:
    async def endless(asked: Asked) -> None:
        await asked.send(head())
        while True:
            await asked.send(bytes(65536))

    web.pages["/endless"] = endless
    web.page("/full", body=bytes(1000_000))
    peer = await open_server("memory", ServerConfig(buffered_http_bytes=1000_000)).peer()
    code, _, data = await peer.refused("http/request", wanted(web, "/endless"))
    assert (code, data["kind"], data["limit"]) == (-32600, "limit-exceeded", "buffered_http_bytes")
    for _ in range(2):
        result = await peer.call("http/request", wanted(web, "/full"))
        assert len(base64.b64decode(result["bodyBase64"])) == 1000_000


async def test_interim_responses_have_a_bound(one_peer: Peer, web: Web) -> None:
    async def endless(asked: Asked) -> None:
        while True:
            await asked.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000)

    web.pages["/endless"] = endless
    web.pages["/few"] = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 200 + head("Content-Length: 2") + b"hi"
    with trio.fail_after(PATIENCE):
        _, message, data = await one_peer.refused("http/request", wanted(web, "/endless"))
    assert data["kind"] == "http-failed"
    assert message.endswith("the head of the response has more than 131072 bytes")
    assert (await one_peer.call("http/request", wanted(web, "/few")))["bodyBase64"] == b64(b"hi")


async def test_chunks_that_came_together_let_others_have_their_turns() -> None:
    turns = 0

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(200):
            time.sleep(0.0002)  # noqa: ASYNC251 - as long as a chunk takes
            yield b"x"

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        async with open_body(httpcore.Response(200, content=chunks())) as body:
            assert [chunk async for chunk in body] == [b"x"] * 200
        nursery.cancel_scope.cancel()
    assert turns > 10


async def test_slow_peer_makes_the_http_server_wait(server: Server, web: Web) -> None:
    size, sent, blocked = 64 * MIB, 0, trio.Event()

    async def large(asked: Asked) -> None:
        nonlocal sent
        await asked.send(head(f"Content-Length: {size}"))
        while sent < size:
            with trio.move_on_after(0.5) as patience:
                await asked.send(bytes(65536))
            if patience.cancelled_caught:
                blocked.set()
                raise trio.BrokenResourceError  # a part of it was sent: nobody knows which
            sent += 65536

    web.pages["/large"] = large
    async with server.open_channel() as channel:
        await _handshake(channel)
        await channel.send(Request(2, "http/request", wanted(web, "/large", streamResponse=True)))
        with trio.fail_after(PATIENCE):
            await blocked.wait()
        assert sent < size / 2
        got = 0
        with trio.fail_after(PATIENCE):
            while not (delta := await _next_delta(channel))["done"]:
                got += len(base64.b64decode(delta["deltaBase64"]))
        assert sent <= got <= sent + 65536
        assert delta["error"].startswith("error decoding response body: ")


async def _handshake(channel: MessageChannel) -> None:
    await channel.send(Request(1, "initialize", {"clientName": "test"}))
    await channel.receive()
    await channel.send(Notification("initialized"))


async def _next_delta(channel: MessageChannel) -> dict[str, Any]:
    while not isinstance(message := await channel.receive(), Notification):
        assert message is not None
    delta = plain(message.params)
    assert isinstance(delta, dict)
    return delta


async def test_streams_end_with_their_channel(server: Server, web: Web) -> None:
    web.pages["/half"] = web.half
    async with server.open_peer() as peer:
        await peer.handshake()
        await peer.call("http/request", wanted(web, "/half", streamResponse=True))
        await peer.until(lambda: streamed(peer, "r"))
    with trio.fail_after(PATIENCE):
        await web.hung_up.wait()


async def test_requests_end_with_their_channel(server: Server, web: Web) -> None:
    web.pages["/never"] = web.never
    async with server.open_peer() as peer:
        await peer.handshake()
        await peer.post("http/request", wanted(web, "/never"))
        with trio.fail_after(PATIENCE):
            await web.was_asked.wait()
    with trio.fail_after(PATIENCE):
        await web.hung_up.wait()


async def test_outbox_tells_in_turn_and_within_its_bound() -> None:
    outbox = Outbox(max_told=2)
    told: list[str] = []

    async def tell(name: str) -> None:
        await outbox.tell(Notification(name))
        told.append(name)

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(tell, name)
            await trio.testing.wait_all_tasks_blocked()
        assert told == ["a", "b"]
        outbox.put(Response(1, None))
        assert await outbox.take() == Response(1, None)
        assert await outbox.take() == Notification("a")
        await trio.testing.wait_all_tasks_blocked()
        assert told == ["a", "b", "c"]
        assert [await outbox.take() for _ in range(2)] == [Notification("b"), Notification("c")]


async def test_answers_have_left_whatever_comes_behind_them() -> None:
    outbox = Outbox(max_told=8)
    left: list[str] = []

    async def wait(name: str) -> None:
        await outbox.wait_answered()
        left.append(name)

    async with trio.open_nursery() as nursery:
        await outbox.wait_answered()
        outbox.put(Response(1, None))
        nursery.start_soon(wait, "first")
        await trio.testing.wait_all_tasks_blocked()
        outbox.put(Response(2, None))
        await outbox.tell(Notification("a"))
        nursery.start_soon(wait, "both")
        await outbox.take()
        await trio.testing.wait_all_tasks_blocked()
        assert left == []  # what was taken is still on its way
        await outbox.take()
        await trio.testing.wait_all_tasks_blocked()
        assert left == ["first"]
        await outbox.take()
        await trio.testing.wait_all_tasks_blocked()
        assert left == ["first", "both"]


async def test_nobody_waits_at_a_closed_outbox() -> None:
    outbox = Outbox(max_bytes=1, max_told=1)
    outbox.put(Response(1, None))
    await outbox.tell(Notification("a"))
    async with trio.open_nursery() as nursery:
        for wait in (outbox.wait_room, outbox.wait_answered, outbox.wait_empty):
            nursery.start_soon(wait)
        nursery.start_soon(outbox.tell, Notification("b"))
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 4
        outbox.close()
    await outbox.tell(Notification("c"))


async def test_whole_bodies_count_until_the_answers_before_them_have_left(web: Web) -> None:
    web.page("/x", body=bytes(600))
    asked, left = trio.Event(), trio.Event()

    async def answers_left() -> None:
        asked.set()
        await left.wait()

    async def tell(notification: Notification) -> None:
        raise AssertionError("nothing is streamed")

    async def read_first(relay: Relay) -> None:
        response = await relay.request(HttpRequest("GET", web.url + "/x", "a"))
        assert response.body_base64 == bytes(600)

    config = ServerConfig(buffered_http_bytes=1000)
    with trio.fail_after(PATIENCE):
        allowance = Allowance(config)
        async with (
            open_http(config, lambda: allowance, tell, answers_left) as (get_relay, _),
            trio.open_nursery() as nursery,
        ):
            relay = get_relay()
            nursery.start_soon(read_first, relay)
            await asked.wait()
            with pytest.raises(LimitExceededError):
                await relay.request(HttpRequest("GET", web.url + "/x", "b"))
            left.set()


async def test_a_body_ends_with_its_connection(one_peer: Peer, web: Web) -> None:
    async def all_of_it(asked: Asked) -> None:
        await asked.send(head() + b"all of it")  # and hangs up

    web.pages["/x"] = all_of_it
    await one_peer.call("http/request", wanted(web, "/x", streamResponse=True))
    assert (await until_done(one_peer, "r")).get("error") is None
    assert streamed(one_peer, "r") == b"all of it"
    answer = await one_peer.call("http/request", wanted(web, "/x", requestId="whole"))
    assert base64.b64decode(answer["bodyBase64"]) == b"all of it"
    assert (await one_peer.run("echo", ["echo", "hello"]))[0] == 0


async def test_streams_do_not_hold_up_processes(peer: Peer, web: Web) -> None:
    """Both kinds of notifications get through while the other has more than enough to say."""

    async def endless(asked: Asked) -> None:
        await asked.send(head())
        while True:
            await asked.send(bytes(65536))

    web.pages["/endless"] = endless
    await peer.call("http/request", wanted(web, "/endless", streamResponse=True))
    await peer.start("yes", ["yes"])
    await peer.until_output("yes", b"y\n")
    seen = len(deltas(peer, "r"))
    await peer.until(lambda: len(deltas(peer, "r")) > seen + 5)
    code, out, _ = await peer.run("echo", ["echo", "hello"])
    assert (code, out) == (0, b"hello\n")


# -- proxies, TLS, and whether there is a client at all --


async def test_proxies_of_the_environment(one_peer: Peer, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://us:pw@127.0.0.1:{web.port}")
    monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{web.port}")
    monkeypatch.setenv("no_proxy", "near.invalid")
    await one_peer.call("http/request", wanted(web, url="http://far.invalid/x"))
    assert web.asked[0].line == "GET http://far.invalid/x"
    assert web.asked[0].field("Proxy-Authorization") == "Basic " + b64(b"us:pw")
    assert (await one_peer.refused("http/request", wanted(web, url="https://far.invalid/x")))[0] == -32603
    assert web.asked[1].line == "CONNECT far.invalid:443"
    assert (await one_peer.refused("http/request", wanted(web, url="http://near.invalid/x")))[0] == -32603
    assert len(web.asked) == 2


async def test_proxies_that_are_none(one_peer: Peer, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, why in (
        ("socks5h://127.0.0.1:1", "socksio"),
        ("ftp://x", "its URL begins with none of http, https, socks5, socks5h"),
        ("http://us:p/w@x", "its URL is malformed"),
        ("http://[x", "its URL is malformed"),
        ("http://\xe9", "its URL has no host, or is not ASCII"),
    ):
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setitem(sys.modules, "socksio", None)
        _, message, data = await one_peer.refused("http/request", wanted(web))
        assert data["kind"] == "http-failed"
        assert why in message
    monkeypatch.setenv("http_proxy", f"http://\xe9:%ff@127.0.0.1:{web.port}")
    await one_peer.call("http/request", wanted(web))
    assert web.asked[0].field("Proxy-Authorization") == "Basic " + base64.b64encode(b"\xc3\xa9:\xff").decode()


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        ("http://h/", {}, ""),
        ("http://h/", {"http_proxy": "http://p:1"}, "http://p:1"),
        ("http://h/", {"http_proxy": "p:1"}, "http://p:1"),
        ("http://h/", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("http://h/", {"http_proxy": "http://low:1", "HTTP_PROXY": "http://up:1"}, "http://low:1"),
        ("http://h/", {"http_proxy": "", "HTTP_PROXY": "http://up:1"}, ""),
        ("http://h/", {"https_proxy": "http://p:1"}, ""),
        ("https://h/", {"https_proxy": "http://p:1"}, "http://p:1"),
        ("https://h/", {"all_proxy": "http://p:1"}, "http://p:1"),
        ("https://h/", {"all_proxy": "http://all:1", "https_proxy": "http://p:1"}, "http://p:1"),
    ],
)
def test_which_proxy(url: str, environ: dict[str, str], proxy: str) -> None:
    target = prepare(HttpRequest("GET", url, "r"), {}, ()).target
    assert proxy_url(target, environ) == proxy


@pytest.mark.parametrize(
    ("url", "no_proxy", "exempt"),
    [
        ("http://example.org/", "*", True),
        ("http://example.org/", "example.org", True),
        ("http://example.org/", "EXAMPLE.org", True),
        ("http://Example.org/", "other, .example.org ,", True),
        ("http://www.example.org/", "example.org", True),
        ("http://www.example.org/", ".example.org", True),
        ("http://wwwexample.org/", "example.org", False),
        ("http://example.org/", "www.example.org", False),
        ("http://example.org/", "", False),
        ("http://example.org/", ",., ,", False),
        ("http://example.org/", "example.org:80", True),
        ("https://example.org/", "example.org:443", True),
        ("http://example.org:8080/", "example.org:8080", True),
        ("http://www.example.org:8080/", "example.org:8080", True),
        ("http://example.org:8080/", "example.org", True),
        ("http://example.org/", "example.org:8080", False),
        ("http://127.0.0.1:1/", "127.0.0.1", True),
        ("http://127.0.0.1/", "0.0.1", True),  # a text like any other, as for urllib
        ("http://[::1]:1/", "::1", True),
        ("http://[::1]:1/", "[::1]", True),
        ("http://[::1]:1/", "[::1]:1", True),
        ("http://[::1]:1/", "[::1]:2", False),
    ],
)
def test_no_proxy(url: str, no_proxy: str, exempt: bool) -> None:
    target = prepare(HttpRequest("GET", url, "r"), {}, ()).target
    for name in ("no_proxy", "NO_PROXY"):
        assert (proxy_url(target, {"all_proxy": "http://p:1", name: no_proxy}) == "") is exempt


async def test_requests_need_none_of_the_threads_that_all_share(one_peer: Peer, web: Web) -> None:
    web.page("/x", body=b"hello")
    shared = trio.to_thread.current_default_thread_limiter()
    with ExitStack() as taken:
        for holder in range(int(shared.total_tokens)):
            await shared.acquire_on_behalf_of(holder)
            taken.callback(shared.release_on_behalf_of, holder)
        result = await one_peer.call("http/request", wanted(web, "/x"))
    assert base64.b64decode(result["bodyBase64"]) == b"hello"


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl program to make a certificate")
async def test_tls(one_peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    making = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    making += ["-days", "2", "-subj", "/CN=relay", "-addext", "subjectAltName=IP:127.0.0.1"]
    await trio.run_process(making, capture_stderr=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    async with open_web(lambda stream: trio.SSLStream(stream, context, server_side=True, https_compatible=True)) as web:
        web.page("/x", body=b"sealed")
        params = wanted(web, url=f"https://127.0.0.1:{web.port}/x")
        result = await one_peer.call("http/request", params)
        assert base64.b64decode(result["bodyBase64"]) == b"sealed"
        params["url"] = f"https://localhost:{web.port}/x"  # the certificate is for another name
        _, message, data = await one_peer.refused("http/request", params)
        assert data["kind"] == "http-failed"
        assert "certificate is not valid for 'localhost'" in message


async def test_switched_off(open_server: OpenServer, web: Web) -> None:
    peer = await open_server("memory", ServerConfig(allow_http=False)).peer(ready=False)
    greeting = await peer.handshake()
    assert greeting["environmentInfo"]["capabilities"]["httpHeaderEnvVars"] is False
    code, message, data = await peer.refused("http/request", wanted(web))
    assert (code, data["kind"]) == (-32600, "http-unavailable")
    assert message == "http/request is switched off on this server: allow_http is false"


WITHOUT = (
    "import sys; sys.modules['httpcore'] = None; sys.argv = ['execsrv', 'serve']; "
    "from execsrv._cli.app import main; main()"
)


def test_without_the_extra() -> None:
    """A server on which httpcore cannot be imported says what to install."""
    lines = b"""{"id":1,"method":"initialize","params":{"clientName":"t"}}
{"method":"initialized"}
{"id":2,"method":"http/request","params":{"method":"GET","url":"http://127.0.0.1:1/","requestId":"r"}}
"""
    server = subprocess.Popen([sys.executable, "-c", WITHOUT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(lines)
        server.stdin.flush()
        greeting, refusal = server.stdout.readline(), server.stdout.readline()
        server.stdin.close()
    assert b'"httpHeaderEnvVars":false' in greeting
    assert b'"kind":"http-unavailable"' in refusal
    assert b"install `execsrv[http]` on the server" in refusal


def test_what_most_servers_do_not_need_is_imported_late() -> None:
    script = (
        "import sys, execsrv._cli.serve, execsrv._wire.websocket;"
        "print([m for m in ('httpcore', 'certifi', 'execsrv._files.files') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
