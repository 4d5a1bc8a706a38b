"""TLS: who is trusted by whom, what is refused and how it is told, and a server that reads its certificates again."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import execsrv
from execsrv import ClientConfig, ConnectionFailedError, ForbiddenError, ServerConfig
from execsrv._doors.certificates import Certificates
from execsrv._wire.tls import client_context, server_context
from execsrv._wire.websocket import open_websocket
from execsrv.errors import CannotListenError, InvalidConfigError
from tests.certificates import Authority
from tests.peers import PATIENCE, open_peer

Serve = Callable[..., Awaitable[str]]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server for the rest of the test, and give its URL."""
    async with trio.open_nursery() as nursery:

        async def start(listen: str = "wss://127.0.0.1:0", /, *, again: Any = trio.sleep_forever, **config: Any) -> str:
            url: str = await nursery.start(partial(execsrv.serve, listen, ServerConfig(**config), reload_trigger=again))
            return url

        yield start
        nursery.cancel_scope.cancel()


async def echo(url: str, **config: Any) -> str:
    async with execsrv.connect(url, config=ClientConfig(**config)) as client:
        return str((await client.run(["echo", "hi"], text=True)).stdout)


async def refusal(url: str, token: str | None = None, **config: Any) -> str:
    """What is said of a server that a client does not get into."""
    with trio.fail_after(PATIENCE), pytest.raises(ConnectionFailedError) as caught:
        async with execsrv.connect(url, token=token, config=ClientConfig(**config)):
            pass
    return str(caught.value)


# -- the server's certificate --


async def test_a_server_that_is_trusted(authority: Authority, serve: Serve) -> None:
    url = await serve(tls_certificate_file=authority.server())
    assert url.startswith("wss://127.0.0.1:")
    assert await echo(url, tls_ca_file=authority.file) == "hi\n"


async def test_many_megabytes_both_ways(authority: Authority, serve: Serve) -> None:
    data = os.urandom(8_000_000)
    url = await serve(tls_certificate_file=authority.server())
    async with execsrv.connect(url, config=ClientConfig(tls_ca_file=authority.file)) as client:
        assert (await client.run(["cat"], input=data)).stdout == data


def test_all_that_is_there_is_given_in_one_read(authority: Authority) -> None:
    """And what is met behind it, an end or a record that is none, at the next."""
    config = ServerConfig(tls_certificate_file=authority.server())
    context = client_context(ClientConfig(tls_ca_file=authority.file))

    def connected() -> tuple[ssl.SSLObject, ssl.SSLObject, ssl.MemoryBIO]:
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = server_context(config).wrap_bio(to_server, to_client, server_side=True)
        client = context.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
        waiting = [client, server, client, server]
        for side in waiting:
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
        return client, server, to_client

    data = os.urandom(100_000)
    client, server, _ = connected()
    server.write(data)
    assert client.read(30_000) + client.read(1 << 20) == data
    with pytest.raises(ssl.SSLWantReadError):
        client.read(1)
    server.write(data)
    with suppress(ssl.SSLWantReadError):
        server.unwrap()
    assert client.read(1 << 20) == data
    assert client.read(1 << 20) == client.read(1 << 20) == b""

    client, server, to_client = connected()
    server.write(data)
    to_client.write(b"no record at all")
    assert client.read(1 << 20) == data
    for _ in range(2):
        with pytest.raises(ssl.SSLError, match=r"(?i)record|version"):
            client.read(1 << 20)


async def test_a_key_in_a_file_of_its_own(authority: Authority, serve: Serve, tmp_path: Path) -> None:
    both = await trio.Path(authority.server()).read_bytes()
    start = both.index(b"-----BEGIN CERTIFICATE")
    (tmp_path / "key").write_bytes(both[:start])
    (tmp_path / "certificate").write_bytes(both[start:])
    url = await serve(tls_certificate_file=f"{tmp_path}/certificate", tls_key_file=f"{tmp_path}/key")
    assert await echo(url, tls_ca_file=authority.file) == "hi\n"


@pytest.mark.parametrize("trusted", ["nobody", "another"])
async def test_an_authority_that_is_not_trusted(
    trusted: str, authority: Authority, serve: Serve, tmp_path: Path
) -> None:
    """Neither by the machine's authorities, nor where another one is named: that one alone counts."""
    url = await serve(tls_certificate_file=authority.server())
    config = {"tls_ca_file": Authority(tmp_path, "other").file} if trusted == "another" else {}
    told = await refusal(url, **config)
    assert "its certificate is not trusted: unable to get local issuer certificate; set tls_ca_file" in told


@pytest.mark.parametrize("name", ["example.org", "192.0.2.1", "localhost"])
async def test_a_certificate_for_another_name(name: str, authority: Authority, serve: Serve) -> None:
    url = await serve(tls_certificate_file=authority.server(name))
    assert "IP address mismatch" in await refusal(url, tls_ca_file=authority.file)


async def test_a_certificate_for_a_name_and_not_for_its_address(authority: Authority, serve: Serve) -> None:
    url = await serve(tls_certificate_file=authority.server("localhost"))
    assert await echo(url.replace("127.0.0.1", "localhost"), tls_ca_file=authority.file) == "hi\n"


@pytest.mark.parametrize(
    ("days", "complaint"), [((-9, -1), "certificate has expired"), ((1, 9), "certificate is not yet valid")]
)
async def test_a_certificate_out_of_its_time(
    days: tuple[int, int], complaint: str, authority: Authority, serve: Serve
) -> None:
    url = await serve(tls_certificate_file=authority.dated(*days))
    assert f"its certificate is not trusted: {complaint}" in await refusal(url, tls_ca_file=authority.file)


async def test_nothing_is_said_to_a_server_that_is_not_trusted(authority: Authority) -> None:
    """No byte of HTTP, and so no token: the line ends in the handshake."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.server())
    heard = []

    async def listen(plain: trio.SocketStream) -> None:
        stream = trio.SSLStream(plain, context, server_side=True)
        try:
            heard.append(await stream.receive_some())
        except trio.BrokenResourceError:
            heard.append(b"")
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, listen, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        assert "not trusted" in await refusal(f"wss://127.0.0.1:{port}", "secret")
        with trio.fail_after(PATIENCE):
            while not heard:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert heard == [b""]


# -- certificates of clients --


async def test_a_client_is_who_its_certificate_says(authority: Authority, serve: Serve, tmp_path: Path) -> None:
    url = await serve(tls_certificate_file=authority.server(), tls_client_ca_file=authority.file)
    trusting = {"tls_ca_file": authority.file}
    assert await echo(url, **trusting, tls_certificate_file=authority.client("alice")) == "hi\n"
    assert "this server asks for the certificate of a client" in await refusal(url, **trusting)
    expired = authority.client("old", expired=True)
    told = await refusal(url, **trusting, tls_certificate_file=expired)
    assert "it does not take our certificate (certificate expired)" in told
    stranger = Authority(tmp_path, "other").client("alice")
    told = await refusal(url, **trusting, tls_certificate_file=stranger)
    assert "it does not take our certificate (unknown ca)" in told


async def test_clients_have_the_roles_of_their_names(authority: Authority, serve: Serve, tmp_path: Path) -> None:
    clients = tmp_path / "clients"
    clients.write_text("# who may come in\n\nowner alice\nviewer  Bob the Builder\n")
    url = await serve(
        tls_certificate_file=authority.server(), tls_client_ca_file=authority.file, tls_clients_file=str(clients)
    )
    trusting = {"tls_ca_file": authority.file}
    assert await echo(url, **trusting, tls_certificate_file=authority.client("alice")) == "hi\n"
    with pytest.raises(ForbiddenError):
        await echo(url, **trusting, tls_certificate_file=authority.client("Bob the Builder"))
    told = await refusal(url, **trusting, tls_certificate_file=authority.client("mallory"))
    assert "the name in this certificate is none of those that may come in" in told


async def test_a_connection_is_not_resumed_with_another_certificate(authority: Authority, serve: Serve) -> None:
    url = await serve(tls_certificate_file=authority.server(), tls_client_ca_file=authority.file, resume_grace=PATIENCE)

    def opened(name: str) -> Any:
        config = ClientConfig(tls_ca_file=authority.file, tls_certificate_file=authority.client(name))
        return open_websocket(url, config, None, partial(client_context, config))

    async with opened("alice") as channel, open_peer(channel) as peer:
        id = (await peer.handshake())["sessionId"]
    resume = {"clientName": "test", "resumeSessionId": id}
    async with opened("mallory") as channel, open_peer(channel) as peer:
        assert (await peer.refused("initialize", resume))[1] == f"unknown session id {id}"
    async with opened("alice") as channel, open_peer(channel) as peer:
        assert (await peer.call("initialize", resume))["sessionId"] == id


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("king alice", r"line 2 is not a role \(health, viewer, writer, owner\) and a name"),
        ("owner", "line 2 is not a role"),
        ("owner alice\nviewer alice", "line 3 has a name for the second time"),
        ("\xff", "cannot read the file of clients"),
        ("owner a" * 200_000, "it is larger than 1048576 bytes"),
    ],
    ids=["role", "name", "twice", "text", "size"],
)
async def test_a_file_of_clients_that_is_none(
    line: str, complaint: str, authority: Authority, serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "clients").write_bytes(b"# clients\n" + line.encode("latin-1"))
    with pytest.raises(ExceptionGroup) as failed:
        async with trio.open_nursery() as nursery:
            config = ServerConfig(
                tls_certificate_file=authority.server(),
                tls_client_ca_file=authority.file,
                tls_clients_file=f"{tmp_path}/clients",
            )
            await nursery.start(execsrv.serve, "wss://127.0.0.1:0", config)
    assert failed.group_contains(CannotListenError, match=complaint, depth=1)


# -- files --


def listen(**config: Any) -> str:
    """The complaint of a server that cannot listen."""
    with pytest.raises(CannotListenError) as caught:
        trio.run(execsrv.serve, "wss://127.0.0.1:0", ServerConfig(**config))
    return str(caught.value).removeprefix("cannot listen on wss://127.0.0.1:0: ")


def test_files_that_cannot_be_used(authority: Authority, tmp_path: Path) -> None:
    server, none = authority.server(), f"{tmp_path}/none"
    other = Authority(tmp_path, "other").server(file="other.pem")
    (tmp_path / "text").write_text("no PEM")
    assert listen() == "`wss://` needs a tls_certificate_file"
    assert listen(tls_certificate_file=none) == f"cannot read the certificate in `{none}`: No such file or directory"
    assert listen(tls_certificate_file=f"{tmp_path}/text") == f"there is no certificate in PEM in `{tmp_path}/text`"
    assert listen(tls_certificate_file=authority.file) == (
        f"there is no key in PEM in `{authority.file}`; set tls_key_file (--tls-key-file) to the file that has it"
    )
    assert "the key is another one's" in listen(tls_certificate_file=server, tls_key_file=other)
    (tmp_path / "broken").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    os.mkfifo(tmp_path / "fifo")
    told = f"cannot read the {{}} in `{tmp_path}/fifo`: it is no file"
    assert listen(tls_certificate_file=f"{tmp_path}/fifo") == told.format("certificate")
    assert listen(tls_certificate_file=server, tls_key_file=f"{tmp_path}/fifo") == told.format("key")
    told = listen(tls_certificate_file=server, tls_client_ca_file=f"{tmp_path}/broken")
    assert told.startswith(f"cannot use the certificates in `{tmp_path}/broken`: ")
    (tmp_path / "clients").write_text("owner alice\n")
    (tmp_path / "clients").chmod(0o666)
    told = listen(
        tls_certificate_file=server, tls_client_ca_file=authority.file, tls_clients_file=f"{tmp_path}/clients"
    )
    assert told == f"cannot trust the file of clients `{tmp_path}/clients`: others may write to it (chmod go-w)"
    (tmp_path / "clients").chmod(0o600)
    told = listen(tls_certificate_file=server, tls_clients_file=f"{tmp_path}/clients")
    assert told == "a tls_clients_file needs a tls_client_ca_file"
    with pytest.raises(InvalidConfigError, match=r"a tls_key_file \(--key-file\) needs a tls_cert"):
        client_context(ClientConfig(tls_key_file=server))


@pytest.mark.parametrize("setting", ["tls_certificate_file", "tls_key_file", "tls_client_ca_file", "tls_clients_file"])
def test_protection_that_a_plain_line_does_not_have(setting: str) -> None:
    files: Any = {setting: "/file"}
    with pytest.raises(CannotListenError) as caught:
        trio.run(execsrv.serve, "ws://127.0.0.1:0", ServerConfig(**files))
    told = str(caught.value)
    assert told == f"cannot listen on ws://127.0.0.1:0: there is no TLS, yet {setting} is set; use `wss://`"


def test_a_passphrase_is_asked_of_nobody(authority: Authority, tmp_path: Path) -> None:
    """A daemon that waits at a terminal would wait for ever."""
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", authority.server(), "-out", f"{tmp_path}/key", "-passout", "pass:x"],
        check=True,
    )
    told = listen(tls_certificate_file=authority.server(), tls_key_file=f"{tmp_path}/key")
    assert told == f"the key in `{tmp_path}/key` has a passphrase, which nobody could enter"


async def test_a_clients_file_that_is_not_there(authority: Authority, serve: Serve) -> None:
    url = await serve(tls_certificate_file=authority.server())
    assert "cannot read the certificate in `/none`: No such file" in await refusal(url, tls_ca_file="/none")


# -- reading again --


@asynccontextmanager
async def reloading(serve: Serve, **config: Any) -> AsyncIterator[tuple[str, Callable[[], Awaitable[None]]]]:
    """A server, and what has it read its files again."""
    asks, asked = trio.open_memory_channel[None](0)
    reloaded = trio.lowlevel.ParkingLot()

    async def again() -> None:
        reloaded.unpark_all()  # what was asked for before is done
        await asked.receive()

    url = await serve(again=again, **config)

    async def reload() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reloaded.park)
            await trio.testing.wait_all_tasks_blocked()
            await asks.send(None)

    yield url, reload


async def test_a_certificate_is_renewed_while_connections_live(
    authority: Authority, serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    renewed = Authority(tmp_path, "renewed")
    async with reloading(serve, tls_certificate_file=authority.server()) as (url, reload):
        old: dict[str, Any] = {"tls_ca_file": authority.file}
        new: dict[str, Any] = {"tls_ca_file": renewed.file}
        async with (
            execsrv.connect(url, config=ClientConfig(**old)) as client,
            client.start(["cat"], stdin=True) as process,
        ):
            renewed.server()
            await reload()
            assert await echo(url, **new) == "hi\n"
            assert "not trusted" in await refusal(url, **old)
            await process.stdin.send_all(b"still here\n")
            assert await process.stdout.receive_some() == b"still here\n"
        await trio.Path(authority.server()).write_text("half of a certifi")
        await reload()
        assert "cannot reload the certificates, so nothing of it has changed" in caplog.text
        assert await echo(url, **new) == "hi\n"


async def test_a_client_is_taken_from_the_list(authority: Authority, serve: Serve, tmp_path: Path) -> None:
    clients = tmp_path / "clients"
    clients.write_text("owner alice\n")
    alice = {"tls_ca_file": authority.file, "tls_certificate_file": authority.client("alice")}
    async with reloading(
        serve,
        tls_certificate_file=authority.server(),
        tls_client_ca_file=authority.file,
        tls_clients_file=str(clients),
    ) as (url, reload):
        assert await echo(url, **alice) == "hi\n"
        clients.write_text("owner bob\n")
        await reload()
        assert "none of those that may come in" in await refusal(url, **alice)


def test_a_certificate_is_renewed_at_a_signal(authority: Authority, tmp_path: Path) -> None:
    renewed = Authority(tmp_path, "renewed")
    argv = [sys.executable, "-m", "execsrv", "serve", "--listen", "wss://127.0.0.1:0"]
    argv += ["--tls-certificate-file", authority.server()]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(argv, start_new_session=True, **pipes) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        url = server.stdout.readline().strip()
        assert trio.run(partial(echo, url, tls_ca_file=authority.file)) == "hi\n"
        renewed.server()
        server.send_signal(signal.SIGHUP)
        while "reloaded the certificates" not in (line := server.stderr.readline()):
            assert line
        assert trio.run(partial(echo, url, tls_ca_file=renewed.file)) == "hi\n"
        server.terminate()


# -- what is no TLS, or broken --


async def test_each_side_without_tls_is_told(authority: Authority, serve: Serve) -> None:
    url = await serve(tls_certificate_file=authority.server())
    assert "426 Upgrade Required: this server speaks TLS: use `wss://`" in await refusal(url.replace("wss", "ws", 1))
    plain = await serve("ws://127.0.0.1:0")
    assert "TLS failed" in await refusal(plain.replace("ws", "wss", 1))


def own_client(authority: Authority, **attributes: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.file)
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


async def test_old_versions_are_refused(authority: Authority, serve: Serve) -> None:
    port = int((await serve(tls_certificate_file=authority.server())).rpartition(":")[2])
    old = own_client(authority, maximum_version=ssl.TLSVersion.TLSv1_2)
    stream = trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", port), old, server_hostname="127.0.0.1")
    with pytest.raises(trio.BrokenResourceError) as caught:
        await stream.do_handshake()
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    assert caught.value.__cause__.reason == "TLSV1_ALERT_PROTOCOL_VERSION"
    await trio.aclose_forcefully(stream)


async def test_nothing_is_remembered_for_the_next_connection(authority: Authority, serve: Serve) -> None:
    """Else a certificate that was taken back, or is over, would still do."""
    port = int((await serve(tls_certificate_file=authority.server())).rpartition(":")[2])

    def has_ticket() -> bool:
        context = own_client(authority)
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            secure.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert b"200 OK" in secure.recv(1000)
            assert secure.session is not None
            return secure.session.has_ticket

    assert not await trio.to_thread.run_sync(has_ticket)


BROKEN = {
    "nothing": b"",
    "junk": b"\x00" * 100,
    "half a hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a record that is too large": b"\x16\x03\x01\xff\xff" + b"x" * 70_000,
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
}


@pytest.mark.parametrize("how", ["end", "reset", "wait"])
@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
async def test_a_broken_handshake_is_one_line_and_costs_nobody(
    sent: bytes, how: str, authority: Authority, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    url = await serve(tls_certificate_file=authority.server(), handshake_timeout=0.1 if how == "wait" else PATIENCE)
    stream = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
    async with stream:
        try:
            await stream.send_all(sent)
            if how == "reset":
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                stream.socket.close()
            elif how == "end":
                await stream.send_eof()
            if how != "reset":
                with trio.fail_after(PATIENCE):
                    while await stream.receive_some():
                        pass
        except trio.BrokenResourceError:
            pass
    if how != "wait":  # where others have no time either
        assert await echo(url, tls_ca_file=authority.file, handshake_timeout=PATIENCE) == "hi\n"
    assert "Traceback" not in caplog.text
    assert all(record.exc_info is None for record in caplog.records)


async def test_a_place_at_the_door_that_is_taken_in_a_handshake(
    authority: Authority, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer peer takes it in the very moment in which the older one goes on: which comes first is not said."""
    url = await serve(tls_certificate_file=authority.server(), max_handshakes=1)
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        own_client(authority).wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1").do_handshake()
    data = hello.read()
    for _ in range(30):
        with socket.create_connection(address) as older:
            await trio.testing.wait_all_tasks_blocked()
            older.sendall(data)
            with socket.create_connection(address):  # in one turn of the loop
                await trio.testing.wait_all_tasks_blocked()
    assert all(record.exc_info is None for record in caplog.records)


async def test_a_line_that_is_cut_behind_the_handshake(authority: Authority, serve: Serve) -> None:
    """Without a goodbye of TLS: nobody takes that for an end that somebody wished, and the server goes on."""
    url = await serve(tls_certificate_file=authority.server())
    for cut in ("end", "reset"):
        plain = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
        stream = trio.SSLStream(plain, own_client(authority), server_hostname="127.0.0.1")
        await stream.send_all(b"GET / HTTP/1.1\r\n")
        if cut == "reset":
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        plain.socket.close()
    assert await echo(url, tls_ca_file=authority.file) == "hi\n"


# -- off the loopback --


@pytest.mark.parametrize(
    ("listen_at", "config", "complaint"),
    [
        ("ws://0.0.0.0:0", {}, "there is no TLS"),
        ("ws://[::]:0", {}, "there is no TLS"),
        ("ws://192.0.2.1:0", {"allow_anybody": True}, "there is no TLS"),
        ("ws://[::ffff:192.0.2.1]:0", {}, "there is no TLS"),
        ("ws://0.0.0.0:0", {"allow_plain_network": True}, "whoever reaches it would run commands as this user"),
        ("wss://0.0.0.0:0", {}, "whoever reaches it would run commands as this user"),
        ("wss://0.0.0.0:0", {"allow_plain_network": True}, "whoever reaches it would run commands as this user"),
    ],
)
def test_off_the_loopback_is_refused_without_protection(
    listen_at: str, config: dict[str, Any], complaint: str, authority: Authority
) -> None:
    certificate = authority.server() if listen_at.startswith("wss") else ""
    with pytest.raises(CannotListenError) as caught:
        trio.run(execsrv.serve, listen_at, ServerConfig(**config, tls_certificate_file=certificate))
    assert str(caught.value).startswith(f"cannot listen on {listen_at}: it is not the loopback, and ")
    assert complaint in str(caught.value)


async def test_off_the_loopback_with_protection_or_the_flags(authority: Authority, serve: Serve) -> None:
    url = await serve("ws://0.0.0.0:0", allow_plain_network=True, allow_anybody=True)
    assert await echo(url.replace("0.0.0.0", "127.0.0.1")) == "hi\n"
    url = await serve("wss://0.0.0.0:0", tls_certificate_file=authority.server(), tls_client_ca_file=authority.file)
    alice = authority.client("alice")
    local = url.replace("0.0.0.0", "127.0.0.1")
    assert await echo(local, tls_ca_file=authority.file, tls_certificate_file=alice) == "hi\n"
    assert "asks for the certificate" in await refusal(local, tls_ca_file=authority.file)


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.9.9.9", "[::1]"])
async def test_the_loopback_has_more_than_one_address(ip: str, serve: Serve) -> None:
    with socket.socket(socket.AF_INET6 if "[" in ip else socket.AF_INET) as probe:
        try:
            probe.bind((ip.strip("[]"), 0))
        except OSError:
            pytest.skip("there is no such address here")
    assert (await serve(f"ws://{ip}:0")).startswith("ws://")


# -- tokens --


@asynccontextmanager
async def listening_at(address: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A listener that is no server, and all that it hears of one client."""
    heard: list[bytes] = []

    async def listen(stream: trio.SocketStream) -> None:
        async with stream:
            heard.append(bytes(await stream.receive_some()))

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, listen, 0, host=address))
        yield f"ws://{address}:{listener.socket.getsockname()[1]}", heard
        nursery.cancel_scope.cancel()


async def test_a_token_goes_to_no_other_machine_without_tls(elsewhere: str) -> None:
    async with listening_at(elsewhere) as (url, heard):
        told = await refusal(url, "secret")
        assert "a token is not sent to another machine without TLS; use `wss://`, or " in told
        assert "--allow-plain-network" in told
        with trio.fail_after(PATIENCE):
            while not heard:
                await trio.lowlevel.checkpoint()
        assert heard == [b""]
        await refusal(url)  # without one, it is the caller's choice
        assert heard[1].startswith(b"GET / HTTP/1.1\r\n")


@asynccontextmanager
async def serving_at(address: str, tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    """A server without TLS, and the file of a token by which alone one comes in."""
    [token, tokens] = [str(tmp_path / name) for name in ("token", "tokens")]
    argv = [sys.executable, "-m", "execsrv"]
    await trio.run_process([*argv, "token", "new", "pool", "--file", tokens, "--out", token])
    argv += ["serve", "--listen", f"ws://{address}:0", "--allow-plain-network", "--token-file", tokens]
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(trio.run_process, argv, stdout=subprocess.PIPE, check=False))
        yield (await server.stdout.receive_some()).decode().strip(), token
        nursery.cancel_scope.cancel()


async def test_a_token_goes_to_another_machine_where_the_network_is_ones_own(elsewhere: str, tmp_path: Path) -> None:
    """By the word of the client, as the server listens by its own; a pool has it from either of two places."""
    allowed = ClientConfig(allow_plain_network=True)
    async with serving_at(elsewhere, tmp_path) as (url, token):
        async with execsrv.connect(url, token_file=token, config=allowed) as client:
            assert (await client.run(["echo", "hi"])).stdout == b"hi\n"
        async with execsrv.Pool([url], token_file=token, config=allowed) as pool:
            assert (await pool.run(["echo", "hi"])).stdout == b"hi\n"
        own = execsrv.Endpoint(url, token_file=token, allow_plain_network=True)
        async with execsrv.Pool([own]) as pool:
            assert (await pool.run(["echo", "hi"])).stdout == b"hi\n"
        async with execsrv.Pool([url], token_file=token, patience=0.1) as pool:
            with pytest.raises(execsrv.NoServerError, match="without TLS"):
                await pool.run(["echo", "hi"])


@pytest.mark.slow
async def test_the_command_line_says_that_the_network_is_ones_own(elsewhere: str, tmp_path: Path) -> None:
    async with serving_at(elsewhere, tmp_path) as (url, token):

        async def run(*options: str, said: str = "") -> tuple[int, bytes, bytes]:
            argv = [sys.executable, "-m", "execsrv", "run", *options, "--token-file", token, "--", "echo", "hi"]
            env = {**os.environ, "EXECSRV_CLIENT_ALLOW_PLAIN_NETWORK": said}
            done = await trio.run_process(argv, env=env, capture_stdout=True, capture_stderr=True, check=False)
            return done.returncode, done.stdout, done.stderr

        plain = ("--allow-plain-network",)
        (tmp_path / "pool").write_text(f'{{"url": "{url}"}}\n')
        (tmp_path / "pool").chmod(0o600)
        for reach in (("--url", url), ("--pool", str(tmp_path / "pool"))):
            assert await run(*reach, *plain) == (0, b"hi\n", b"")
            assert await run(*reach, said="true") == (0, b"hi\n", b"")
        (tmp_path / "pool").write_text(f'{{"url": "{url}", "allowPlainNetwork": true}}\n')
        ps = [sys.executable, "-m", "execsrv", "ps", "--pool", str(tmp_path / "pool"), "--token-file", token]
        await trio.run_process(ps)
        for said in ("", "false"):
            status, out, err = await run("--url", url, said=said)
            assert (status, out) == (125, b"")
            assert b"a token is not sent to another machine without TLS" in err
        status, _, err = await run("--url", url, said="perhaps")
        assert b"cannot take `perhaps` for EXECSRV_CLIENT_ALLOW_PLAIN_NETWORK: expected true or false" in err
        assert status == 125


async def test_a_token_goes_over_a_plain_line_of_this_machine() -> None:
    async with listening_at("127.0.0.1") as (url, heard):
        await refusal(url, "secret")
        assert b"Authorization: Bearer secret\r\n" in heard[0]


# -- the command line --


def test_run_by_tls(authority: Authority, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "execsrv", "serve", "--listen", "wss://127.0.0.1:0"]
    argv += ["--tls-certificate-file", authority.server(), "--tls-client-ca-file", authority.file]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        alice = authority.client("alice")
        run = [sys.executable, "-m", "execsrv", "run", "--url", url]
        flags = ["--ca-file", authority.file, "--certificate-file", alice]
        by_flags = subprocess.run([*run, *flags, "--", "echo", "hi"], capture_output=True, text=True, timeout=60)
        variables = {"EXECSRV_CA_FILE": authority.file, "EXECSRV_CLIENT_CERTIFICATE_FILE": alice}
        by_variables = subprocess.run(
            [*run, "--", "echo", "hi"], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60
        )
        without = subprocess.run([*run, "--", "echo", "hi"], capture_output=True, text=True, timeout=60)
        server.terminate()
    assert (by_flags.stdout, by_variables.stdout) == ("hi\n", "hi\n")
    assert (without.returncode, "its certificate is not trusted" in without.stderr) == (125, True)


def test_the_variables_of_a_client_are_no_settings_of_a_server() -> None:
    environment = {**os.environ, "EXECSRV_CA_FILE": "/a", "EXECSRV_CLIENT_KEY_FILE": "/b"}
    environment["EXECSRV_CLIENT_ALLOW_PLAIN_NETWORK"] = "true"
    argv = [sys.executable, "-m", "execsrv", "serve", "--print-config"]
    assert subprocess.run(argv, env=environment, capture_output=True, timeout=60).returncode == 0


async def test_handshakes_take_turns(tmp_path: Path) -> None:
    """Everybody else has a turn between two: to sign for each at once would hold up all of them."""
    certificates = Certificates()
    certificates.read(ServerConfig(tls_certificate_file=Authority(tmp_path).server()))
    count, turn = 16, 0
    answered: set[int] = set()

    async def tick() -> None:
        nonlocal turn
        while True:
            turn += 1
            await trio.lowlevel.checkpoint()

    async def note_answer(client: trio.SocketStream) -> None:
        await client.receive_some(1)
        answered.add(turn)

    async with trio.open_nursery() as nursery, AsyncExitStack() as ends:
        pairs: list[list[trio.SocketStream]] = []
        for _ in range(count):
            pairs.append([trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair()])
            for end in pairs[-1]:
                await ends.enter_async_context(end)
            hello, client = ssl.MemoryBIO(), ssl.create_default_context()
            with suppress(ssl.SSLWantReadError):
                client.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost").do_handshake()
            await pairs[-1][1].send_all(hello.read())
        nursery.start_soon(tick)
        async with trio.open_nursery() as waiting:
            for ours, theirs in pairs:
                nursery.start_soon(certificates.receive, ours, PATIENCE)
                waiting.start_soon(note_answer, theirs)
        nursery.cancel_scope.cancel()
    assert len(answered) > count // 2
