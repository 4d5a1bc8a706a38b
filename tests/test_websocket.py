"""What is particular to the websocket: the HTTP request in front of it, large messages, small ones at once."""

from __future__ import annotations

import gc
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
import wsproto

from execsrv import connect_websocket
from execsrv._wire.bounds import MessageBound
from execsrv._wire.channel import MessageChannel
from execsrv._wire.http_head import Upgrade
from execsrv._wire.websocket import Serve, serve_websocket
from execsrv._wire.websocket_frames import put_header
from execsrv._wire.websocket_library import Wire
from execsrv.errors import ConnectionFailedError
from execsrv.limits import ClientConfig, ServerConfig
from execsrv.protocol import Notification
from tests.conftest import Server
from tests.peers import PATIENCE, b64

UPGRADE = (
    "Host: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


BAD_KEY = "Sec-WebSocket-Key header must be 16 bytes in base64"
NO_BROWSERS = (
    "the origin `http://evil` is refused, so that no web page can reach this server: list it in allowed_origins, or"
    " leave the Origin header out in a client that is no browser"
)


@pytest.fixture
def websocket_server(open_server: Any) -> Server:
    server: Server = open_server("websocket", ServerConfig(handshake_timeout=PATIENCE))
    return server


async def connect(server: Server) -> trio.SocketStream:
    host, _, port = (await server.url()).removeprefix("ws://").rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


async def ask(server: Server, request: str) -> tuple[int, str]:
    """Status and body of the answer to a raw request."""
    answer = bytearray()
    async with await connect(server) as stream:
        await stream.send_all(request.encode())
        with trio.fail_after(PATIENCE):
            while data := await stream.receive_some():
                answer += data
                if answer.startswith(b"HTTP/1.1 101"):
                    break
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize(
    ("request_text", "status", "body"),
    [
        ("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", 200, ""),
        ("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200, ""),
        ("GET /readyz?x=1 HTTP/1.1\r\nHost: x\r\n\r\n", 200, ""),
        ("GET /other HTTP/1.1\r\nHost: x\r\n\r\n", 404, ""),
        (f"GET /other HTTP/1.1\r\n{UPGRADE}\r\n", 404, ""),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "Connection header did not include 'upgrade'"),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n\r\n", 400, "Upgrade header did not include 'websocket'"),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405, "Request method must be GET"),
        ("GET /readyz HTTP/1.1\r\nHost: x\r\nOrigin: http://evil\r\n\r\n", 403, NO_BROWSERS),
        (f"GET / HTTP/1.1\r\n{UPGRADE}Origin: http://evil\r\n\r\n", 403, NO_BROWSERS),
        (f"GET / HTTP/1.1\r\n{UPGRADE.replace(': 13', ': 12')}\r\n", 426, "Sec-WebSocket-Version header must be 13"),
        (f"GET / HTTP/1.1\r\n{UPGRADE.replace('-Version', '-V')}\r\n", 426, "Sec-WebSocket-Version header must be 13"),
        (f"GET / HTTP/1.1\r\n{UPGRADE.replace('-Key', '-K')}\r\n", 400, "Sec-WebSocket-Key header is missing"),
        (f"GET / HTTP/1.0\r\n{UPGRADE.replace('Host', 'H')}\r\n", 400, "Host header is missing"),
        (
            f"GET / HTTP/1.1\r\n{UPGRADE.replace(', Upgrade', ', Upgrade-Insecure')}\r\n",
            400,
            "Connection header did not include 'upgrade'",
        ),
        (f"GET / HTTP/1.1\r\n{UPGRADE}\r\n", 101, ""),
        (f"GET /?token=ignored HTTP/1.1\r\n{UPGRADE}\r\n", 101, ""),
        (f"GET / HTTP/1.1\r\n{UPGRADE}Connection: close\r\n\r\n", 101, ""),
        (f"GET / HTTP/1.1\r\nConnection: x\r\n{UPGRADE}\r\n", 101, ""),
        (f"GET / HTTP/1.1\r\n{UPGRADE}Upgrade: h2c\r\n\r\n", 101, ""),
        (f"GET / HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Protocol: caf\u00e9\r\n\r\n", 101, ""),
        (f"GET / HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Extensions: \u00e9\r\n\r\n", 101, ""),
        (
            f"GET / HTTP/1.1\r\n{UPGRADE.replace('dGhl', '')}\r\n",
            400,
            BAD_KEY,
        ),
    ],
)
async def test_the_front_door(websocket_server: Server, request_text: str, status: int, body: str) -> None:
    assert await ask(websocket_server, request_text) == (status, body)


def upgrade(host: str, origin: str | None = None) -> str:
    head = UPGRADE.replace("Host: localhost", f"Host: {host}")
    return f"GET / HTTP/1.1\r\n{head}{f'Origin: {origin}' + chr(13) + chr(10) if origin is not None else ''}\r\n"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 101),
        ("127.0.0.1:8765", 101),
        ("[::1]:8765", 101),
        ("[::1]", 101),
        ("localhost:1", 101),  # as where a port is forwarded
        ("LOCALHOST.", 101),
        ("a.localhost", 101),
        (socket.gethostname(), 101),
        ("192.0.2.7:8765", 101),  # an address cannot be made to lead elsewhere
        ("build.example", 101),
        ("evil.example", 403),
        ("evil.example:8765", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("evil@localhost", 403),
        ("localhost, evil.example", 403),
        ("[::1]evil.example", 403),
        ("-", 403),
    ],
)
async def test_a_name_that_is_not_ours_is_refused(open_server: Any, host: str, status: int) -> None:
    """A page can have its own name lead to this machine, and then its `Origin` is that of the `Host`."""
    config = ServerConfig(handshake_timeout=PATIENCE, allowed_hosts=("build.example",))
    server = open_server("websocket", config)
    answered, body = await ask(server, upgrade(host))
    assert answered == status
    assert ("allowed_hosts" in body) == (status == 403)
    if status == 403:
        assert (await ask(server, upgrade(host, f"http://{host}")))[0] == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8765", 101),  # as some clients say that are no browsers
        ("HTTP://127.0.0.1:8765", 101),
        ("https://tools.example", 101),
        ("https://127.0.0.1:8765", 403),
        ("http://127.0.0.1", 403),
        ("http://127.0.0.1:8766", 403),
        ("http://localhost:8765", 403),
        ("https://tools.example.evil.example", 403),
        ("http://tools.example", 403),
        ("https://tools.example:444", 403),
        ("null", 403),
        ("", 403),
        ("http://127.0.0.1:8765, http://evil.example", 403),
        ("file://", 403),
    ],
)
async def test_an_origin_is_ours_or_listed(open_server: Any, origin: str, status: int) -> None:
    config = ServerConfig(handshake_timeout=PATIENCE, allowed_origins=("https://tools.example",))
    server = open_server("websocket", config)
    answered, body = await ask(server, upgrade("127.0.0.1:8765", origin))
    assert answered == status
    assert ("allowed_origins" in body) == (status == 403)


async def test_our_own_origin_is_refused_from_a_browser_unless_listed(open_server: Any) -> None:
    """We serve no pages: somebody else did, at this port before us or at another address of `localhost`."""
    config = ServerConfig(handshake_timeout=PATIENCE, allowed_origins=("http://listed.localhost:8765",))
    server = open_server("websocket", config)
    for host, status in (("127.0.0.1:8765", 403), ("localhost:8765", 403), ("listed.localhost:8765", 101)):
        browser = upgrade(host, f"http://{host}").removesuffix("\r\n") + "User-Agent: Mozilla/5.0 (X11)\r\n\r\n"
        assert (await ask(server, browser))[0] == status


async def test_two_origins_or_hosts_are_none(websocket_server: Server) -> None:
    own = f"GET / HTTP/1.1\r\n{UPGRADE}Origin: http://localhost\r\n"
    assert (await ask(websocket_server, f"{own}\r\n"))[0] == 101
    assert (await ask(websocket_server, f"{own}Origin: http://evil.example\r\n\r\n"))[0] == 403
    assert (await ask(websocket_server, f"{own}Host: evil.example\r\n\r\n"))[0] in (400, 403)


async def test_a_request_that_is_none(websocket_server: Server) -> None:
    assert (await ask(websocket_server, "nonsense\r\n\r\n"))[0] == 400
    status, body = await ask(websocket_server, f"GET / HTTP/1.1\r\nHost: x\r\nX: {'x' * 20_000}\r\n\r\n")
    assert (status, body) == (431, "request head is larger than 16384 bytes")


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (f"GET / HTTP/1.1\r\nHost: x\r\nX: {'x' * 300_000}\r\n\r\n", 431),
        (f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n{'x' * 300_000}", 405),
        ("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000, 200),
    ],
)
async def test_who_sends_more_than_is_read_has_its_answer(
    websocket_server: Server, request_text: str, status: int
) -> None:
    """To close with something unread would reset the connection, and take the answer back."""
    assert (await ask(websocket_server, request_text))[0] == status


async def test_who_does_not_speak_is_hung_up_on(open_server: Any) -> None:
    server = open_server("websocket", ServerConfig(handshake_timeout=0.1))
    for start in (b"", b"GET / HT", f"GET / HTTP/1.1\r\n{UPGRADE}".encode()):
        async with await connect(server) as stream:
            await stream.send_all(start)
            with trio.fail_after(PATIENCE):
                assert await stream.receive_some() == b""


async def test_a_handshake_and_a_message_in_one_packet(websocket_server: Server) -> None:
    message = b'{"id":1,"method":"nope"}'
    frame = bytes([0x81, 0x80 | len(message)]) + bytes(4) + message
    async with await connect(websocket_server) as stream:
        await stream.send_all(f"GET / HTTP/1.1\r\n{UPGRADE}\r\n".encode() + frame)
        answer = bytearray()
        with trio.fail_after(PATIENCE):
            while b"unknown method" not in answer:
                answer += await stream.receive_some()
    assert answer.startswith(b"HTTP/1.1 101")


async def test_what_was_asked_before_a_close_frame_in_the_same_packet_is_answered(websocket_server: Server) -> None:
    said = [b'{"id":%d,"method":"nope"}' % number for number in range(9)]
    frames = b"".join(bytes([0x81, 0x80 | len(message)]) + bytes(4) + message for message in said)
    async with await connect(websocket_server) as stream:
        await stream.send_all(f"GET / HTTP/1.1\r\n{UPGRADE}\r\n".encode() + frames + b"\x88\x80" + bytes(4))
        heard = bytearray()
        with trio.fail_after(PATIENCE):
            while data := await stream.receive_some():
                heard += data
    assert heard.count(b"unknown method") == len(said)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 1_000_000])
def test_headers_of_every_length(size: int) -> None:
    """The header of a frame has three forms; the library's other end reads what we write."""
    buffer = bytearray(10) + b"x" * size
    start = put_header(memoryview(buffer), size)
    reader = wsproto.connection.Connection(wsproto.connection.ConnectionType.CLIENT)
    reader.receive_data(bytes(buffer[start:]))
    (event,) = reader.events()
    assert isinstance(event, wsproto.events.TextMessage)
    assert event.data == "x" * size
    assert event.message_finished


async def test_connecting_can_be_cancelled_at_once() -> None:
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
        scope.cancel()
        async with connect_websocket("ws://127.0.0.1:1"):
            pass


async def test_messages_of_many_megabytes(websocket_server: Server) -> None:
    peer = await websocket_server.peer()
    size = 30_000_000
    await peer.start("a", ["sh", "-c", f"head -c {size} | wc -c"], pipeStdin=True)
    params = {"processId": "a", "chunk": b64(bytes(size)), "writeId": "1"}
    assert await peer.call("process/write", params) == {"status": "accepted"}
    await peer.until_told("a", "closed")
    assert int(peer.output("a")) == size


async def test_small_messages_do_not_wait_for_each_other(websocket_server: Server) -> None:
    """TCP_NODELAY is set on what is accepted."""
    peer = await websocket_server.peer()
    await peer.run("a", ["true"])
    port = int((await websocket_server.url()).rpartition(":")[2])
    sockets = [thing for thing in gc.get_objects() if isinstance(thing, socket.socket) and thing.fileno() >= 0]
    connected = [thing for thing in sockets if port in _ports(thing)]
    assert len(connected) == 2
    for thing in connected:
        assert thing.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def _ports(thing: socket.socket) -> set[int]:
    """The ports at both ends of a connected TCP socket."""
    if thing.family != socket.AF_INET or thing.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return set()
    return {thing.getsockname()[1], thing.getpeername()[1]}


async def test_a_frame_that_is_none_ends_the_connection_with_a_reason(websocket_server: Server) -> None:
    amid_another = b"\x01\x80\0\0\0\0\x81\x80\0\0\0\0"
    for frame, code in [(b"\x81\x81\0\0\0\0\xff", 1007), (b"\x8f\x80\0\0\0\0", 1002), (amid_another, 1002)]:
        async with await connect(websocket_server) as stream:
            await stream.send_all(f"GET / HTTP/1.1\r\n{UPGRADE}\r\n".encode() + frame)
            said = bytearray()
            with trio.fail_after(PATIENCE):
                while data := await stream.receive_some():
                    said += data
        assert b'"id":null,"error":{"code":-32600,"message":"malformed message: ' in said
        assert b"\x88" in said
        assert code.to_bytes(2, "big") + b"malformed message: " in said.rpartition(b"\x88")[2]


async def test_while_a_line_is_drained_the_library_waits_for_its_end() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    wire = Wire(ours, MessageBound(1000), b"a head")
    wire.opened.set()
    assert await wire.receive_some() == b"a head"
    heard = []

    async def read_on() -> None:
        heard.append(await wire.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.drain)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(read_on)
        await trio.testing.wait_all_tasks_blocked()
        await theirs.send_all(b"for nobody")
        await trio.testing.wait_all_tasks_blocked()
        assert heard == []
        await theirs.send_eof()
    assert heard == [b""]


async def test_pings_are_answered(websocket_server: Server) -> None:
    async with trio_websocket.open_websocket_url(await websocket_server.url()) as websocket:
        with trio.fail_after(PATIENCE):
            await websocket.ping(b"hello")


async def test_a_closed_port_is_a_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConnectionFailedError, match=f"cannot connect to `{url}`"):
            async with connect_websocket(url):
                pass


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", b"SSH-2.0-x\r\n"])
async def test_what_is_no_websocket_server_is_a_clear_error(answer: bytes) -> None:
    async def serve_wrongly(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve_wrongly, 0)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(ConnectionFailedError):
            async with connect_websocket(f"ws://127.0.0.1:{port}", config=ClientConfig(handshake_timeout=2)):
                pass
        nursery.cancel_scope.cancel()


async def test_a_server_that_never_answers_is_given_up_on() -> None:
    async def hold(stream: trio.SocketStream) -> None:
        async with stream:
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, hold, 0)
        port = listeners[0].socket.getsockname()[1]
        with trio.fail_after(PATIENCE), pytest.raises(ConnectionFailedError, match=r"0\.05 s"):
            async with connect_websocket(f"ws://127.0.0.1:{port}", config=ClientConfig(handshake_timeout=0.05)):
                pass
        nursery.cancel_scope.cancel()


async def test_the_reason_of_a_close_frame_is_told() -> None:
    async def close(request: trio_websocket.WebSocketRequest) -> None:
        websocket = await request.accept()
        await websocket.aclose(1008, "go away \x1b[31m")

    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, close, "127.0.0.1", 0, None)
        with pytest.raises(ConnectionFailedError) as caught:
            async with connect_websocket(f"ws://127.0.0.1:{server.port}"):
                pass
        assert str(caught.value).endswith(": the server ended the connection: `go away \\x1b[31m`")
        nursery.cancel_scope.cancel()


def letting_in(serve: Serve) -> Callable[[Upgrade], Awaitable[Serve]]:
    """Let everybody in, to be served so."""

    async def admit(upgrade: Upgrade) -> Serve:
        return serve

    return admit


async def test_who_is_not_known_in_time_is_let_go(autojump_clock: trio.testing.MockClock) -> None:
    """As where the machine is too busy to be asked who it is."""
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())

    async def admit(upgrade: Upgrade) -> Serve:
        await trio.sleep_forever()
        raise AssertionError

    async with trio.open_nursery() as nursery, ours:
        nursery.start_soon(serve_websocket, theirs, ServerConfig(), admit)
        await ours.send_all(f"GET / HTTP/1.1\r\n{UPGRADE}\r\n".encode())
        assert await ours.receive_some() == b""


async def test_nothing_is_said_into_a_frame_that_was_cut() -> None:
    """A close frame in the middle of a message would be read as a part of that message."""
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
    cut = trio.Event()
    size = 20_000_000

    async def serve(channel: MessageChannel) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.send, Notification("much", {"text": "x" * size}))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        cut.set()
        with trio.fail_after(PATIENCE):
            await channel.aclose(1001, "the reason")

    heard = bytearray()
    async with trio.open_nursery() as nursery, ours:
        nursery.start_soon(serve_websocket, theirs, ServerConfig(), letting_in(serve))
        await ours.send_all(f"GET / HTTP/1.1\r\n{UPGRADE}\r\n".encode())
        await cut.wait()
        while data := await ours.receive_some():
            heard += data
    head, _, frame = heard.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    assert frame[:2] == b"\x81\x7f"
    assert 0 < len(frame) < size
    assert frame.rstrip(b"x").endswith(b'"text":"')


async def test_who_has_read_on_meanwhile_is_alive(autojump_clock: trio.testing.MockClock) -> None:
    """It was not asked, as it could not have answered; that it took all there was is its answer."""
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
    reads_on = trio.Event()
    found = []

    async def watch(channel: MessageChannel) -> None:
        found.append(await channel.is_alive(PATIENCE))

    async def serve(channel: MessageChannel) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.send, Notification("much", {"text": "x" * 3_000_000}))
            await trio.sleep(1)  # since something was heard of it
            nursery.start_soon(watch, channel)
            await trio.testing.wait_all_tasks_blocked()
            reads_on.set()
        await watch(channel)  # now it is asked, and says nothing

    async with trio.open_nursery() as nursery, ours:
        nursery.start_soon(serve_websocket, theirs, ServerConfig(), letting_in(serve))
        await ours.send_all(f"GET / HTTP/1.1\r\n{UPGRADE}\r\n".encode())
        await reads_on.wait()
        while await ours.receive_some():
            pass
    assert found == [True, False]
