"""Another user in the directory of a unix socket, who puts sockets and links in the place of ours while we start."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
import trio.testing

import execsrv
from execsrv import ClientConfig, ConnectionFailedError
from execsrv._wire.owners import check_listener
from execsrv._wire.unix import listening
from tests.peers import PATIENCE
from tests.processes import may_become_nobody

NOBODY = 65534
ROUNDS = 500

pytestmark = pytest.mark.skipif(not may_become_nobody(), reason="only root can attack as another user")

BECOME_NOBODY = """
import itertools, os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
"""

PLANT = """
path, victim = sys.argv[1:]
print("planting", flush=True)
for kind in itertools.cycle(["socket", "listener", "link", "stale link", "file", "lock"]):
    try:
        if kind in ("socket", "listener"):
            with socket.socket(socket.AF_UNIX) as planted:
                planted.bind(path)
                if kind == "listener":
                    planted.listen()
                os.chmod(path, 0o777)
        elif kind == "file":
            open(path, "x").close()
        elif kind == "lock":
            os.close(os.open(path + ".lock", os.O_CREAT | os.O_EXCL, 0o666))
        else:
            os.symlink(victim if kind == "link" else path + ".aim", path)
    except OSError:
        pass
    for name in (path, path + ".lock"):
        try:
            os.unlink(name)
        except OSError:
            pass
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory as `/tmp`: everybody may write, and nobody may remove what is another's."""
    with TemporaryDirectory(prefix="execsrv-") as name:
        os.chmod(name, 0o1777)
        yield Path(name)


@contextmanager
def planting(path: Path, victim: Path) -> Iterator[None]:
    """Another user who never stops putting things in the place of our socket and its lock."""
    argv = [sys.executable, "-I", "-S", "-c", BECOME_NOBODY + PLANT, str(path), str(victim)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as planter:
        assert planter.stdout is not None
        assert planter.stdout.readline() == b"planting\n"
        try:
            yield
        finally:
            planter.kill()


def test_what_another_user_plants_is_neither_followed_nor_taken_for_ours(place: Path, tmp_path: Path) -> None:
    victim = tmp_path / "precious"
    victim.write_text("precious")
    victim.chmod(0o640)
    path, listened, refused = place / "s", 0, 0
    with planting(path, victim):
        for _ in range(ROUNDS):
            try:
                with listening(str(path)):
                    listened += 1
                    facts = path.lstat()
                    assert (facts.st_uid, stat.S_IMODE(facts.st_mode)) == (0, 0o600)
                    assert stat.S_ISSOCK(facts.st_mode)
                    with socket.socket(socket.AF_UNIX) as client:
                        client.connect(str(path))
                        check_listener(client)
            except OSError:
                refused += 1
            assert (victim.read_text(), stat.S_IMODE(victim.stat().st_mode)) == ("precious", 0o640)
    assert listened, "the attacker was never late"
    assert refused, "the attacker was always late"


LISTEN = """
os.umask(0)
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    print("listening", flush=True)
    heard = b""
    for _ in range(2):
        with listener.accept()[0] as peer:
            heard += peer.recv(1000)
    print(heard, flush=True)
"""


async def test_a_client_says_nothing_to_another_users_server(place: Path) -> None:
    """It waits where ours has been, in a directory in which it may."""
    argv = [sys.executable, "-I", "-S", "-c", BECOME_NOBODY + LISTEN, f"{place}/s"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as thief:  # noqa: ASYNC220  # it is not waited for
        assert thief.stdout is not None
        assert thief.stdout.readline() == b"listening\n"
        for url in (f"unix://{place}/s", f"unix://{place}/link"):
            if url.endswith("link"):
                os.symlink("s", place / "link")
            with pytest.raises(ConnectionFailedError, match=f"another user .uid {NOBODY}. listens there"):
                async with execsrv.connect(url, config=ClientConfig(handshake_timeout=60)):
                    pass
        assert await trio.to_thread.run_sync(thief.stdout.readline) == b"b''\n"


TAKE_A_PORT = """
import socket, sys
family, address = (socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET), sys.argv[1]
with socket.socket(family) as listener:
    listener.bind((address, 0))
    listener.listen()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.readline()
    with listener.accept()[0] as peer:
        print(peer.recv(1000), flush=True)
"""


async def is_connected(port: int) -> bool:
    """Return whether there is a connection to this port, accepted or not."""
    tables = [await trio.Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table.splitlines()[1:]]
    return any(line[1].endswith(f":{port:04X}") and line[3] == "01" for line in lines)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("accepts", ["at once", "late"])
async def test_a_client_says_nothing_to_who_has_taken_a_port(accepts: str, address: str) -> None:
    """As long as nobody has accepted, the kernel tells no user of the other end, and it looks like root's."""
    argv = [sys.executable, "-I", "-S", "-c", BECOME_NOBODY + TAKE_A_PORT, address]
    host = f"[{address}]" if ":" in address else address
    refused = False

    async def connect(port: str) -> None:
        nonlocal refused
        with pytest.raises(ConnectionFailedError, match=f"another user .uid {NOBODY}. listens there"):
            async with execsrv.connect(f"ws://{host}:{port}", token="x", config=ClientConfig(handshake_timeout=60)):
                pass
        refused = True

    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, **pipes) as thief:  # type: ignore[call-overload]  # noqa: ASYNC220
        port = thief.stdout.readline().decode().strip()
        if not port:
            pytest.skip(f"there is no {address} here")
        async with trio.open_nursery() as nursery:
            if accepts == "late":
                nursery.start_soon(connect, port)
                while not await is_connected(int(port)):
                    await trio.lowlevel.checkpoint()
                await trio.testing.wait_all_tasks_blocked()
                assert not refused
                thief.stdin.close()
            else:
                thief.stdin.close()
                nursery.start_soon(connect, port)
        assert await trio.to_thread.run_sync(thief.stdout.readline) == b"b''\n"


async def test_a_server_of_another_user_may_be_trusted_on_the_loopback() -> None:
    argv = [sys.executable, "-I", "-S", "-c", BECOME_NOBODY + TAKE_A_PORT, "127.0.0.1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, **pipes) as other:  # type: ignore[call-overload]  # noqa: ASYNC220
        port = other.stdout.readline().decode().strip()
        other.stdin.close()
        with pytest.raises(ConnectionFailedError):  # it says nothing
            async with execsrv.connect(f"ws://127.0.0.1:{port}", config=ClientConfig(server_uids=(NOBODY,))):
                pass
        assert b"Upgrade: websocket" in await trio.to_thread.run_sync(other.stdout.readline)


async def test_a_server_that_hangs_up_at_once_is_told_at_once() -> None:
    """Nobody holds its end any more; that is not waited for."""

    async def hang_up(stream: trio.SocketStream) -> None:
        stream.socket.close()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, hang_up, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        for _ in range(20):
            with trio.fail_after(PATIENCE), pytest.raises(ConnectionFailedError):
                async with execsrv.connect(f"ws://127.0.0.1:{port}", config=ClientConfig(handshake_timeout=9999)):
                    pass
        nursery.cancel_scope.cancel()
