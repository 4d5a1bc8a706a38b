"""Broken TLS and broken upgrades at a real daemon, many at once, beside somebody who has to be served."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

import execsrv
from execsrv import ClientConfig, ConnectionFailedError
from tests.attack.neighbour import open_neighbour
from tests.certificates import Authority
from tests.faults.daemon import Daemon, running_daemon
from tests.peers import PATIENCE
from tests.processes import resident
from tests.test_admission import UPGRADE

ABORT = struct.pack("ii", 1, 0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def daemon(tmp_path: Path, authority: Authority) -> Iterator[Daemon]:
    """A daemon that asks for certificates, and takes only those of one authority."""
    options = ["--listen", "wss://127.0.0.1:0", "--tls-certificate-file", authority.server()]
    with running_daemon(tmp_path, "websocket", *options, "--tls-client-ca-file", authority.file) as daemon:
        yield daemon


def client(authority: Authority, name: str = "alice", **config: Any) -> ClientConfig:
    """The configuration of a client with a certificate of that authority."""
    settings = {"tls_ca_file": authority.file, "tls_certificate_file": authority.client(name), **config}
    return ClientConfig(handshake_timeout=PATIENCE, **settings)


def port_of(daemon: Daemon) -> int:
    return int(daemon.url.rpartition(":")[2])


async def check_usable(daemon: Daemon, authority: Authority) -> None:
    async with execsrv.connect(daemon.url, config=client(authority)) as innocent:
        assert (await innocent.run(["echo", "fine"])).stdout == b"fine\n"
    daemon.check()


def handshake(authority: Authority, **attributes: Any) -> tuple[bytes, bytes]:
    """Return the first and the second flight of a client, recorded at a server of the test's own."""
    theirs = ssl.create_default_context(cafile=authority.file)
    theirs.load_cert_chain(authority.client("alice"))
    for name, value in attributes.items():
        setattr(theirs, name, value)
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    ours.verify_mode = ssl.CERT_REQUIRED
    ours.load_cert_chain(authority.server(file="own.pem"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = theirs.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    other = ours.wrap_bio(to_server, to_client, server_side=True)
    with suppress(ssl.SSLWantReadError):
        one.do_handshake()
    first = to_server.read()
    to_server.write(first)
    with suppress(ssl.SSLWantReadError):
        other.do_handshake()
    with suppress(ssl.SSLWantReadError):  # an older version takes another round
        one.do_handshake()
    return first, to_server.read()


def replayed(daemon: Daemon, data: bytes, how: str) -> bytes:
    """Say it and go; what was answered until then."""
    address = ("127.0.0.1", port_of(daemon))
    answer = b""
    with suppress(ConnectionError), socket.create_connection(address, timeout=PATIENCE) as peer:
        peer.sendall(data)
        if how == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            return b""
        peer.shutdown(socket.SHUT_WR)
        while piece := peer.recv(65536):
            answer += piece
    return answer


async def test_whoever_has_no_certificate_of_ours(daemon: Daemon, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "other")
    await check_usable(daemon, authority)
    wrong: dict[str, dict[str, Any]] = {
        "none": {"tls_certificate_file": ""},
        "of another authority": {"tls_certificate_file": stranger.client("mallory")},
        "expired": {"tls_certificate_file": authority.client("old", expired=True)},
        "a server of another authority": {"tls_ca_file": stranger.file},
        "no authority": {"tls_ca_file": ""},
    }
    for what, config in wrong.items():
        with pytest.raises(ConnectionFailedError):
            async with execsrv.connect(daemon.url, config=client(authority, **config)):
                raise AssertionError(what)
    plain = await trio.to_thread.run_sync(replayed, daemon, UPGRADE, "end")
    assert plain.startswith(b"HTTP/1.1 426")
    await check_usable(daemon, authority)


@pytest.mark.parametrize(
    "context",
    [
        {"maximum_version": ssl.TLSVersion.TLSv1_2},
        {"minimum_version": ssl.TLSVersion.TLSv1_2, "maximum_version": ssl.TLSVersion.TLSv1_2},
    ],
    ids=["1.2 and below", "1.2"],
)
async def test_nobody_is_led_down_to_an_older_version(
    daemon: Daemon, authority: Authority, context: dict[str, Any]
) -> None:
    first, _ = handshake(authority, **context)
    answer = await trio.to_thread.run_sync(replayed, daemon, first, "end")
    assert answer == b"\x15\x03\x03\x00\x02\x02\x46"  # fatal: protocol_version
    daemon.check()


@pytest.mark.parametrize("step", [53, pytest.param(7, marks=pytest.mark.slow)])
async def test_a_handshake_that_is_cut_or_damaged_anywhere(daemon: Daemon, authority: Authority, step: int) -> None:
    """Also one that was recorded elsewhere and is played again: its second flight is for other keys."""
    flights = b"".join(handshake(authority))
    async with (
        execsrv.connect(daemon.url, config=client(authority)) as neighbour,
        neighbour.start(["cat"], stdin=True) as cat,
    ):
        for number, at in enumerate(range(0, len(flights), step)):
            damaged = flights[:at] + bytes([flights[at] ^ 0xFF]) + flights[at + 1 :]
            for data, how in ((flights[:at], "end"), (flights[:at], "reset"), (damaged, "end")):
                answer = await trio.to_thread.run_sync(replayed, daemon, data, how)
                assert b"HTTP" not in answer
            await cat.stdin.send_all(b"%d\n" % number)
            assert await cat.stdout.receive_some() == b"%d\n" % number
    await check_usable(daemon, authority)


@asynccontextmanager
async def storm(daemon: Daemon, said: bytes, count: int) -> AsyncIterator[None]:
    """So many peers at once who begin, say that, wait for an answer, and begin again, for the block."""

    async def knock() -> None:
        while True:
            with suppress(OSError):
                async with await trio.open_tcp_stream("127.0.0.1", port_of(daemon)) as peer:
                    with suppress(trio.BrokenResourceError), trio.move_on_after(1):
                        await peer.send_all(said)
                        await peer.receive_some()

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(knock)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_storm_of_handshakes(daemon: Daemon, authority: Authority) -> None:
    """Each has the server sign once, and none goes further. Somebody who is in notices as little as may be."""
    first, _ = handshake(authority)
    async with (
        execsrv.connect(daemon.url, config=client(authority)) as neighbour,
        neighbour.start(["cat"], stdin=True) as cat,
    ):
        before = resident(daemon.pid)
        async with storm(daemon, first, 50):
            for number in range(100):
                await cat.stdin.send_all(b"%d\n" % number)
                assert await cat.stdout.receive_some() == b"%d\n" % number
            await check_usable(daemon, authority)
        assert resident(daemon.pid) < before + 64 * 1024 * 1024
    daemon.check()


SAID = {
    "nothing": b"",
    "half a request": b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgr",
    "an upgrade": UPGRADE,
    "a head without an end": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2000,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "junk": os.urandom(4000).replace(b"\r\n\r\n", b""),
}


@pytest.mark.parametrize(
    "said", [pytest.param(SAID[what], marks=pytest.mark.slow if what != "nothing" else (), id=what) for what in SAID]
)
async def test_peers_that_begin_and_begin_again(tmp_path: Path, said: bytes) -> None:
    """More than there are places at the door, all the time."""
    with running_daemon(tmp_path, "websocket") as daemon:
        async with open_neighbour(daemon.url) as neighbour, AsyncExitStack() as crowd:
            before = resident(daemon.pid)
            for _ in range(300):
                peer = await crowd.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port_of(daemon)))
                with suppress(trio.BrokenResourceError):
                    await peer.send_all(said)
            async with storm(daemon, said, 50):
                for _ in range(5):
                    await neighbour.answered()
            assert resident(daemon.pid) < before + 64 * 1024 * 1024
        async with execsrv.connect(daemon.url, config=ClientConfig(handshake_timeout=PATIENCE)) as innocent:
            assert (await innocent.run(["echo", "fine"])).stdout == b"fine\n"
        daemon.check()
