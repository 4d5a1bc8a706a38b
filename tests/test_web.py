"""The page of a server: its files and their policy, and who is let in by it."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from pathlib import Path
from typing import Any, NamedTuple, cast

import h11
import pytest
import trio
from trio_websocket import open_websocket_url

import execsrv
from execsrv._web import pages
from execsrv.limits import ServerConfig
from tests.browser import Served, open_served
from tests.certificates import Authority
from tests.conftest import OpenServer
from tests.terminals import EXECSRV
from tests.test_tokens import write

BROWSER = "User-Agent: Mozilla/5.0"
UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


class Response(NamedTuple):
    status: int
    fields: dict[str, str]
    body: bytes


@pytest.fixture
async def served(open_server: OpenServer, tmp_path: Path) -> Served:
    return await open_served(open_server, tmp_path)


async def ask(port: int, path: str, *fields: str, method: str = "GET", host: str = "") -> Response:
    """One request, byte for byte, and what comes back."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        head = [f"{method} {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{port}'}", *fields, "", ""]
        await stream.send_all("\r\n".join(head).encode())
        parser = h11.Connection(h11.CLIENT)
        proposal = [("Connection", "Upgrade"), ("Upgrade", "websocket")] if fields[: len(UPGRADE)] == UPGRADE else []
        parser.send(h11.Request(method=method, target=path, headers=[("Host", "x"), *proposal]))
        status, got, body = 0, {}, b""
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(bytes(await stream.receive_some()))
            elif isinstance(event, h11.Response | h11.InformationalResponse):
                status = event.status_code
                got = {name.decode(): value.decode() for name, value in event.headers}
                if status == 101:
                    return Response(status, got, b"")
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                return Response(status, got, body)


async def test_its_files_come_with_a_policy_and_are_not_kept(served: Served) -> None:
    index = await ask(served.port, "/", BROWSER)
    assert (index.status, index.fields["content-type"]) == (200, "text/html; charset=utf-8")
    policy = index.fields["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'nonce-")
    assert "unsafe-inline" not in policy
    assert "frame-ancestors 'none'" in policy
    nonce = re.findall("'nonce-(.*?)'", policy)[0]
    assert f'content="{nonce}"' in index.body.decode()
    assert "{{" not in index.body.decode()
    assert nonce not in (await ask(served.port, "/", BROWSER)).body.decode()  # each has its own
    for path in [*re.findall('(?:href|src)="(/[^"]+)"', index.body.decode()), "/web/player.js", "/web/player.css"]:
        got = await ask(served.port, path, BROWSER)
        assert got.status == 200, path
        assert (got.fields["cache-control"], got.fields["x-content-type-options"]) == ("no-store", "nosniff")
        assert got.body
        for imported in re.findall('from "(/web/[^"]+)"|import "(/web/[^"]+)"', got.body.decode()):
            assert "".join(imported).encode() in pages.PATHS
    assert not re.search('<script(?! type="module" src=)|<style|style=| on[a-z]+=|https?://', index.body.decode())


@pytest.mark.parametrize(
    ("path", "status"),
    [("/web/", 404), ("/web/../pages.py", 404), ("/web/app.js/", 404), ("/web/%2e%2e/pages.py", 404), ("//", 404)],
)
async def test_there_are_no_other_files(served: Served, path: str, status: int) -> None:
    assert (await ask(served.port, path, BROWSER)).status == status
    assert (await ask(served.port, "/", BROWSER, method="POST")).status == 405


async def test_a_name_that_was_made_to_lead_here_has_no_page(served: Served) -> None:
    assert (await ask(served.port, "/", BROWSER, host=f"evil.example:{served.port}")).status == 403
    assert (await ask(served.port, "/", BROWSER, host=f"localhost:{served.port}")).status == 200


async def test_the_page_is_let_in_by_its_token_alone(served: Served) -> None:
    page = [*UPGRADE, BROWSER, f"Origin: {served.origin}"]
    assert (await ask(served.port, "/", *page, "Sec-WebSocket-Protocol: execsrv, execsrv.token.wrong")).status == 401
    protocols = f"Sec-WebSocket-Protocol: execsrv, execsrv.token.{served.tokens['me']}"
    let_in = await ask(served.port, "/", *page, protocols)
    assert (let_in.status, let_in.fields["sec-websocket-protocol"]) == (101, "execsrv")
    elsewhere = [*UPGRADE, BROWSER, f"Origin: http://127.0.0.1:{served.port + 1}"]
    assert (await ask(served.port, "/", *elsewhere, protocols)).status == 403
    assert (await ask(served.port, "/", *UPGRADE, BROWSER, "Origin: null", protocols)).status == 403
    assert (await ask(served.port, "/", *UPGRADE)).status == 101  # the same user, by a program that is no browser


async def hello(served: Served, token: str | None, origin: str = "", *more: tuple[bytes, bytes]) -> dict[str, Any]:
    """The answer to `initialize` on a websocket of a page, whose upgrade has no token."""
    headers = [(b"Origin", (origin or served.origin).encode()), (b"User-Agent", b"Mozilla/5.0"), *more]
    async with open_websocket_url(f"ws://127.0.0.1:{served.port}", extra_headers=headers) as socket:
        params = {"clientName": "page", "token": token}
        await socket.send_message(json.dumps({"id": 1, "method": "initialize", "params": params}))
        return cast(dict[str, Any], json.loads(await socket.get_message()))


async def test_a_page_says_its_token_first_of_all(served: Served) -> None:
    for token in (None, "wrong", ""):
        error = (await hello(served, token))["error"]
        assert error["data"]["kind"] == "unauthorized", error
    assert "a page needs one, whoever has the browser" in (await hello(served, None))["error"]["message"]
    assert "result" in await hello(served, served.tokens["me"])


async def test_a_page_behind_a_proxy_says_its_token_too(open_server: OpenServer, tmp_path: Path) -> None:
    origin, forwarded = "https://build.example", (b"X-Forwarded-For", b"192.0.2.1")
    served = await open_served(open_server, tmp_path, allowed_origins=[origin])
    for token in (None, "wrong"):
        assert (await hello(served, token, origin, forwarded))["error"]["data"]["kind"] == "unauthorized"
    assert "result" in await hello(served, served.tokens["me"], origin, forwarded)
    assert (await ask(served.port, "/", *UPGRADE, BROWSER, "Origin: https://other.example")).status == 403


async def test_the_page_comes_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tokens = write(tmp_path / "tokens", me="owner")
    config = ServerConfig(
        web=True, token_file=str(tmp_path / "tokens"), tls_certificate_file=authority.server("127.0.0.1")
    )
    trust = ssl.create_default_context(cafile=authority.file)
    async with trio.open_nursery() as nursery:
        url = await nursery.start(execsrv.serve, "wss://127.0.0.1:0", config)
        for path in ("/", "/web/xterm.js"):  # the second is longer than a buffer
            port = int(url.rpartition(":")[2])
            stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=trust, https_compatible=True)
            async with stream:
                await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: build\r\nUser-Agent: Mozilla/5.0\r\n\r\n".encode())
                got = b"".join([bytes(data) async for data in stream])
            head, _, body = got.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert f"Content-Length: {len(body)}\r\n".encode() in head
        headers = [(b"Origin", url.replace("wss", "https").encode()), (b"User-Agent", b"Mozilla/5.0")]
        async with open_websocket_url(url, ssl_context=trust, extra_headers=headers) as socket:
            params = {"clientName": "page", "token": tokens["me"]}
            await socket.send_message(json.dumps({"id": 1, "method": "initialize", "params": params}))
            assert "result" in json.loads(await socket.get_message())
        nursery.cancel_scope.cancel()


async def test_a_page_of_a_listed_origin_needs_the_certificate_that_everybody_needs(tmp_path: Path) -> None:
    """That it may say its token later is no way around it: the user of this machine is not asked for there."""
    authority, origin = Authority(tmp_path), "https://build.example"
    tokens = write(tmp_path / "tokens", me="owner")
    config = ServerConfig(
        web=True,
        token_file=str(tmp_path / "tokens"),
        tls_certificate_file=authority.server("127.0.0.1"),
        tls_client_ca_file=authority.file,
        allowed_origins=(origin,),
    )
    trust = ssl.create_default_context(cafile=authority.file)
    headers = [(b"Origin", origin.encode()), (b"User-Agent", b"Mozilla/5.0")]
    async with trio.open_nursery() as nursery:
        url = await nursery.start(execsrv.serve, "wss://127.0.0.1:0", config)
        for token, answer in ((None, "error"), (tokens["me"], "result")):
            async with open_websocket_url(url, ssl_context=trust, extra_headers=headers) as socket:
                params = {"clientName": "page", "token": token}
                await socket.send_message(json.dumps({"id": 1, "method": "initialize", "params": params}))
                assert answer in json.loads(await socket.get_message())
        nursery.cancel_scope.cancel()


async def test_not_even_where_anybody_may_come_in_a_page_does_without(open_server: OpenServer, tmp_path: Path) -> None:
    served = await open_served(open_server, tmp_path, allow_anybody=True)
    assert (await hello(served, None))["error"]["data"]["kind"] == "unauthorized"


async def test_without_the_setting_there_is_no_page(open_server: OpenServer) -> None:
    port = int((await open_server("websocket", ServerConfig()).url()).rpartition(":")[2])
    assert (await ask(port, "/", BROWSER)).status == 400
    assert (await ask(port, "/web/app.js", BROWSER)).status == 404
    assert (await ask(port, "/", *UPGRADE, BROWSER, f"Origin: http://127.0.0.1:{port}")).status == 403


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("ws://127.0.0.1:0", "a page is let in by its token alone; set a token_file"),
        ("unix:///tmp/no-page", "a browser reaches only `ws://` and `wss://`"),
        ("stdio://", "a browser reaches only `ws://` and `wss://`"),
    ],
)
def test_a_page_that_nobody_could_come_into_is_refused(listen: str, why: str) -> None:
    argv = [*EXECSRV, "serve", "--listen", listen, "--web"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert f"cannot serve a page on {listen}: {why}" in done.stderr
